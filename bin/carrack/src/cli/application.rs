//! Finding and reading an application: its Compose file, `.env`, env files and
//! policies.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use carrack_objects::Problem;
use carrack_objects::compose::{self, Application, Environment};

use crate::exit;

/// Names a Compose file may have, in the order they are looked for.
const FILE_NAMES: &[&str] =
    &["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];

/// Which application is meant.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Which {
    /// Compose file [default: compose.yaml in the directory]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Project name [default: the file's `name`, or the directory's]
    #[arg(short, long, env = "COMPOSE_PROJECT_NAME", value_name = "NAME")]
    pub(crate) project: Option<String>,
    /// Directory of the application
    #[arg(default_value = ".")]
    pub(crate) directory: PathBuf,
}

impl Which {
    /// The Compose file meant.
    ///
    /// # Errors
    ///
    /// When the directory has none, naming what was looked for.
    pub(crate) fn compose_file(&self) -> anyhow::Result<PathBuf> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        if self.directory.is_file() {
            return Ok(self.directory.clone());
        }
        let candidates = FILE_NAMES.iter().map(|name| self.directory.join(name));
        candidates.into_iter().find(|file| file.is_file()).ok_or_else(|| {
            exit::usage(format!(
                "{} has no Compose file; looked for {}",
                self.directory.display(),
                FILE_NAMES.join(", ")
            ))
        })
    }

    /// Reads the application.
    ///
    /// # Errors
    ///
    /// Everything wrong with its files, each with its place.
    pub(crate) fn read(&self) -> anyhow::Result<Application> {
        let file = self.compose_file()?;
        let text = read(&file)?;
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = std::path::absolute(parent.unwrap_or(Path::new(".")))?;
        let variables = variables(&directory)?;
        let environment =
            Environment { directory, project: self.project.clone(), variables: variables.clone() };
        let application = compose::parse(&text, &file.display().to_string(), &environment)
            .map_err(|problems| refused(&problems))?;
        application
            .read_env_files(&variables, |path| std::fs::read_to_string(path))
            .map_err(|problems| refused(&problems))
    }

    /// The policy files beside the Compose file: `policies/*.yaml`, by name.
    ///
    /// # Errors
    ///
    /// When the directory cannot be listed.
    pub(crate) fn policy_files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let file = self.compose_file()?;
        let directory = file.parent().unwrap_or(Path::new(".")).join("policies");
        if !directory.is_dir() {
            return Ok(Vec::new());
        }
        let listed = std::fs::read_dir(&directory)
            .with_context(|| format!("listing the policies in {}", directory.display()))?;
        let mut files = Vec::new();
        for entry in listed {
            let path = entry.with_context(|| format!("listing {}", directory.display()))?.path();
            if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }
}

/// The shell's variables over those of `.env` in the application's directory.
fn variables(directory: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let shell: BTreeMap<String, String> = std::env::vars().collect();
    let file = directory.join(".env");
    if !file.is_file() {
        return Ok(shell);
    }
    let text = read(&file)?;
    let name = file.display().to_string();
    let found =
        compose::parse_env_file(&text, &name, &shell).map_err(|problems| refused(&problems))?;
    let mut all: BTreeMap<String, String> = found.into_iter().collect();
    all.extend(shell);
    Ok(all)
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file)
        .with_context(|| format!("reading {}", file.display()))
        .map_err(|error| error.context(exit::usage("the application cannot be read")))
}

/// Everything wrong with what a person wrote, a line each, as exit code 2.
pub(crate) fn refused(problems: &[Problem]) -> anyhow::Error {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    exit::usage(lines.join("\n"))
}

//! Compose applications: what is in the file, checked and resolved.
//!
//! ```text
//! compose.yaml ──parse──▶ Application ──read_env_files──▶ Application
//! ```
//!
//! An [`Application`] has nothing left to resolve but its `env_file`s: variables
//! are interpolated, anchors and merges expanded, short forms written out,
//! relative host paths joined to the project's directory, defaults filled in.
//! Every field of the Compose specification is known by name (see [`FIELDS`]);
//! one that is not acted on is refused, unless it means nothing here.

mod application;
mod build;
mod env_file;
mod fields;
mod interpolate;
mod mounts;
mod ports;
mod reading;
mod references;
mod service;
mod units;

pub use application::{
    AdditionalContext, Application, Build, Condition, Dependency, EnvFile, Environment, HealthTest,
    Healthcheck, Mount, MountKind, PidsLimit, Port, Restart, SeccompMode, SecurityOptions, Service,
    Volume,
};
pub use env_file::{parse_env_file, parse_raw_env_file};
pub use fields::{FIELDS, Field, Support, reference};
pub use units::{bytes as parse_bytes, duration as parse_duration, nano_cpus as parse_nano_cpus};

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use indexmap::IndexMap;

use self::reading::Reading;
use crate::cursor::Cursor;
use crate::problem::{Origin, Problem};
use crate::yaml;

/// Parses the text of a Compose file called `file`.
///
/// # Errors
///
/// Everything wrong with it, in the order of the file. Nothing is opened, so an
/// `env_file` or build context that is missing is found later.
pub fn parse(
    text: &str,
    file: &str,
    environment: &Environment,
) -> Result<Application, Vec<Problem>> {
    let mut documents = yaml::parse(text, file)?;
    let top = |message: &str| {
        let origin = Origin { file: file.to_owned(), line: 1, column: 1 };
        vec![Problem { origin, message: message.to_owned() }]
    };
    if documents.len() > 1 {
        return Err(top("holds more than one YAML document"));
    }
    let Some(mut document) = documents.pop() else {
        return Err(top("holds no services"));
    };
    let mut reading = Reading::new(file, environment);
    reading.interpolate(&mut document);
    let root = Cursor::root(&document);
    if !root.is_mapping() {
        return Err(top("is not a mapping with `services`"));
    }
    fields::check(&mut reading, &root);
    let application = application(&mut reading, &root);
    match (application, reading.problems.is_empty()) {
        (Some(application), true) => Ok(application),
        _ => Err(with_their_causes(reading)),
    }
}

/// The problems in order, and the warnings that stand in the same lines: a field
/// that is wrong is often one whose variable is not set.
fn with_their_causes(reading: Reading<'_>) -> Vec<Problem> {
    let Reading { mut problems, warnings, .. } = reading;
    let lines: Vec<_> = problems.iter().map(|problem| problem.origin.line).collect();
    problems.extend(warnings.into_iter().filter(|warning| lines.contains(&warning.origin.line)));
    problems.sort();
    problems.dedup();
    problems
}

fn application(reading: &mut Reading<'_>, root: &Cursor<'_>) -> Option<Application> {
    let name = project_name(reading, root);
    let volumes = volumes(reading, root, name.as_deref().unwrap_or_default());
    networks(reading, root);
    let mut services = IndexMap::new();
    match root.get("services") {
        Some(at) if at.is_mapping() && !at.entries().is_empty() => {
            for (name, at) in at.entries() {
                if let Some(service) = service::read(reading, &name, &at) {
                    services.insert(name, service);
                }
            }
            references::check(reading, &at, &services, &volumes);
        }
        Some(at) => reading.wrong(&at, "takes a mapping with at least one service"),
        None => reading.problem_at(root.node.place, "holds no services".to_owned()),
    }
    Some(Application {
        name: name?,
        directory: reading.environment.directory.clone(),
        services,
        volumes,
        warnings: reading.warnings.clone(),
    })
}

/// The project's name: from outside, from the file, from the directory.
fn project_name(reading: &mut Reading<'_>, root: &Cursor<'_>) -> Option<String> {
    let written = root.get("name").and_then(|at| Some((reading.text(&at)?, at)));
    if let Some(name) = &reading.environment.project {
        if is_project_name(name) {
            return Some(name.clone());
        }
        let message = format!("the project name `{name}` {PROJECT_NAME_TAKES}");
        reading.problem_at(root.node.place, message);
        return None;
    }
    if let Some((name, at)) = written {
        if is_project_name(&name) {
            return Some(name);
        }
        reading.wrong(&at, PROJECT_NAME_TAKES);
        return None;
    }
    let name = project_name_of(&reading.environment.directory);
    if name.is_none() {
        let message = "the directory's name makes no project name; give `name`".to_owned();
        reading.problem_at(root.node.place, message);
    }
    name
}

const PROJECT_NAME_TAKES: &str =
    "takes up to 63 lower case letters, digits, `-` and `_`, first a letter or digit";

/// Whether `name` may be a project's: it becomes part of container names, host
/// names and SPIFFE IDs.
pub fn is_project_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c))
}

/// The project name a directory gives when nothing else does.
pub fn project_name_of(directory: &Path) -> Option<String> {
    let name: String = directory
        .file_name()?
        .to_str()?
        .to_lowercase()
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(*c))
        .take(63)
        .collect();
    let name = name.trim_start_matches(['-', '_']);
    is_project_name(name).then(|| name.to_owned())
}

fn networks(reading: &mut Reading<'_>, root: &Cursor<'_>) {
    for (name, at) in root.get("networks").map(|at| at.entries()).unwrap_or_default() {
        if name != "default" {
            let message =
                format!("`{}` is not supported yet: a project has one network, `default`", at.path);
            reading.problem_at(at.key_place, message);
        }
    }
}

fn volumes(
    reading: &mut Reading<'_>,
    root: &Cursor<'_>,
    project: &str,
) -> IndexMap<String, Volume> {
    let mut volumes = IndexMap::new();
    let Some(at) = root.get("volumes") else { return volumes };
    if !at.is_mapping() {
        reading.wrong(&at, "takes a mapping of volumes");
    }
    for (key, at) in at.entries() {
        if !is_volume_name(&key) {
            reading.wrong(&at, VOLUME_NAME_TAKES);
        }
        let external = at
            .get("external")
            .filter(|at| !at.is_mapping())
            .and_then(|at| reading.boolean(&at))
            .unwrap_or(false);
        let given = at.get("name").and_then(|at| {
            let name = reading.text(&at)?;
            if !is_volume_name(&name) {
                reading.wrong(&at, VOLUME_NAME_TAKES);
            }
            Some(name)
        });
        let name = given
            .unwrap_or_else(|| if external { key.clone() } else { format!("{project}_{key}") });
        let labels = at.get("labels").map(|at| reading.labels(&at)).unwrap_or_default();
        volumes.insert(key, Volume { name, external, labels });
    }
    volumes
}

const VOLUME_NAME_TAKES: &str = "takes letters, digits, `_`, `.` and `-`, first a letter or digit";

/// Whether `name` may be a volume's: it becomes the name of a directory.
fn is_volume_name(name: &str) -> bool {
    name.len() <= 200
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

impl Application {
    /// Reads every `env_file` through `read` and puts what they say under what
    /// `environment` says. `variables` are those the files may refer to.
    ///
    /// # Errors
    ///
    /// Every file that is required and cannot be read, and everything wrong in them.
    pub fn read_env_files(
        mut self,
        variables: &BTreeMap<String, String>,
        mut read: impl FnMut(&Path) -> io::Result<String>,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        for service in self.services.values_mut() {
            let mut merged = IndexMap::new();
            for file in std::mem::take(&mut service.env_files) {
                match read_env_file(&file, variables, &mut read) {
                    Ok(found) => merged.extend(found),
                    Err(more) => problems.extend(more),
                }
            }
            merged.extend(std::mem::take(&mut service.environment));
            service.environment = merged;
        }
        if problems.is_empty() { Ok(self) } else { Err(problems) }
    }
}

fn read_env_file(
    file: &EnvFile,
    variables: &BTreeMap<String, String>,
    read: &mut impl FnMut(&Path) -> io::Result<String>,
) -> Result<IndexMap<String, String>, Vec<Problem>> {
    let name = file.path.display().to_string();
    let text = match read(&file.path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !file.required => {
            return Ok(IndexMap::new());
        }
        Err(error) => {
            let origin = Origin { file: name, line: 1, column: 1 };
            return Err(vec![Problem { origin, message: format!("cannot be read: {error}") }]);
        }
    };
    if file.raw {
        parse_raw_env_file(&text, &name)
    } else {
        parse_env_file(&text, &name, variables)
    }
}

#[cfg(test)]
mod tests;

//! `carrack apply`, `delete`, `get`: traffic policies in force.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use carrack_control::api::{Applied, ApplyRequest, Enforcement, PolicyFile};
use carrack_control::client::{ClientError, ControlClient};

use super::daemon;
use crate::exit;
use crate::output::progress::Display;
use crate::output::table::Table;
use crate::output::{self, Format};
use crate::settings::Settings;

/// Put traffic policies in force
#[derive(Debug, clap::Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    target: Target,
    /// Files of AuthorizationPolicy objects; may be given more than once
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// The project policies are about.
#[derive(Debug, clap::Args)]
struct Target {
    /// Project; the namespace of policies that name none
    #[arg(short, long, env = "COMPOSE_PROJECT_NAME", value_name = "NAME")]
    project: String,
}

impl ApplyArgs {
    pub(crate) async fn execute(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let files = read_files(&self.files)?;
        let client = client(settings).await?;
        let request = ApplyRequest { project: self.target.project, files, replace: false };
        let applied = client.apply(&request).await.map_err(refusal)?;
        for policy in &applied.policies {
            let judged = policy.workloads.join(", ");
            output::line(format_args!("{} {} in force for: {judged}", policy.action, policy.name));
        }
        confirm(&applied)
    }
}

/// Withdraw traffic policies
#[derive(Debug, clap::Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    target: Target,
    /// Files whose policies are withdrawn; may be given more than once [default: all of the project]
    #[arg(short, long = "filename", value_name = "FILE", required_unless_present = "all")]
    files: Vec<PathBuf>,
    /// Every policy of the project
    #[arg(long, conflicts_with = "files")]
    all: bool,
}

impl DeleteArgs {
    pub(crate) async fn execute(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let client = client(settings).await?;
        if self.all {
            return confirm(&client.delete(&self.target.project, None).await.map_err(refusal)?);
        }
        let mut code = ExitCode::SUCCESS;
        for file in &self.files {
            let name = name_of(file)?;
            let applied =
                client.delete(&self.target.project, Some(&name)).await.map_err(refusal)?;
            code = confirm(&applied)?;
        }
        Ok(code)
    }
}

/// List the traffic policies in force
#[derive(Debug, clap::Args)]
pub(crate) struct GetArgs {
    /// Of this project only
    #[arg(short, long, value_name = "NAME")]
    project: Option<String>,
    /// How to print them
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

impl GetArgs {
    pub(crate) async fn execute(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let mut policies = client(settings).await?.list().await.map_err(refusal)?;
        if let Some(project) = &self.project {
            policies.retain(|policy| policy.namespace == *project);
        }
        if self.format == Format::Json {
            output::json(&policies)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut table = Table::new(&["PROJECT", "POLICY", "ACTION", "WRITTEN AT", "JUDGES"]);
        for policy in policies {
            table.row([
                policy.namespace,
                policy.name,
                policy.action,
                format!("{}:{}", policy.origin.file, policy.origin.line),
                policy.workloads.join(", "),
            ]);
        }
        table.print();
        Ok(ExitCode::SUCCESS)
    }
}

/// Makes `files` all the policies of a project.
pub(crate) async fn replace(
    settings: &Settings,
    project: &str,
    files: &[PolicyFile],
    display: &Display,
) -> anyhow::Result<()> {
    let client = client(settings).await?;
    let request =
        ApplyRequest { project: project.to_owned(), files: files.to_vec(), replace: true };
    let applied = client.apply(&request).await.map_err(refusal)?;
    if !files.is_empty() {
        display.done("policies", &format!("{} in force", applied.policies.len()));
    }
    if let Enforcement::NotYet { reason } = &applied.enforcement {
        return Err(exit::precondition(format!(
            "the policies of {project} are not in force: {reason}"
        )));
    }
    Ok(())
}

/// Reads policy files under the absolute names a person finds them by.
pub(crate) fn read_files(files: &[PathBuf]) -> anyhow::Result<Vec<PolicyFile>> {
    let read = |file: &PathBuf| {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        Ok(PolicyFile { file: name_of(file)?, text })
    };
    files.iter().map(read).collect()
}

fn name_of(file: &Path) -> anyhow::Result<String> {
    let absolute =
        std::path::absolute(file).with_context(|| format!("resolving {}", file.display()))?;
    Ok(absolute.display().to_string())
}

async fn client(settings: &Settings) -> anyhow::Result<ControlClient> {
    daemon::client(settings).await?;
    Ok(ControlClient::new(settings.control_socket()))
}

/// Success only when the proxy has said that it enforces what was asked.
fn confirm(applied: &Applied) -> anyhow::Result<ExitCode> {
    match &applied.enforcement {
        Enforcement::InForce => Ok(ExitCode::SUCCESS),
        Enforcement::NotYet { reason } => Err(exit::precondition(format!(
            "recorded, but the node proxy has not confirmed it: {reason}"
        ))),
    }
}

fn refusal(error: ClientError) -> anyhow::Error {
    match error {
        ClientError::Refused { problems, .. } if !problems.is_empty() => {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            exit::usage(lines.join("\n"))
        }
        error => error.into(),
    }
}

//! `carrack exec`.

use std::process::ExitCode;

use carrack_engine::api::ExecRequest;
use carrack_engine::client::{ClientError, EngineClient};

use super::streams::{self, Join};
use super::{daemon, run};
use crate::exit;
use crate::settings::Settings;

/// Run a command in a running container
#[derive(Debug, clap::Args)]
pub(crate) struct ExecArgs {
    /// Keep stdin open
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set a variable; without a value, take it from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// User, as `name`, `uid`, `name:group` or `uid:gid`
    #[arg(short, long)]
    user: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Name or id of the container, or name of a service: its first container
    container: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl ExecArgs {
    pub(crate) async fn execute(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let join = Join { stdin: self.interactive, terminal: self.tty };
        streams::check_terminal(join)?;
        let client = daemon::client(settings).await?;
        let request = ExecRequest {
            command: self.command,
            environment: run::variables(&self.env),
            user: self.user,
            working_dir: self.workdir,
            terminal: self.tty,
            interactive: self.interactive,
            size: streams::terminal_size().filter(|_| self.tty),
        };
        let session = match client.exec(&self.container, &request).await {
            Err(ClientError::NotFound(fault)) => {
                // A name that is no container's may be a service's, as Compose has it.
                let first = first_of(&client, &self.container).await?;
                let first = first.ok_or_else(|| streams::refusal(ClientError::NotFound(fault)))?;
                client.exec(&first, &request).await
            }
            outcome => outcome,
        };
        let session = session.map_err(streams::refusal)?;
        let exit = streams::join(session, join).await.map_err(streams::refusal)?;
        Ok(streams::code_of(&exit))
    }
}

/// The first running container of the service called `name`, where only one project has it.
async fn first_of(client: &EngineClient, name: &str) -> anyhow::Result<Option<String>> {
    let mut of_service = client.ps(false, None).await?;
    of_service.retain(|one| one.service == name);
    of_service.sort_by(|one, other| one.name.cmp(&other.name));
    let Some(first) = of_service.first() else { return Ok(None) };
    if let Some(other) = of_service.iter().find(|one| one.project != first.project) {
        return Err(exit::usage(format!(
            "both {} and {} have a service `{name}`; name the container",
            first.project, other.project
        )));
    }
    Ok(Some(first.id.clone()))
}

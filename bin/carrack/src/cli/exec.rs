//! `carrack exec`.

use std::process::ExitCode;

use carrack_engine::api::ExecRequest;

use super::streams::{self, Join};
use super::{daemon, run};
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
    /// Name or id of the container; a service's name where that is clear
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
        let session = client.exec(&self.container, &request).await.map_err(streams::refusal)?;
        let exit = streams::join(session, join).await.map_err(streams::refusal)?;
        Ok(streams::code_of(&exit))
    }
}

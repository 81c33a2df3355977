//! `carrack start`, `stop`, `restart`, `kill`, `wait`, `rm`: one call for each name.

use std::process::ExitCode;
use std::time::Duration;

use carrack_engine::api::{KillRequest, RemoveRequest, StopRequest};
use carrack_engine::client::ClientError;

use super::daemon;
use crate::output;
use crate::settings::Settings;

/// The containers a verb is about.
#[derive(Debug, clap::Args)]
pub(crate) struct NamesArgs {
    /// Names or ids of containers
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
}

impl NamesArgs {
    pub(crate) async fn start(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let client = daemon::client(settings).await?;
        for_each(&self.names, async |name| client.start(name).await).await
    }

    pub(crate) async fn wait(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let client = daemon::client(settings).await?;
        for name in &self.names {
            let exit = client.wait(name).await?;
            output::line(exit.code);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Containers and how long they may take.
#[derive(Debug, clap::Args)]
pub(crate) struct StopArgs {
    /// Seconds until SIGKILL [default: the container's own grace period]
    #[arg(short, long, value_name = "SECONDS")]
    time: Option<u64>,
    #[command(flatten)]
    names: NamesArgs,
}

impl StopArgs {
    pub(crate) async fn stop(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let client = daemon::client(settings).await?;
        let request = self.request();
        for_each(&self.names.names, async |name| client.stop(name, &request).await).await
    }

    pub(crate) async fn restart(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let client = daemon::client(settings).await?;
        let request = self.request();
        for_each(&self.names.names, async |name| client.restart(name, &request).await).await
    }

    fn request(&self) -> StopRequest {
        StopRequest { timeout: self.time.map(Duration::from_secs) }
    }
}

/// Send containers a signal
#[derive(Debug, clap::Args)]
pub(crate) struct KillArgs {
    /// The signal, such as `HUP`, `SIGHUP` or `1` [default: KILL]
    #[arg(short, long)]
    signal: Option<String>,
    #[command(flatten)]
    names: NamesArgs,
}

impl KillArgs {
    pub(crate) async fn execute(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let client = daemon::client(settings).await?;
        let request = KillRequest { signal: self.signal };
        for_each(&self.names.names, async |name| client.kill(name, &request).await).await
    }
}

/// Remove containers
#[derive(Debug, clap::Args)]
pub(crate) struct RemoveArgs {
    /// Kill those that run
    #[arg(short, long)]
    force: bool,
    /// Remove the volumes that belong to them alone
    #[arg(short, long)]
    volumes: bool,
    #[command(flatten)]
    names: NamesArgs,
}

impl RemoveArgs {
    pub(crate) async fn execute(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let client = daemon::client(settings).await?;
        let request = RemoveRequest { force: self.force, volumes: self.volumes };
        for_each(&self.names.names, async |name| client.rm(name, &request).await).await
    }
}

/// Does `work` for each name, printing the names it was done for, as Docker does.
/// All are tried; the exit code is 1 when one failed.
async fn for_each(
    names: &[String],
    work: impl AsyncFn(&str) -> Result<(), ClientError>,
) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for name in names {
        match work(name).await {
            Ok(()) => output::line(name),
            Err(error) => {
                output::failure(&error.into());
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

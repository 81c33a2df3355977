//! Finding the daemon, starting it where none runs, and ending it.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use carrack_engine::api::DownRequest;
use carrack_engine::client::{ClientError, EngineClient};

use crate::compose;
use crate::settings::{self, Settings};
use crate::{exit, output};

/// How long a daemon may take until it answers. It re-attaches to all that runs first.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a role may take to end when asked to.
const END_LIMIT: Duration = Duration::from_secs(10);
/// Where `carrack run` puts what names no project.
const DEFAULT_PROJECT: &str = "default";
const POLL: Duration = Duration::from_millis(10);

/// A client of the daemon, which is started first where none answers.
pub(crate) async fn client(settings: &Settings) -> anyhow::Result<EngineClient> {
    let client = EngineClient::new(settings.engine_socket());
    if client.version().await.is_ok() {
        return Ok(client);
    }
    start_keeper(settings)?;
    let started = Instant::now();
    loop {
        match client.version().await {
            Ok(_) => return Ok(client),
            Err(error) if started.elapsed() > START_LIMIT => {
                let log = settings.logs().join("daemon.log");
                let reason = exit::precondition(format!(
                    "the daemon did not answer on {} within {START_LIMIT:?}; its log is {}",
                    settings.engine_socket().display(),
                    log.display()
                ));
                return Err(anyhow::Error::from(error).context(reason));
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

/// A client of the daemon that runs, or `None`: for verbs that make no sense without one.
pub(crate) async fn running_client(settings: &Settings) -> Option<EngineClient> {
    let client = EngineClient::new(settings.engine_socket());
    client.version().await.is_ok().then_some(client)
}

fn start_keeper(settings: &Settings) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(exit::precondition(
            "starting containers needs root on this machine; run the command with sudo",
        ));
    }
    let program = settings::own_program()?;
    Command::new(program)
        .args(settings.as_arguments())
        .arg("keeper")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .spawn()
        .context("starting the keeper")?;
    Ok(())
}

/// End the daemon and the node proxy; containers go on
#[derive(Debug, clap::Args)]
pub(crate) struct ShutdownArgs {
    /// Remove networks that no container uses any more
    #[arg(long)]
    networks: bool,
}

impl ShutdownArgs {
    pub(crate) fn execute(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        if self.networks {
            let executor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            executor.block_on(remove_networks(settings))?;
        }
        // The keeper first, or it would start the others again.
        for role in ["keeper", "daemon", "proxy"] {
            end(&settings.run, role)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn remove_networks(settings: &Settings) -> anyhow::Result<()> {
    let Some(client) = running_client(settings).await else { return Ok(()) };
    // A project without containers is not listed, and `default` keeps its network.
    let mut names = vec![DEFAULT_PROJECT.to_owned()];
    for project in client.projects().await? {
        names.retain(|name| *name != project.name);
        if project.containers == 0 {
            names.push(project.name);
        }
    }
    for name in names {
        match client.down(&name, &DownRequest::default()).await {
            Ok(mut events) => while events.next().await?.is_some() {},
            Err(ClientError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Ends the process recorded for `role`, if it still runs.
fn end(run: &Path, role: &str) -> anyhow::Result<()> {
    if let Some(process) = compose::recorded(run, role)? {
        rustix::process::pidfd_send_signal(&process, rustix::process::Signal::TERM).ok(); // Gone meanwhile.
        await_end(&process, role)?;
    }
    Ok(())
}

fn await_end(process: &rustix::fd::OwnedFd, role: &str) -> anyhow::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let limit = Timespec::try_from(END_LIMIT).context("a limit")?;
    let mut watched = [PollFd::new(process, PollFlags::IN)];
    if poll(&mut watched, Some(&limit)).context("waiting for its end")? == 0 {
        output::message(format_args!("{role} did not end within {END_LIMIT:?}; killing it"));
        rustix::process::pidfd_send_signal(process, rustix::process::Signal::KILL).ok(); // Gone meanwhile.
    }
    Ok(())
}

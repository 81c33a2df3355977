//! Composes roles: a file per role that turns settings into the running thing.

pub(crate) mod building;
pub(crate) mod daemon;
pub(crate) mod keeper;
pub(crate) mod proxy;

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use anyhow::Context as _;
use rustix::fd::OwnedFd;
use rustix::process::Pid;
use tokio::signal::unix::{SignalKind, signal};

use crate::settings::Settings;

/// Takes a role's lock, waiting for an older holder to end, and records this
/// process as the role. The lock is held as long as the answer lives.
fn take_role(settings: &Settings, role: &str) -> anyhow::Result<std::fs::File> {
    for directory in [&settings.run, &settings.root] {
        make_private(directory)?;
    }
    let lock = keeper::wait_for_lock(&settings.run.join(format!("{role}.lock")))?;
    record(&settings.run, role)?;
    Ok(lock)
}

/// Records this process as `role`: its id and the moment it started, which together
/// name no other process, ever.
fn record(run: &Path, role: &str) -> anyhow::Result<()> {
    let own = rustix::process::getpid();
    let started = carrack_linux::process::start_time(own).unwrap_or_default();
    let record = run.join(format!("{role}.pid"));
    let text = format!("{} {started}\n", own.as_raw_nonzero());
    carrack_linux::fs::write_atomic(&record, text.as_bytes(), 0o644)
        .with_context(|| format!("recording the {role} in {}", record.display()))
}

/// The process recorded as `role`, if it still runs.
pub(crate) fn recorded(run: &Path, role: &str) -> anyhow::Result<Option<OwnedFd>> {
    let record = run.join(format!("{role}.pid"));
    let Ok(text) = std::fs::read_to_string(&record) else { return Ok(None) };
    let mut words = text.split_whitespace();
    let pid = words.next().and_then(|word| Pid::from_raw(word.parse().ok()?));
    let started = words.next().and_then(|word| word.parse().ok());
    let (Some(pid), Some(started)) = (pid, started) else {
        anyhow::bail!("{} names no process; remove it", record.display());
    };
    carrack_linux::process::open_started(pid, started)
        .with_context(|| format!("opening the process recorded in {}", record.display()))
}

/// Makes a directory that only its owner may enter: below it lie setuid programs of
/// images, and keys.
fn make_private(directory: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("making {}", directory.display()))
}

fn start_logging() -> anyhow::Result<()> {
    let filter = std::env::var("CARRACK_LOG").unwrap_or_else(|_| "info".to_owned());
    carrack_telemetry::logging::init(&filter, carrack_telemetry::logging::Format::Json)?;
    Ok(())
}

/// Resolves when this process is asked to end.
async fn asked_to_end() -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupted = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    Ok(())
}

//! Keeps the daemon and the node proxy running: starts them, and starts them
//! again when they end. Holds nothing else, so it has nothing to lose.
//!
//! Each of the two holds a lock of its own. When a keeper was killed and its
//! children were not, a new keeper's children wait for those locks, and take
//! over in the moment the old ones end.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};

use crate::settings::{self, Settings};

/// The first pause before a child that ended is started again.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause; a child that ends at once is tried this often.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A child that lived this long starts with the first pause again.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);
/// A log larger than this is set aside when its child starts.
const LOG_BOUND: u64 = 16 << 20;

/// Runs until killed. Returns at once when another keeper is at work.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    super::make_private(&settings.run)?;
    super::make_private(&settings.logs())?;
    let Some(_lock) = try_lock(&lock_path(&settings.run))? else { return Ok(()) };
    rustix::process::setsid().ok(); // Already a session leader when a supervisor started us.
    super::record(&settings.run, "keeper")?;
    std::thread::scope(|scope| {
        for role in ["daemon", "proxy"] {
            scope.spawn(move || keep(settings, role));
        }
    });
    Ok(())
}

/// Where a keeper at work holds its lock.
pub(crate) fn lock_path(run: &Path) -> PathBuf {
    run.join("keeper.lock")
}

/// Takes the lock at `path`, or answers `None` when someone holds it.
pub(crate) fn try_lock(path: &Path) -> anyhow::Result<Option<File>> {
    let file = open_lock(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("locking {}", path.display())),
    }
}

/// Takes the lock at `path`, waiting for whoever holds it to end.
pub(crate) fn wait_for_lock(path: &Path) -> anyhow::Result<File> {
    let file = open_lock(path)?;
    flock(&file, FlockOperation::LockExclusive)
        .with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

fn open_lock(path: &Path) -> anyhow::Result<File> {
    let options = OpenOptions::new().create(true).truncate(false).write(true).clone();
    options.open(path).with_context(|| format!("opening the lock {}", path.display()))
}

fn keep(settings: &Settings, role: &'static str) {
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        match start(settings, role).and_then(|mut child| Ok(child.wait()?)) {
            Ok(status) => tracing::warn!(role, %status, "ended; starting it again"),
            Err(error) => {
                tracing::error!(role, error = format!("{error:#}"), "could not be started")
            }
        }
        if started.elapsed() > HEALTHY_AFTER {
            pause = FIRST_PAUSE;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn start(settings: &Settings, role: &str) -> anyhow::Result<std::process::Child> {
    let program = settings::own_program()?;
    let log = open_log(&settings.logs().join(format!("{role}.log")))?;
    let child = Command::new(program)
        .args(settings.as_arguments())
        .arg(role)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("sharing the log")?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting `carrack {role}`"))?;
    Ok(child)
}

fn open_log(path: &Path) -> anyhow::Result<File> {
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > LOG_BOUND) {
        let aside = path.with_extension("log.1");
        std::fs::rename(path, &aside)
            .with_context(|| format!("setting {} aside", path.display()))?;
    }
    let options = OpenOptions::new().create(true).append(true).clone();
    options.open(path).with_context(|| format!("opening the log {}", path.display()))
}

//! Programs of the caller's to run at moments of a container's life.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use carrack_linux::process;
use carrack_oci::runtime as oci;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::MemfdFlags;
use rustix::process::Pid;

use crate::error::HookError;

/// Whether creation has to stop for any of them.
pub(crate) fn any_before_start(hooks: &oci::Hooks) -> bool {
    !(hooks.prestart.is_empty()
        && hooks.create_runtime.is_empty()
        && hooks.create_container.is_empty())
}

/// Runs them in order, each with the container's state on its input; the first that fails
/// is the last that runs.
pub(crate) fn run(stage: &'static str, hooks: &[oci::Hook], state: &str) -> Result<(), HookError> {
    hooks.iter().try_for_each(|hook| run_one(stage, hook, state))
}

/// The error with its cause, for a message that has to be one line.
pub(crate) fn describe(error: &HookError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn run_one(stage: &'static str, hook: &oci::Hook, state: &str) -> Result<(), HookError> {
    let path = &hook.path;
    let failed = |source| HookError::Run { stage, path: path.clone(), source };
    // Files, not pipes: neither a hook that does not read its input nor one that fills its
    // error output can make us wait.
    let input = memory(state.as_bytes()).map_err(failed)?;
    let errors = memory(b"").map_err(failed)?;
    let output = errors.try_clone().map_err(failed)?;
    let mut child = command(hook, input, output).spawn().map_err(failed)?;
    let ended = wait(&child, hook.timeout).map_err(failed)?;
    let Some(exit) = ended else {
        child.kill().map_err(failed)?;
        child.wait().map_err(failed)?;
        return Err(HookError::TimedOut {
            stage,
            path: path.clone(),
            seconds: hook.timeout.unwrap_or_default(),
        });
    };
    let code = exit.shell_code();
    if code == 0 {
        return Ok(());
    }
    Err(HookError::Failed { stage, path: path.clone(), code, output: last_words(errors) })
}

/// A file of no file system that holds `content` and is read from its start.
fn memory(content: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("hook", MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

fn command(hook: &oci::Hook, input: File, errors: File) -> Command {
    let mut command = Command::new(&hook.path);
    let mut arguments = hook.args.iter();
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).env_clear();
    for variable in &hook.env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        command.env(name, value);
    }
    command.stdin(input).stdout(Stdio::null()).stderr(errors);
    command
}

/// How it ended; `None` when it did not in time.
fn wait(child: &Child, timeout: Option<i64>) -> io::Result<Option<process::Exit>> {
    let pidfd = process::open(Pid::from_child(child))?;
    let deadline = timeout
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map(|seconds| Instant::now() + Duration::from_secs(seconds));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec::try_from(left).unwrap_or_default());
        let mut watched = [PollFd::new(&pidfd, PollFlags::IN)];
        match rustix::event::poll(&mut watched, left.as_ref()) {
            Ok(0) => return Ok(None),
            Ok(_) => return process::wait(pidfd.as_fd()).map(Some),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn last_words(mut errors: File) -> String {
    const MAX_WORDS: u64 = 4096;
    let mut words = Vec::new();
    let read = errors.rewind().and_then(|()| errors.take(MAX_WORDS).read_to_end(&mut words));
    read.map_or_else(
        |error| format!("its messages cannot be read: {error}"),
        |_| String::from_utf8_lossy(&words).trim().to_owned(),
    )
}

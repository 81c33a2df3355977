//! Looking at containers, signalling, freezing, limiting and removing them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use carrack_linux::cgroup::{CgroupError, Group, OomWatch, Stats};
use carrack_linux::namespace::{self, Kinds};
use carrack_linux::process;
use carrack_linux::trusted::{self, TrustedDir};
use carrack_oci::runtime as oci;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Pid;

use crate::create::{kept_spec, state_json};
use crate::error::{ControlError, DeleteError, Problem, StateError};
use crate::id::ContainerId;
use crate::state::{Record, State, Status};
use crate::{Runtime, plan};
use crate::{home, hooks};

/// How long a killed process may take to go.
const DEATH_TIME: Duration = Duration::from_secs(10);

pub(crate) fn state(runtime: &Runtime, id: &ContainerId) -> Result<State, StateError> {
    let directory = runtime.directory(id)?;
    state_of(&directory, &Record::read(&directory, id)?, id)
}

pub(crate) fn state_of(
    directory: &TrustedDir,
    record: &Record,
    id: &ContainerId,
) -> Result<State, StateError> {
    let mut state = record.state(directory, id)?;
    let frozen = || Runtime::group(record).and_then(|group| group.is_frozen()).unwrap_or(false);
    if state.status == Status::Running && frozen() {
        state.status = Status::Paused;
    }
    Ok(state)
}

pub(crate) fn list(runtime: &Runtime) -> Result<Vec<State>, StateError> {
    let names = trusted::names(&runtime.root)
        .map_err(|source| StateError::Record { path: runtime.root.clone(), source })?;
    let mut ids: Vec<ContainerId> =
        names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
    ids.sort();
    Ok(ids.iter().filter_map(|id| state(runtime, id).ok()).collect())
}

/// A record and its state, or the error of an attempt.
fn find(
    runtime: &Runtime,
    id: &ContainerId,
    attempt: &'static str,
) -> Result<(Record, State), ControlError> {
    let found = runtime.directory(id).and_then(|directory| {
        let record = Record::read(&directory, id)?;
        let state = state_of(&directory, &record, id)?;
        Ok((record, state))
    });
    found.map_err(|source| ControlError::State { attempt, source })
}

fn wrong_status(attempt: &'static str, state: &State) -> ControlError {
    ControlError::Status { attempt, id: state.id.to_string(), status: state.status }
}

fn cgroup(attempt: &'static str) -> impl FnOnce(CgroupError) -> ControlError {
    move |source| ControlError::Cgroup { attempt, source }
}

pub(crate) fn kill(
    runtime: &Runtime,
    id: &ContainerId,
    signal: i32,
    all: bool,
) -> Result<(), ControlError> {
    const ATTEMPT: &str = "signalling";
    let (record, state) = find(runtime, id, ATTEMPT)?;
    let group = || Runtime::group(&record).map_err(cgroup(ATTEMPT));
    // Without a group all is the first process, where the others end with it.
    if all && !(group()?.is_none() && state.pid.is_some_and(has_own_pids)) {
        return group()?.signal_all(signal).map_err(cgroup(ATTEMPT));
    }
    let opened = record.open().map_err(|source| ControlError::Signal {
        signal,
        id: id.to_string(),
        source,
    })?;
    let ended = || ControlError::NotRunning { attempt: ATTEMPT, id: id.to_string() };
    let Some((pid, pidfd)) = opened else { return Err(ended()) };
    let signal = effective(signal, state.status);
    let group = group()?;
    if signal == libc::SIGKILL && !group.is_none() && !has_own_pids(pid) {
        return group.kill_all().map_err(cgroup(ATTEMPT));
    }
    match process::signal(pidfd.as_fd(), signal) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
            return Err(ended());
        }
        Err(source) => return Err(ControlError::Signal { signal, id: id.to_string(), source }),
    }
    // What stands still takes even a kill only when it moves again.
    if signal == libc::SIGKILL && state.status == Status::Paused {
        Runtime::group(&record).and_then(|group| group.thaw()).map_err(cgroup(ATTEMPT))?;
    }
    Ok(())
}

/// What has the effect that is meant: a first process that only waits for its start would
/// end by these, and the kernel spares it because it is the first of its namespace.
fn effective(signal: i32, status: Status) -> i32 {
    const ENDING: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];
    if status == Status::Created && ENDING.contains(&signal) { libc::SIGKILL } else { signal }
}

/// Whether a process is in another namespace of process ids than we are. In doubt it is not.
fn has_own_pids(first: Pid) -> bool {
    let same = || -> io::Result<bool> {
        let theirs = namespace::open_of(first, Kinds::PID)?;
        namespace::same(theirs.as_fd(), namespace::open_own(Kinds::PID)?.as_fd())
    };
    same().is_ok_and(|same| !same)
}

pub(crate) fn delete(runtime: &Runtime, id: &ContainerId, force: bool) -> Result<(), DeleteError> {
    let directory = match runtime.directory(id) {
        Err(StateError::NotFound { .. }) if force => return Ok(()),
        opened => opened?,
    };
    let record = match Record::read(&directory, id) {
        Ok(record) => record,
        // Killed while it was making its very first file.
        Err(StateError::NotFound { .. }) if force => return remove_directory(directory),
        Err(error) => return Err(error.into()),
    };
    let state = state_of(&directory, &record, id)?;
    if state.status != Status::Stopped && !force {
        return Err(DeleteError::NotStopped { id: id.to_string(), status: state.status });
    }
    let group = Runtime::group(&record)?;
    let opened = record
        .open()
        .map_err(|source| StateError::Record { path: directory.path().to_owned(), source })?;
    if let Some((pid, pidfd)) = opened {
        end(id, pid, &pidfd, state.status == Status::Paused, || group.thaw())?;
    }
    if group.exists() {
        group.kill_all()?;
    }
    home::remove(&group, record.unit.as_ref())?;
    run_poststop(&record, &directory);
    remove_directory(directory)
}

/// Kills what is left of a container; its record and group stay.
pub(crate) fn stop(record: &Record) -> Result<(), CgroupError> {
    Runtime::group(record).and_then(|group| group.signal_all(libc::SIGKILL))
}

/// Kills the first process and waits until it is gone.
fn end(
    id: &ContainerId,
    pid: Pid,
    pidfd: &OwnedFd,
    paused: bool,
    thaw: impl FnOnce() -> Result<(), CgroupError>,
) -> Result<(), DeleteError> {
    process::signal(pidfd.as_fd(), libc::SIGKILL).ok(); // It may have ended meanwhile.
    if paused {
        thaw()?;
    }
    let time = Timespec::try_from(DEATH_TIME).unwrap_or_default();
    let mut watched = [PollFd::new(pidfd, PollFlags::IN)];
    match rustix::event::poll(&mut watched, Some(&time)) {
        Ok(1..) => Ok(()),
        Ok(0) | Err(_) => {
            Err(DeleteError::Alive { id: id.to_string(), pid: pid.as_raw_nonzero().get() })
        }
    }
}

/// The container is gone whatever these hooks say, so their failures have no one to stop.
fn run_poststop(record: &Record, directory: &TrustedDir) {
    if let Ok(spec) = kept_spec(directory) {
        let state = state_json(record, "stopped", None);
        for hook in spec.hooks.poststop {
            hooks::run("poststop", std::slice::from_ref(&hook), &state).ok();
        }
    }
}

fn remove_directory(directory: TrustedDir) -> Result<(), DeleteError> {
    let path = directory.path().to_owned();
    directory.remove_all().map_err(|source| DeleteError::Remove { path, source })
}

pub(crate) fn pause(runtime: &Runtime, id: &ContainerId) -> Result<(), ControlError> {
    const ATTEMPT: &str = "pausing";
    let (record, state) = find(runtime, id, ATTEMPT)?;
    if !matches!(state.status, Status::Running | Status::Created) {
        return Err(wrong_status(ATTEMPT, &state));
    }
    Runtime::group(&record).and_then(|group| group.freeze()).map_err(cgroup(ATTEMPT))
}

pub(crate) fn resume(runtime: &Runtime, id: &ContainerId) -> Result<(), ControlError> {
    const ATTEMPT: &str = "resuming";
    let (record, state) = find(runtime, id, ATTEMPT)?;
    let group = Runtime::group(&record).map_err(cgroup(ATTEMPT))?;
    if !group.is_frozen().map_err(cgroup(ATTEMPT))? {
        return Err(wrong_status(ATTEMPT, &state));
    }
    group.thaw().map_err(cgroup(ATTEMPT))
}

pub(crate) fn stats(runtime: &Runtime, id: &ContainerId) -> Result<Stats, ControlError> {
    const ATTEMPT: &str = "measuring";
    let (record, _) = find(runtime, id, ATTEMPT)?;
    Runtime::group(&record).and_then(|group| group.stats()).map_err(cgroup(ATTEMPT))
}

pub(crate) fn watch_oom(runtime: &Runtime, id: &ContainerId) -> Result<OomWatch, ControlError> {
    const ATTEMPT: &str = "watching the memory of";
    let (record, _) = find(runtime, id, ATTEMPT)?;
    Runtime::group(&record).and_then(|group| group.watch_oom()).map_err(cgroup(ATTEMPT))
}

pub(crate) fn group_of(runtime: &Runtime, id: &ContainerId) -> Result<Group, ControlError> {
    const ATTEMPT: &str = "looking for the control group of";
    let (record, _) = find(runtime, id, ATTEMPT)?;
    Runtime::group(&record).map_err(cgroup(ATTEMPT))
}

pub(crate) fn processes(runtime: &Runtime, id: &ContainerId) -> Result<Vec<Pid>, ControlError> {
    const ATTEMPT: &str = "listing the processes of";
    let (record, _) = find(runtime, id, ATTEMPT)?;
    Runtime::group(&record).and_then(|group| group.processes()).map_err(cgroup(ATTEMPT))
}

pub(crate) fn update(
    runtime: &Runtime,
    id: &ContainerId,
    resources: &oci::LinuxResources,
) -> Result<Vec<Problem>, ControlError> {
    const ATTEMPT: &str = "limiting";
    let (record, state) = find(runtime, id, ATTEMPT)?;
    if state.status == Status::Stopped {
        return Err(wrong_status(ATTEMPT, &state));
    }
    let (mut limits, warnings) = plan::plan_limits(resources)
        .map_err(|source| ControlError::Spec { attempt: ATTEMPT, source })?;
    if record.rootless {
        limits.devices = None;
    }
    let group = Runtime::group(&record).map_err(cgroup(ATTEMPT))?;
    home::limit(&group, record.unit.as_ref(), &limits).map_err(cgroup(ATTEMPT))?;
    Ok(warnings)
}

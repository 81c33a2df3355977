//! Another program in a container that runs.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use carrack_linux::cgroup::{Group, Version};
use carrack_linux::namespace::{self, Kinds};
use carrack_linux::process::{self, Birth, Child};
use carrack_linux::schedule;
use carrack_oci::runtime as oci;
use rustix::process::Pid;

use crate::birth;
use crate::channel::{Channel, Message};
use crate::create::{adjust_oom_score, kept_spec, state_json};
use crate::error::{ExecError, SpecError};
use crate::home;
use crate::id::ContainerId;
use crate::inside::{Newcomer, rlimit};
use crate::joined::Joined;
use crate::listener;
use crate::plan::{self, ProcessPlan, Settings};
use crate::state::{Record, RecordedUnit, Status};
use crate::stdio::Streams;
use crate::{ExecExtras, ExecRequest, Executed, Runtime, control};

fn host(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> ExecError {
    let attempt = attempt.into();
    move |source| ExecError::Host { attempt, source }
}

pub(crate) fn exec(
    runtime: &Runtime,
    id: &ContainerId,
    request: ExecRequest<'_>,
    extras: &ExecExtras,
) -> Result<Executed, ExecError> {
    let directory = runtime.directory(id)?;
    let record = Record::read(&directory, id)?;
    let state = control::state_of(&directory, &record, id)?;
    let not_running = || ExecError::NotRunning { id: id.to_string(), status: state.status };
    match state.status {
        Status::Running | Status::Created => {}
        Status::Paused if extras.even_paused => {}
        Status::Paused => return Err(ExecError::Paused { id: id.to_string() }),
        Status::Creating | Status::Stopped => return Err(not_running()),
    }
    let opened = record.open().map_err(host("opening the first process"))?;
    let (first, pidfd) = opened.ok_or_else(not_running)?;
    let spec = kept_spec(&directory)?;
    let mut process = plan_process(&spec, &request)?;
    process.plain_newlines = extras.plain_newlines;
    let streams = request
        .stdio
        .into_streams(process.terminal)
        .map_err(|reason| ExecError::Stdio { reason })?
        .map_err(host("opening /dev/null"))?;
    let kinds = foreign(first).map_err(host("comparing namespaces"))?;
    let root = (!kinds.contains(Kinds::MOUNT)).then(|| process::root_of(first)).transpose();
    let guest = Guest {
        group: Runtime::group(&record)?,
        unit: record.unit.clone(),
        groups: &extras.groups,
        kinds,
        root: root.map_err(host("opening the container's root"))?,
        settings: plan::settings(&spec)?,
        first,
        pidfd,
        process,
        streams,
    };
    let executed = guest.start(request.preserve_fds, |listener, pid| {
        listener::hand_over(&spec, &listener, Some(pid), &state_json(&record, "running", state.pid))
    })?;
    if let Some(path) = request.pid_file {
        crate::write_pid_file(path, executed.pid)
            .map_err(host(format!("writing {}", path.display())))?;
    }
    Ok(executed)
}

/// With the container's own seccomp profile, which holds for whatever runs in it.
fn plan_process(spec: &oci::Spec, request: &ExecRequest<'_>) -> Result<ProcessPlan, ExecError> {
    let seccomp = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
    let plan = plan::plan_process(request.process, seccomp)?;
    plan.ok_or_else(|| ExecError::Spec(SpecError::Refused(Vec::new())))
}

/// The namespaces a process has that are not ours.
fn foreign(process: Pid) -> io::Result<Kinds> {
    let all = [
        Kinds::USER,
        Kinds::MOUNT,
        Kinds::PID,
        Kinds::NETWORK,
        Kinds::IPC,
        Kinds::UTS,
        Kinds::CGROUP,
        Kinds::TIME,
    ];
    let mut kinds = Kinds::empty();
    for kind in all {
        let theirs = match namespace::open_of(process, kind) {
            // Kernels may lack the youngest kind.
            Err(error) if kind == Kinds::TIME && error.kind() == io::ErrorKind::NotFound => {
                continue;
            }
            opened => opened?,
        };
        if !namespace::same(theirs.as_fd(), namespace::open_own(kind)?.as_fd())? {
            kinds |= kind;
        }
    }
    Ok(kinds)
}

/// Whether a group refused a process because it has handed controllers down, as that of a
/// container does which manages groups of its own.
fn takes_none(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EOPNOTSUPP))
}

struct Guest<'a> {
    group: Group,
    unit: Option<RecordedUnit>,
    /// Groups below it to be in, by controller.
    groups: &'a BTreeMap<String, PathBuf>,
    first: Pid,
    pidfd: OwnedFd,
    kinds: Kinds,
    /// The container's root, where its mounts are the host's.
    root: Option<OwnedFd>,
    settings: Settings,
    process: ProcessPlan,
    streams: Streams,
}

impl Guest<'_> {
    fn start(
        &self,
        preserve_fds: u32,
        listener: impl FnMut(OwnedFd, Pid) -> io::Result<()>,
    ) -> Result<Executed, ExecError> {
        let (ours, theirs) = Channel::pair().map_err(host("making a socket"))?;
        let child = self.bear(&theirs, preserve_fds)?;
        drop(theirs);
        match self.accompany(&child, &ours, listener) {
            Ok(console) => Ok(Executed { pid: child.pid(), pidfd: child.into_pidfd(), console }),
            Err(error) => {
                child.destroy();
                // If it failed first, our own failure is only the echo of that.
                match ours.receive() {
                    Ok(Some(Message::Failed(failure))) => Err(ExecError::Inside(failure)),
                    _ => Err(error),
                }
            }
        }
    }

    fn bear(&self, channel: &Channel, preserve_fds: u32) -> Result<Child, ExecError> {
        let joined = if self.kinds.contains(Kinds::PID) {
            Joined::pid_of(self.first)
        } else {
            Joined::open(&[])
        };
        let joined = joined.map_err(host("opening the process id namespace"))?;
        let newcomer = || Newcomer {
            process: &self.process,
            streams: &self.streams,
            channel,
            first: self.pidfd.as_fd(),
            kinds: self.kinds - Kinds::PID,
            root: self.root.as_ref(),
            personality: self.settings.personality,
            memory_policy: self.settings.memory_policy.as_ref(),
            preserve_fds,
        };
        let own = match self.groups.get("") {
            Some(below) => self.group.below(below)?.handle()?,
            None => self.group.handle()?,
        };
        let start = |cgroup: Option<&OwnedFd>| {
            let birth = Birth { cgroup: cgroup.map(AsFd::as_fd), ..Birth::default() };
            birth::start_in(&joined, birth, || newcomer().run())
        };
        // It is born where it is to be, and has this from us.
        let before = self.process.affinity.initial.as_ref().map(|initial| {
            let before = schedule::affinity()?;
            schedule::set_affinity(initial).map(|()| before)
        });
        let before = before
            .transpose()
            .map_err(host("running on the processors of process.execCPUAffinity.initial"))?;
        let started = match start(own.as_ref()) {
            Err(error) if takes_none(&error) => {
                let beside = self.group.handle_of(self.first).map_err(io::Error::other);
                beside.and_then(|beside| start(beside.as_ref()))
            }
            Err(error) if self.unit.is_some() && home::is_refusal(&error) => start(None),
            started => started,
        };
        if let Some(before) = before {
            schedule::set_affinity(&before).map_err(host("running on all processors again"))?;
        }
        started.map_err(host("starting a process"))
    }

    fn accompany(
        &self,
        child: &Child,
        channel: &Channel,
        mut listener: impl FnMut(OwnedFd, Pid) -> io::Result<()>,
    ) -> Result<Option<OwnedFd>, ExecError> {
        let talk = "talking to the new process";
        if let Some(score) = self.process.oom_score_adj {
            adjust_oom_score(child.pid(), score)
                .map_err(host(format!("setting the out-of-memory score to {score}")))?;
        }
        if self.kinds.contains(Kinds::USER) {
            for limit in &self.process.rlimits {
                rustix::process::prlimit(Some(child.pid()), limit.resource, rlimit(limit))
                    .map_err(|error| {
                        host(format!("limiting {:?}", limit.resource))(error.into())
                    })?;
            }
        }
        home::take_in(&self.group, self.unit.as_ref(), child.pid())?;
        if self.group.version() == Version::One && !self.groups.is_empty() {
            self.group.add_below(child.pid(), self.groups)?;
        }
        channel.send(&Message::Joined).map_err(host(talk))?;
        let mut console = None;
        loop {
            match channel.receive().map_err(host(talk))? {
                Some(Message::Ready(terminal)) => console = terminal,
                Some(Message::Listener(Some(passed))) => {
                    listener(passed, child.pid()).map_err(host("starting a process"))?;
                    channel.send(&Message::Heard).map_err(host(talk))?;
                }
                Some(Message::Failed(failure)) => {
                    // What was found to be wrong may follow.
                    return Err(ExecError::Inside(match channel.receive() {
                        Ok(Some(Message::Failed(explained))) => explained,
                        Ok(_) | Err(_) => failure,
                    }));
                }
                Some(_) => {
                    return Err(host(talk)(io::Error::other("it said something unexpected")));
                }
                // The socket closed with the change of program.
                None => return Ok(console),
            }
        }
    }
}

//! One container and its processes.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use carrack_container_runtime::{
    ContainerId, ControlError, CreateError, CreateRequest, DeleteError, ExecError, ExecRequest,
    Runtime, StartError, StateError,
};
use carrack_linux::cgroup::OomWatch;
use carrack_oci::runtime as oci;
use rustix::process::Pid;
use rustix::termios::Winsize;

use super::conversation::Waiter;
use super::frame::{Code, Status};
use super::messages::{Create, Exec, Streams as Named};
use super::options::Options;
use super::stdio::{self, For};
use super::streams::{Owner, Streams};
use super::{log, record, rootfs};
use crate::error::chain;
use crate::poll::{Poll, Token};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exit {
    pub(super) status: u32,
    pub(super) at: SystemTime,
}

/// What a process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Created,
    Running,
    Stopped(Exit),
}

/// A container's first process, or one that was added.
#[derive(Debug)]
pub(super) struct Process {
    /// Empty for the first.
    pub(super) exec_id: String,
    pub(super) owner: Owner,
    pub(super) named: Named,
    pub(super) phase: Phase,
    pub(super) process: Option<(Pid, OwnedFd)>,
    pub(super) console: Option<OwnedFd>,
    pub(super) waiters: Vec<Waiter>,
    /// It could not be started: nobody was told of a start, and nobody is of an end.
    pub(super) failed: bool,
    size: Option<Winsize>,
    spec: Option<oci::Process>,
}

/// What making processes needs of the shim.
pub(super) struct Means<'a> {
    pub(super) poll: &'a mut Poll,
    pub(super) streams: &'a mut Streams,
    pub(super) namespace: &'a str,
}

impl Process {
    fn new(exec_id: &str, owner: Owner, named: Named) -> Self {
        Self {
            exec_id: exec_id.to_owned(),
            owner,
            named,
            phase: Phase::Created,
            process: None,
            console: None,
            waiters: Vec::new(),
            failed: false,
            size: None,
            spec: None,
        }
    }

    pub(super) fn pid(&self) -> Option<Pid> {
        self.process.as_ref().map(|(pid, _)| *pid)
    }

    /// Its id as messages have it; zero for none.
    pub(super) fn number(&self) -> u32 {
        self.pid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs())
    }

    pub(super) fn exit(&self) -> Option<Exit> {
        match self.phase {
            Phase::Stopped(exit) => Some(exit),
            Phase::Created | Phase::Running => None,
        }
    }

    pub(super) fn resize(&mut self, width: u32, height: u32) -> Result<(), Status> {
        if !self.named.terminal {
            return Err(precondition("the process has no terminal whose size could be set"));
        }
        if self.exit().is_some() {
            return Err(precondition("the process has ended; its terminal is gone"));
        }
        let small = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        let (ws_col, ws_row) = (small(width), small(height));
        let size = Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
        // One that is yet to be started gets its size then.
        self.size = Some(size);
        self.apply_size().map_err(|error| unknown("setting the terminal's size", &error))
    }

    fn apply_size(&self) -> io::Result<()> {
        match (&self.console, self.size) {
            (Some(console), Some(size)) => Ok(rustix::termios::tcsetwinsize(console, size)?),
            _ => Ok(()),
        }
    }
}

/// A container.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: ContainerId,
    pub(super) bundle: PathBuf,
    pub(super) runtime: Runtime,
    pub(super) init: Process,
    pub(super) execs: Vec<Process>,
    pub(super) paused: bool,
    pub(super) oom: Option<(Token, OomWatch)>,
    /// The first process has ended, and others are still about to.
    pub(super) ending: Option<Exit>,
    io_owner: (u32, u32),
}

impl Task {
    /// Makes the container: its root filesystem, its streams, its first process.
    pub(super) fn create(
        request: &Create,
        owner: Owner,
        means: &mut Means<'_>,
    ) -> Result<Self, Status> {
        if !request.checkpoint.is_empty() {
            let message = "containers are not restored from checkpoints here; start a fresh one";
            return Err(Status::new(Code::Unimplemented, message));
        }
        let options = Options::decode(request.options.as_ref())?;
        let id: ContainerId = request
            .id
            .parse()
            .map_err(|error| Status::new(Code::InvalidArgument, chain(&error)))?;
        let bundle = PathBuf::from(&request.bundle);
        let root = record::runtime_root(options.root.as_deref(), means.namespace);
        record::keep_root(&bundle, &root).map_err(|error| unknown("writing the bundle", &error))?;
        let rootfs = bundle.join("rootfs");
        let made = mount_rootfs(request, &rootfs).and_then(|()| {
            let mut task = Self {
                runtime: Runtime::new(root),
                id,
                bundle,
                init: Process::new("", owner, request.streams.clone()),
                execs: Vec::new(),
                paused: false,
                oom: None,
                ending: None,
                io_owner: options.io_owner,
            };
            task.make(means)?;
            Ok(task)
        });
        if made.is_err() && !request.rootfs.is_empty() {
            // The error that led here is the one to report.
            rootfs::unmount_all(&rootfs).ok();
        }
        made
    }

    fn make(&mut self, means: &mut Means<'_>) -> Result<(), Status> {
        let (stdio, ends) = stdio::open(&self.init.named, self.whose(means.namespace))?;
        let request = CreateRequest {
            id: &self.id,
            bundle: &self.bundle,
            stdio,
            pid_file: Some(&self.bundle.join(record::PID)),
            preserve_fds: 0,
            init: None,
        };
        let created = self.runtime.create(request).map_err(|error| {
            let code = match &error {
                CreateError::Exists { .. } => Code::AlreadyExists,
                CreateError::Spec(_) | CreateError::Stdio { .. } => Code::InvalidArgument,
                _ => Code::Unknown,
            };
            Status::new(code, said(&error, error.exit_code()))
        })?;
        let console = created.console.as_ref();
        ends.connect(means.streams, means.poll, self.init.owner, console).map_err(|error| {
            self.runtime.delete(&self.id, true).ok();
            means.streams.forget(means.poll, self.init.owner);
            unknown("connecting the container's streams", &error)
        })?;
        self.init.process = Some((created.pid, created.pidfd));
        self.init.console = created.console;
        self.watch_oom(means.poll);
        Ok(())
    }

    /// Without a memory controller nobody is ever told; that must not stop a container.
    fn watch_oom(&mut self, poll: &mut Poll) {
        let group = self.runtime.group_of(&self.id).map_err(|error| chain(&error));
        let watch = group.and_then(|group| group.watch_oom().map_err(|error| chain(&error)));
        let watched = watch.and_then(|watch| {
            let token = poll.add(&watch, crate::poll::EventFlags::IN);
            token.map(|token| (token, watch)).map_err(|error| error.to_string())
        });
        match watched {
            Ok(watched) => self.oom = Some(watched),
            Err(error) => log::warn(&format!("not watching {} for OOM: {error}", self.id.as_str())),
        }
    }

    fn whose<'a>(&'a self, namespace: &'a str) -> For<'a> {
        For { namespace, container: self.id.as_str(), io_owner: self.io_owner }
    }

    /// A process by the id it was added with, the first by none.
    pub(super) fn process(&mut self, exec_id: &str) -> Result<&mut Process, Status> {
        if exec_id.is_empty() {
            return Ok(&mut self.init);
        }
        self.execs.iter_mut().find(|process| process.exec_id == exec_id).ok_or_else(|| {
            Status::new(Code::NotFound, format!("there is no process {exec_id} in the container"))
        })
    }

    /// Lets the first process run.
    pub(super) fn start(&mut self) -> Result<(), Status> {
        if self.init.phase != Phase::Created {
            return Err(precondition("the container was started before"));
        }
        self.init.apply_size().map_err(|error| unknown("setting the terminal's size", &error))?;
        match self.runtime.start(&self.id) {
            Ok(()) => {
                self.init.phase = Phase::Running;
                Ok(())
            }
            Err(error) => {
                self.init.failed = !matches!(error, StartError::Hook(_));
                let code = match &error {
                    StartError::State(error) => code_of_state(error),
                    StartError::NotCreated { .. } | StartError::NoProcess { .. } => {
                        Code::FailedPrecondition
                    }
                    _ => Code::Unknown,
                };
                Err(Status::new(code, said(&error, error.exit_code())))
            }
        }
    }

    /// Takes note of a process to be added.
    pub(super) fn add(&mut self, request: &Exec, owner: Owner) -> Result<(), Status> {
        if self.execs.iter().any(|process| process.exec_id == request.exec_id) {
            let message = format!("the container has a process {} already", request.exec_id);
            return Err(Status::new(Code::AlreadyExists, message));
        }
        if request.exec_id.is_empty() {
            return Err(Status::new(Code::InvalidArgument, "a process to add needs an exec_id"));
        }
        self.expect_running()?;
        let invalid = |error: serde_json::Error| {
            Status::new(Code::InvalidArgument, format!("the process to add: {error}"))
        };
        let mut spec: serde_json::Value =
            serde_json::from_slice(&request.spec.value).map_err(invalid)?;
        if let Some(spec) = spec.as_object_mut() {
            spec.insert("terminal".into(), request.streams.terminal.into());
        }
        let mut process = Process::new(&request.exec_id, owner, request.streams.clone());
        process.spec = Some(serde_json::from_value(spec).map_err(invalid)?);
        self.execs.push(process);
        Ok(())
    }

    fn expect_running(&self) -> Result<(), Status> {
        if self.init.exit().is_some() || self.ending.is_some() {
            return Err(precondition("the container has ended"));
        }
        if self.paused {
            return Err(precondition("the container is paused; resume it first"));
        }
        Ok(())
    }

    /// Runs a process that was added.
    pub(super) fn start_added(
        &mut self,
        exec_id: &str,
        means: &mut Means<'_>,
    ) -> Result<(), Status> {
        self.process(exec_id)?;
        self.expect_running()?;
        let index = self.execs.iter().position(|process| process.exec_id == exec_id);
        let Some(index) = index else { return Err(precondition("it is not there any more")) };
        let mut process = self.execs.swap_remove(index);
        let started = self.run(&mut process, means);
        if started.is_err() && process.phase == Phase::Created {
            process.failed = true;
            process.phase = Phase::Stopped(Exit { status: 255, at: SystemTime::now() });
        }
        self.execs.push(process);
        started
    }

    fn run(&self, process: &mut Process, means: &mut Means<'_>) -> Result<(), Status> {
        let Some(spec) = process.spec.take() else {
            return Err(precondition("the process was started before"));
        };
        let (stdio, ends) = stdio::open(&process.named, self.whose(means.namespace))?;
        let request = ExecRequest { process: &spec, stdio, pid_file: None, preserve_fds: 0 };
        let executed = self.runtime.exec(&self.id, request).map_err(|error| {
            let code = match &error {
                ExecError::State(error) => code_of_state(error),
                ExecError::NotRunning { .. } => Code::FailedPrecondition,
                ExecError::Spec(_) | ExecError::Stdio { .. } => Code::InvalidArgument,
                _ => Code::Unknown,
            };
            Status::new(code, said(&error, error.exit_code()))
        })?;
        process.phase = Phase::Running;
        process.process = Some((executed.pid, executed.pidfd));
        process.console = executed.console;
        let console = process.console.as_ref();
        ends.connect(means.streams, means.poll, process.owner, console)
            .and_then(|()| process.apply_size())
            .map_err(|error| {
                process.signal(libc::SIGKILL).ok();
                unknown("connecting the process's streams", &error)
            })
    }

    /// Signals a process, or all of the container.
    pub(super) fn kill(&mut self, exec_id: &str, signal: u32, all: bool) -> Result<(), Status> {
        let signal = i32::try_from(signal)
            .map_err(|_| Status::new(Code::InvalidArgument, "there is no such signal"))?;
        if !exec_id.is_empty() {
            let process = self.process(exec_id)?;
            return match process.phase {
                Phase::Created => Err(precondition("the process was not started yet")),
                Phase::Stopped(_) => Err(gone()),
                Phase::Running => {
                    process.signal(signal).map_err(|error| unknown("signalling", &error))
                }
            };
        }
        if !all && (self.init.exit().is_some() || self.ending.is_some()) {
            return Err(gone());
        }
        match self.runtime.kill(&self.id, signal, all) {
            // It ended a moment ago, and is about to be taken in.
            Err(ControlError::Status { .. }) => Err(gone()),
            killed => killed.map_err(|error| control(&error)),
        }
    }

    pub(super) fn set_paused(&mut self, paused: bool) -> Result<(), Status> {
        let done =
            if paused { self.runtime.pause(&self.id) } else { self.runtime.resume(&self.id) };
        done.map_err(|error| control(&error))?;
        self.paused = paused;
        Ok(())
    }

    /// Removes everything of a container that has ended, or was never started.
    pub(super) fn delete(&mut self) -> Result<(), Status> {
        self.runtime.delete(&self.id, true).map_err(|error| {
            let code = match &error {
                DeleteError::State(error) => code_of_state(error),
                DeleteError::NotStopped { .. } => Code::FailedPrecondition,
                _ => Code::Unknown,
            };
            Status::new(code, chain(&error))
        })?;
        rootfs::unmount_all(&self.bundle.join("rootfs"))
            .map_err(|error| unknown("unmounting the root filesystem", &error))
    }
}

impl Process {
    fn signal(&self, signal: i32) -> io::Result<()> {
        match &self.process {
            Some((_, pidfd)) => carrack_linux::process::signal(pidfd.as_fd(), signal),
            None => Ok(()),
        }
    }
}

fn mount_rootfs(request: &Create, rootfs: &Path) -> Result<(), Status> {
    if request.rootfs.is_empty() {
        return Ok(());
    }
    match DirBuilder::new().mode(0o711).create(rootfs) {
        Err(error) if !fs::metadata(rootfs).is_ok_and(|found| found.is_dir()) => {
            return Err(unknown("making the directory for the root filesystem", &error));
        }
        Ok(()) | Err(_) => {}
    }
    rootfs::mount_all(&request.rootfs, rootfs)
        .map_err(|error| Status::new(Code::Unknown, error.to_string()))
}

/// An error with its reasons, in the words by which Docker's client tells a program that is
/// not there (and ends with 127) from one that may not be run (126).
fn said(error: &(dyn std::error::Error + 'static), exit_code: Option<i32>) -> String {
    let text = chain(error).replace("Permission denied", "permission denied");
    match exit_code {
        Some(127) => format!("{text} (executable file not found)"),
        _ => text,
    }
}

pub(super) fn precondition(message: &str) -> Status {
    Status::new(Code::FailedPrecondition, message)
}

fn gone() -> Status {
    Status::new(Code::NotFound, "the process has ended already")
}

fn unknown(attempt: &str, error: &io::Error) -> Status {
    Status::new(Code::Unknown, format!("{attempt}: {error}"))
}

pub(super) fn control(error: &ControlError) -> Status {
    let code = match error {
        ControlError::State { source, .. } => code_of_state(source),
        ControlError::Status { .. } => Code::FailedPrecondition,
        ControlError::Spec { .. } => Code::InvalidArgument,
        _ => Code::Unknown,
    };
    Status::new(code, chain(error))
}

fn code_of_state(error: &StateError) -> Code {
    match error {
        StateError::NotFound { .. } => Code::NotFound,
        _ => Code::Unknown,
    }
}

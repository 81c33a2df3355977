//! One bundle, one container: the OCI lifecycle, blocking, single-threaded.
//!
//! ```text
//! config.json ─▶ Plan ─▶ Prepared ─clone3─▶ Inside: mounts, pivot, wait ─start─▶ the program
//!                (pure)  (descriptors)        │
//!                                             └─▶ Failure, back up as data
//! ```
//!
//! Whatever is needed of the host is opened before the first process is born; whatever
//! it does below its root goes through descriptors resolved inside that root. Errors of
//! the inside come back with what was attempted.
//!
//! Images, names, registries, networks and volumes are not here: a bundle has a root file
//! system, and the configuration names namespaces and mounts. Keeping a container's
//! streams and reaping it is the caller's: its first process is the caller's child.

mod birth;
mod channel;
mod control;
mod create;
pub mod diagnose;
mod error;
mod exec;
mod failure;
pub mod features;
mod home;
mod hooks;
mod id;
mod inside;
mod interfaces;
mod joined;
mod listener;
mod mapping;
mod plan;
mod prepared;
mod state;
mod stdio;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use carrack_linux::cgroup::{Group, Layout};
use carrack_linux::trusted::TrustedDir;
use carrack_oci::runtime as oci;
use rustix::process::Pid;

pub use carrack_linux::cgroup::systemd::Bus;
pub use carrack_linux::cgroup::{OomEvents, OomWatch, Stats, stats};
pub use error::{
    ControlError, CreateError, DeleteError, ExecError, HookError, Problem, SpecError, StartError,
    StateError,
};
pub use failure::{Failure, FailureKind};
pub use id::{ContainerId, InvalidId};
pub use state::{State, Status};
pub use stdio::Stdio;

use state::Record;

/// What a caller wants of a new container besides what its configuration says.
#[derive(Clone, Debug, Default)]
pub struct CreateExtras {
    /// `NAME=VALUE`, behind the variables of the configuration.
    pub environment: Vec<String>,
    /// Shows a directory of the container's record, [`Runtime::notify_directory`], at
    /// `/run/notify`, for a socket in it.
    pub notify: bool,
    /// Leaves the program the caller's session keyring instead of a new, empty one.
    pub keep_keyring: bool,
    /// For a terminal that is shown on another: newlines are left for that one to complete.
    pub plain_newlines: bool,
}

/// What a caller wants of a joining program besides what its process says.
#[derive(Clone, Debug, Default)]
pub struct ExecExtras {
    /// Joins a container that stands still too; the program then waits with it.
    pub even_paused: bool,
    /// As [`CreateExtras::plain_newlines`].
    pub plain_newlines: bool,
    /// Groups below the container's for the program: by the controller, and under `""` for
    /// version 2. They have to exist.
    pub groups: BTreeMap<String, PathBuf>,
}

/// A container whose processes somebody else makes.
#[derive(Debug)]
pub struct AdoptRequest<'a> {
    /// Its name.
    pub id: &'a ContainerId,
    /// The directory with `config.json`.
    pub bundle: &'a Path,
    /// A file to write the first process's id to.
    pub pid_file: Option<&'a Path>,
}

/// Where the processes of a container that is adopted belong.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its root file system, as a mount of its own; gone when they are made.
    pub root: PathBuf,
    /// Its control group, counted from the roots of the hierarchies.
    pub cgroup: PathBuf,
}

/// The containers whose records are in one directory.
#[derive(Clone, Debug)]
pub struct Runtime {
    root: PathBuf,
    cgroups: CgroupOptions,
}

/// Who makes control groups, and with what right.
#[derive(Clone, Debug, Default)]
pub struct CgroupOptions {
    /// Have this systemd make them, as transient scopes; otherwise they are directories that
    /// we make ourselves.
    pub systemd: Option<Bus>,
    /// We may lack the right to make groups: a container that asks for no limits then goes
    /// without one, and rules on devices are left to whoever gave us what we have.
    pub rootless: bool,
}

/// A container to make.
#[derive(Debug)]
pub struct CreateRequest<'a> {
    /// Its name.
    pub id: &'a ContainerId,
    /// The directory with `config.json`.
    pub bundle: &'a Path,
    /// Its standard streams.
    pub stdio: Stdio,
    /// A file to write the first process's id to.
    pub pid_file: Option<&'a Path>,
    /// Descriptors from 3 up that the program inherits.
    pub preserve_fds: u32,
    /// A static program that runs as process 1 and starts the user's. It is called
    /// `carrack-init` and given the program's path and then its arguments, from the
    /// zeroth on.
    pub init: Option<BorrowedFd<'a>>,
}

/// A container that waits for its start.
#[derive(Debug)]
pub struct Created {
    /// Its first process, a child of the caller.
    pub pid: Pid,
    /// The same, by descriptor.
    pub pidfd: OwnedFd,
    /// The caller's end of its terminal.
    pub console: Option<OwnedFd>,
    /// What was done otherwise than asked, for the caller to pass on.
    pub warnings: Vec<Problem>,
}

/// A program to run in a container.
#[derive(Debug)]
pub struct ExecRequest<'a> {
    /// What, and as whom.
    pub process: &'a oci::Process,
    /// Its standard streams.
    pub stdio: Stdio,
    /// A file to write its process id to.
    pub pid_file: Option<&'a Path>,
    /// Descriptors from 3 up that it inherits.
    pub preserve_fds: u32,
}

/// A program that runs in a container.
#[derive(Debug)]
pub struct Executed {
    /// Its process, a child of the caller.
    pub pid: Pid,
    /// The same, by descriptor.
    pub pidfd: OwnedFd,
    /// The caller's end of its terminal.
    pub console: Option<OwnedFd>,
}

impl Runtime {
    /// The containers recorded below `state_root`, which need not exist yet.
    pub fn new(state_root: impl Into<PathBuf>) -> Self {
        Self { root: state_root.into(), cgroups: CgroupOptions::default() }
    }

    /// The same containers, with control groups for new ones made in this way.
    #[must_use]
    pub fn with_cgroups(self, cgroups: CgroupOptions) -> Self {
        Self { cgroups, ..self }
    }

    /// Makes a container, everything up to, not including, the user's program.
    ///
    /// Its first process is a child of the caller, which has to be single-threaded and
    /// should run from a sealed executable (`carrack_linux::seal`). When this fails
    /// nothing of the container is left.
    ///
    /// # Errors
    ///
    /// See [`CreateError`]; what fails inside the container says what was attempted.
    pub fn create(&self, request: CreateRequest<'_>) -> Result<Created, CreateError> {
        create::create(self, request, &CreateExtras::default())
    }

    /// As [`Self::create`], with more than the configuration says.
    ///
    /// # Errors
    ///
    /// See [`CreateError`].
    pub fn create_with(
        &self,
        request: CreateRequest<'_>,
        extras: &CreateExtras,
    ) -> Result<Created, CreateError> {
        create::create(self, request, extras)
    }

    /// Takes on a container whose processes `bring` makes, answering the first one's id: a
    /// running one, when this returns. On an error nothing of it is left.
    ///
    /// # Errors
    ///
    /// See [`CreateError`].
    pub fn adopt(
        &self,
        request: AdoptRequest<'_>,
        bring: impl FnOnce(&Place) -> io::Result<i32>,
    ) -> Result<(Pid, OwnedFd), CreateError> {
        create::adopt(self, request, bring)
    }

    /// Where a container made with [`CreateExtras::notify`] finds what is put for it.
    pub fn notify_directory(&self, id: &ContainerId) -> PathBuf {
        self.root.join(id.as_str()).join(state::NOTIFY)
    }

    /// Lets a created container's first process become the user's program.
    ///
    /// Returns once it has, or with the reason why it could not; in the latter case the
    /// first process has ended, and the container is stopped.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub fn start(&self, id: &ContainerId) -> Result<(), StartError> {
        create::start(self, id)
    }

    /// Why a program that was started and ended with `code` could not run, where its image
    /// shows that: a library that is missing, an interpreter, a program cut off.
    ///
    /// To be asked before the container is deleted; `None` for codes that do not come from
    /// that, and wherever there is a doubt.
    pub fn explain_exit(&self, id: &ContainerId, code: i32) -> Option<String> {
        create::explain_exit(self, id, code)
    }

    /// Starts another program in a container that runs.
    ///
    /// Returns once it runs, or with the reason why it does not.
    ///
    /// # Errors
    ///
    /// See [`ExecError`].
    pub fn exec(&self, id: &ContainerId, request: ExecRequest<'_>) -> Result<Executed, ExecError> {
        exec::exec(self, id, request, &ExecExtras::default())
    }

    /// As [`Self::exec`], with more than the process says.
    ///
    /// # Errors
    ///
    /// See [`ExecError`].
    pub fn exec_with(
        &self,
        id: &ContainerId,
        request: ExecRequest<'_>,
        extras: &ExecExtras,
    ) -> Result<Executed, ExecError> {
        exec::exec(self, id, request, extras)
    }

    /// What a container is right now.
    ///
    /// # Errors
    ///
    /// [`StateError::NotFound`].
    pub fn state(&self, id: &ContainerId) -> Result<State, StateError> {
        control::state(self, id)
    }

    /// Every container there is, in the order of their names.
    ///
    /// # Errors
    ///
    /// When the directory of records cannot be read. A record that is being written or
    /// removed meanwhile is left out.
    pub fn list(&self) -> Result<Vec<State>, StateError> {
        control::list(self)
    }

    /// Signals a container's first process, or with `all` every process in it.
    ///
    /// Without a process id namespace of its own a container is more than what its first
    /// process takes down with it, so `SIGKILL` then goes to every process too.
    ///
    /// # Errors
    ///
    /// [`ControlError::Status`] when it has stopped, unless `all` is set.
    pub fn kill(&self, id: &ContainerId, signal: i32, all: bool) -> Result<(), ControlError> {
        control::kill(self, id, signal, all)
    }

    /// Removes a stopped container, and with `force` one in any state.
    ///
    /// It does not matter who has reaped the first process, or whether anybody has. With
    /// `force` a container that is gone already, or half made, is no error.
    ///
    /// # Errors
    ///
    /// See [`DeleteError`].
    pub fn delete(&self, id: &ContainerId, force: bool) -> Result<(), DeleteError> {
        control::delete(self, id, force)
    }

    /// Makes every process of a container stand still.
    ///
    /// # Errors
    ///
    /// [`ControlError::Status`] unless it runs.
    pub fn pause(&self, id: &ContainerId) -> Result<(), ControlError> {
        control::pause(self, id)
    }

    /// Lets a paused container go on.
    ///
    /// # Errors
    ///
    /// [`ControlError::Status`] unless it is paused.
    pub fn resume(&self, id: &ContainerId) -> Result<(), ControlError> {
        control::resume(self, id)
    }

    /// What a container has used so far.
    ///
    /// # Errors
    ///
    /// When a counter cannot be read.
    pub fn stats(&self, id: &ContainerId) -> Result<Stats, ControlError> {
        control::stats(self, id)
    }

    /// Starts watching for a container running out of memory.
    ///
    /// # Errors
    ///
    /// When its control group has no memory controller, or is gone.
    pub fn watch_oom(&self, id: &ContainerId) -> Result<OomWatch, ControlError> {
        control::watch_oom(self, id)
    }

    /// The control group of a container, for those who read more of it than [`Self::stats`].
    ///
    /// # Errors
    ///
    /// When there is no such container, or the machine has no control groups.
    pub fn group_of(&self, id: &ContainerId) -> Result<Group, ControlError> {
        control::group_of(self, id)
    }

    /// The processes of a container, as the host numbers them.
    ///
    /// # Errors
    ///
    /// When they cannot be listed.
    pub fn processes(&self, id: &ContainerId) -> Result<Vec<Pid>, ControlError> {
        control::processes(self, id)
    }

    /// Changes the limits that are set in `resources`, and says which of them have no effect.
    ///
    /// # Errors
    ///
    /// When one is refused; earlier ones then hold.
    pub fn update(
        &self,
        id: &ContainerId,
        resources: &oci::LinuxResources,
    ) -> Result<Vec<Problem>, ControlError> {
        control::update(self, id, resources)
    }

    /// Where everything about a container is kept.
    fn directory(&self, id: &ContainerId) -> Result<TrustedDir, StateError> {
        let path = self.root.join(id.as_str());
        TrustedDir::open(path.clone()).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => StateError::NotFound { id: id.to_string() },
            _ => StateError::Record { path, source },
        })
    }

    fn group(record: &Record) -> Result<Group, carrack_linux::cgroup::CgroupError> {
        if record.cgroup.as_os_str().is_empty() {
            return Ok(Group::none());
        }
        let group = Group::new(Layout::detect()?, &record.cgroup)?;
        Ok(if record.rootless { group.present() } else { group })
    }
}

/// Writes a process id where a caller looks for it, whole or not at all.
fn write_pid_file(path: &Path, pid: Pid) -> io::Result<()> {
    carrack_linux::fs::replace(path, pid.as_raw_nonzero().to_string().as_bytes(), 0o644)
}

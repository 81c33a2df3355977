use std::io;
use std::path::PathBuf;

use carrack_linux::cgroup::CgroupError;
use carrack_linux::seccomp::SeccompError;
use thiserror::Error;

use crate::failure::Failure;
use crate::state::Status;

/// One thing in a configuration that cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {message}")]
pub struct Problem {
    /// Where in `config.json`.
    pub field: String,
    /// What is wrong, and what to do.
    pub message: String,
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ")
}

/// Why a configuration cannot become a container.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SpecError {
    /// The file could not be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The file is not a configuration.
    #[error("parsing {}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// Everything that cannot be done, at once.
    #[error("checking the configuration: {}", list(.0))]
    Refused(Vec<Problem>),
    /// The seccomp profile cannot be compiled.
    #[error("checking the configuration: linux.seccomp")]
    Seccomp(#[source] SeccompError),
}

/// Why there is no container of that name to work on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StateError {
    /// Nothing of that name.
    #[error("container {id} does not exist")]
    NotFound {
        /// The name.
        id: String,
    },
    /// Its record could not be read or written.
    #[error("the record of the container, {}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

/// Why a container was not created. Nothing of it is left.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The name is taken.
    #[error("creating container {id}: it exists already; delete it first or choose another id")]
    Exists {
        /// The name.
        id: String,
    },
    /// The configuration cannot be done.
    #[error("creating a container")]
    Spec(#[from] SpecError),
    /// Terminal and descriptors disagree.
    #[error("creating a container: {reason}")]
    Stdio {
        /// How.
        reason: &'static str,
    },
    /// A control group refused.
    #[error("creating a container: control group")]
    Cgroup(#[from] CgroupError),
    /// The host's side failed.
    #[error("creating a container: {attempt}")]
    Host {
        /// What was attempted.
        attempt: String,
        /// What the system answered.
        source: io::Error,
    },
    /// A hook failed.
    #[error("creating a container")]
    Hook(#[from] HookError),
    /// The process inside failed.
    #[error("creating a container: inside it")]
    Inside(#[source] Failure),
    /// The record could not be written.
    #[error("creating a container")]
    State(#[from] StateError),
}

impl CreateError {
    /// The code a shell would report, when it is the program's fault.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Inside(failure) => failure.exit_code(),
            _ => None,
        }
    }
}

/// Why a container did not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// There is none.
    #[error("starting a container")]
    State(#[from] StateError),
    /// It is past that.
    #[error("starting container {id}: it is {status}, and only a created one can be started")]
    NotCreated {
        /// The name.
        id: String,
        /// What it is.
        status: Status,
    },
    /// Its configuration names no program; it has stopped.
    #[error("starting container {id}: its configuration has no process; add process.args")]
    NoProcess {
        /// The name.
        id: String,
    },
    /// The process inside failed.
    #[error("starting a container: inside it")]
    Inside(#[source] Failure),
    /// Talking to the process inside failed.
    #[error("starting container {id}: talking to its first process")]
    Talk {
        /// The name.
        id: String,
        /// What the system answered.
        source: io::Error,
    },
    /// A poststart hook failed; the container was stopped.
    #[error("starting a container")]
    Hook(#[from] HookError),
    /// The configuration kept for it could not be read.
    #[error("starting a container")]
    Spec(#[from] SpecError),
}

impl StartError {
    /// The code a shell would report, when it is the program's fault.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Inside(failure) => failure.exit_code(),
            _ => None,
        }
    }
}

/// Why a program was not started in a running container.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExecError {
    /// There is no container.
    #[error("executing in a container")]
    State(#[from] StateError),
    /// It does not run.
    #[error("executing in container {id}: container not running (it is {status}); start it first")]
    NotRunning {
        /// The name.
        id: String,
        /// What it is.
        status: Status,
    },
    /// It stands still.
    #[error(
        "executing in container {id}: it is paused; resume it, or join it with --ignore-paused"
    )]
    Paused {
        /// The name.
        id: String,
    },
    /// The process cannot be done.
    #[error("executing in a container")]
    Spec(#[from] SpecError),
    /// Terminal and descriptors disagree.
    #[error("executing in a container: {reason}")]
    Stdio {
        /// How.
        reason: &'static str,
    },
    /// A control group refused.
    #[error("executing in a container: control group")]
    Cgroup(#[from] CgroupError),
    /// The host's side failed.
    #[error("executing in a container: {attempt}")]
    Host {
        /// What was attempted.
        attempt: String,
        /// What the system answered.
        source: io::Error,
    },
    /// The process inside failed.
    #[error("executing in a container: inside it")]
    Inside(#[source] Failure),
}

impl ExecError {
    /// The code a shell would report, when it is the program's fault.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Inside(failure) => failure.exit_code(),
            _ => None,
        }
    }
}

/// Why a hook did not succeed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HookError {
    /// It could not be run.
    #[error("running {stage} hook {}", path.display())]
    Run {
        /// When.
        stage: &'static str,
        /// Its program.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// It failed.
    #[error("{stage} hook {} ended with code {code}: {output}", path.display())]
    Failed {
        /// When.
        stage: &'static str,
        /// Its program.
        path: PathBuf,
        /// Its exit code, 128 and more for a signal.
        code: i32,
        /// The last it said on its error stream.
        output: String,
    },
    /// It took too long and was killed.
    #[error("{stage} hook {} was killed after its timeout of {seconds} s", path.display())]
    TimedOut {
        /// When.
        stage: &'static str,
        /// Its program.
        path: PathBuf,
        /// The timeout.
        seconds: i64,
    },
}

/// Why a container was not signalled, paused, resumed, limited or looked into.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ControlError {
    /// There is none.
    #[error("{attempt}")]
    State {
        /// What was attempted.
        attempt: &'static str,
        /// Why not.
        source: StateError,
    },
    /// It is in another state.
    #[error("{attempt} container {id}: it is {status}")]
    Status {
        /// What was attempted.
        attempt: &'static str,
        /// The name.
        id: String,
        /// What it is.
        status: Status,
    },
    /// Its first process has ended.
    #[error("{attempt} container {id}: container not running: it is stopped")]
    NotRunning {
        /// What was attempted.
        attempt: &'static str,
        /// The name.
        id: String,
    },
    /// The signal was refused.
    #[error("sending signal {signal} to container {id}")]
    Signal {
        /// The signal.
        signal: i32,
        /// The name.
        id: String,
        /// What the system answered.
        source: io::Error,
    },
    /// A control group refused.
    #[error("{attempt} a container")]
    Cgroup {
        /// What was attempted.
        attempt: &'static str,
        /// Why not.
        source: CgroupError,
    },
    /// The new limits cannot be done.
    #[error("{attempt} a container")]
    Spec {
        /// What was attempted.
        attempt: &'static str,
        /// Why not.
        source: SpecError,
    },
}

/// Why a container was not deleted, or not all of it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DeleteError {
    /// There is none.
    #[error("deleting a container")]
    State(#[from] StateError),
    /// It has not stopped.
    #[error("deleting container {id}: it is {status}; stop it first, or force the deletion")]
    NotStopped {
        /// The name.
        id: String,
        /// What it is.
        status: Status,
    },
    /// It would not die.
    #[error("deleting container {id}: its first process, {pid}, would not end")]
    Alive {
        /// The name.
        id: String,
        /// The process.
        pid: i32,
    },
    /// A control group refused.
    #[error("deleting a container: control group")]
    Cgroup(#[from] CgroupError),
    /// Its directory could not be removed.
    #[error("deleting a container: removing {}", path.display())]
    Remove {
        /// The directory.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

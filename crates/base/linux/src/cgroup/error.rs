use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::dbus::BusError;

/// Why a control group did not do what was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// The mounts of this machine could not be read.
    #[error("reading the control group mounts from {}", path.display())]
    Detect {
        /// The file that tells.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// No hierarchy is mounted at all.
    #[error("no control group hierarchy is mounted; mount one at /sys/fs/cgroup")]
    NotMounted,
    /// The path does not name a group.
    #[error("control group path {} must name a group below the root, without '..'", path.display())]
    Path {
        /// The path given.
        path: PathBuf,
    },
    /// A directory could not be made.
    #[error("creating control group {}", path.display())]
    Create {
        /// The group's directory.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A control file could not be opened.
    #[error("opening {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A control file could not be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A value was refused.
    #[error("writing '{value}' to {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The value.
        value: String,
        /// What the system answered.
        source: io::Error,
    },
    /// A setting named something else than a file of the group.
    #[error(
        "unified setting {file:?} must name a file of the group as CONTROLLER.PARAMETER, without '/'"
    )]
    Name {
        /// The name given.
        file: String,
    },
    /// The hierarchy is mounted read-only, as it is inside most containers.
    #[error(
        "creating control group {}: the hierarchy is mounted read-only, as in a container that may not \
         make groups of its own; mount it writable there, or ask for no limits",
        path.display()
    )]
    ReadOnly {
        /// The group's directory.
        path: PathBuf,
    },
    /// A controller does not arrive at the group.
    #[error(
        "controller {controller} is not handed down by {}: processes sit in that group, or it is \
         not ours; move them to a group below it, or have the controller delegated",
        path.display()
    )]
    NotHandedDown {
        /// The controller.
        controller: String,
        /// The lowest group that has it.
        path: PathBuf,
    },
    /// The new limit is below what is in use.
    #[error(
        "limiting memory to {limit} bytes: {used} are in use (at most {peak} so far); free some, \
         or set the limit higher"
    )]
    InUse {
        /// The limit asked for.
        limit: String,
        /// Bytes in use.
        used: u64,
        /// The most bytes ever in use.
        peak: u64,
    },
    /// Limits were asked for by somebody who may not make groups.
    #[error(
        "making a control group without privilege: {}; have a group delegated to this user (a \
         session under systemd with --systemd-cgroup is one), run as root, or remove the limits",
        needs.iter()
            .map(|(field, controller)| format!("linux.resources.{field} needs controller {controller}"))
            .collect::<Vec<_>>()
            .join(", ")
    )]
    Unprivileged {
        /// What is asked for, and the controller it needs.
        needs: Vec<(String, String)>,
        /// How making the group failed.
        source: Box<Self>,
    },
    /// The container has no group at all.
    #[error(
        "the container has no control group, as it was made without the right to make one; \
         delegate a group to this user, or run as root"
    )]
    NoGroup,
    /// No systemd answers.
    #[error(
        "asking systemd for a control group: none answers here; start the machine (or the user's \
         session) with systemd, or use the cgroupfs driver by leaving --systemd-cgroup out"
    )]
    NoSystemd {
        /// How it did not answer.
        source: BusError,
    },
    /// systemd did not do it.
    #[error("asking systemd: {attempt}")]
    Systemd {
        /// What it was asked for.
        attempt: String,
        /// What it answered.
        source: BusError,
    },
    /// systemd tried, and something else came of it.
    #[error("asking systemd: {attempt}: the job ended as {result:?}; see its journal")]
    Job {
        /// What it was asked for.
        attempt: String,
        /// What came of it.
        result: String,
    },
    /// A value of a unified setting is none that its file takes.
    #[error("unified setting {file}: {value:?} is not a value of that file")]
    Value {
        /// The file.
        file: String,
        /// The value.
        value: String,
    },
    /// This machine cannot do it.
    #[error("{what} is not available on this machine; {remedy}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A group could not be given away.
    #[error("giving {} to user {user}", path.display())]
    Delegate {
        /// The group's directory or file.
        path: PathBuf,
        /// The user, by the host's number.
        user: u32,
        /// What the system answered.
        source: io::Error,
    },
    /// A process is in another group.
    #[error("process {pid} has left control group {}", path.display())]
    Left {
        /// The process.
        pid: i32,
        /// The group's path.
        path: PathBuf,
    },
    /// A process could not be signalled.
    #[error("sending signal {signal} to process {pid}")]
    Signal {
        /// The process.
        pid: i32,
        /// The signal.
        signal: i32,
        /// What the system answered.
        source: io::Error,
    },
    /// New processes appeared as fast as they were killed.
    #[error("killing all of control group {}: processes keep appearing", path.display())]
    Kill {
        /// The group's path.
        path: PathBuf,
    },
    /// Some process did not stand still.
    #[error("freezing {}: some process would not stand still", path.display())]
    Freeze {
        /// The group's directory.
        path: PathBuf,
    },
    /// The group could not be removed.
    #[error("removing control group {}", path.display())]
    Remove {
        /// The group's directory.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The device filter was refused.
    #[error("attaching the device filter to {}", path.display())]
    Devices {
        /// The group's directory.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

impl CgroupError {
    /// Whether it was for want of privilege, or of a place that can be written.
    pub fn is_refusal(&self) -> bool {
        let source = match self {
            Self::ReadOnly { .. } => return true,
            Self::Create { source, .. }
            | Self::Open { source, .. }
            | Self::Write { source, .. }
            | Self::Delegate { source, .. } => source,
            _ => return false,
        };
        matches!(source.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS))
    }
}

//! What is kept about a container, and what it is right now.
//!
//! ```text
//! ROOT/<id>/record.json   what this module writes
//! ROOT/<id>/config.json   the configuration as it was at creation
//! ROOT/<id>/start.sock    where the first process waits; gone once it was started
//! ROOT/<id>/notify/       for the caller's socket, when it asked for one
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use carrack_linux::process;
use carrack_linux::trusted::TrustedDir;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::error::StateError;
use crate::id::ContainerId;

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is being made.
    Creating,
    /// It waits for its start.
    Created,
    /// Its program runs.
    Running,
    /// Its program stands still.
    Paused,
    /// Its first process has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// A container as it is right now.
#[derive(Clone, Debug)]
pub struct State {
    /// Its name.
    pub id: ContainerId,
    /// What it is doing.
    pub status: Status,
    /// Its first process, unless that has ended.
    pub pid: Option<Pid>,
    /// The directory it was made from.
    pub bundle: PathBuf,
    /// The configuration's annotations.
    pub annotations: BTreeMap<String, String>,
    /// When it was made, in milliseconds since 1970.
    pub created_millis: u64,
    /// Its root file system, as the host sees it.
    pub rootfs: PathBuf,
}

/// The record on disk. Fields are added with a default, never changed.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Record {
    pub(crate) version: u32,
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) created_millis: u64,
    /// The first process and the moment it started; none while it is being made.
    pub(crate) process: Option<RecordedProcess>,
    /// Its control group; empty when it has none.
    pub(crate) cgroup: PathBuf,
    /// The unit that systemd made for it.
    #[serde(default)]
    pub(crate) unit: Option<RecordedUnit>,
    /// Whether it was made without privilege, and its group is only where that sufficed.
    #[serde(default)]
    pub(crate) rootless: bool,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) has_process: bool,
}

/// A unit, and where its systemd is reached.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct RecordedUnit {
    pub(crate) name: String,
    /// The bus of a user's session; none is that of the machine.
    pub(crate) bus: Option<String>,
}

/// A process that can be told from a later one with its id.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct RecordedProcess {
    pub(crate) pid: i32,
    pub(crate) started: u64,
}

pub(crate) const RECORD: &str = "record.json";
pub(crate) const CONFIG: &str = "config.json";
pub(crate) const START_SOCKET: &str = "start.sock";
pub(crate) const NOTIFY: &str = "notify";

/// The longest record or configuration read back.
pub(crate) const MAX_CONFIG: u64 = 16 << 20;

impl Record {
    pub(crate) fn read(directory: &TrustedDir, id: &ContainerId) -> Result<Self, StateError> {
        let path = directory.path().join(RECORD);
        let bytes = match directory.read(RECORD, MAX_CONFIG) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StateError::NotFound { id: id.to_string() });
            }
            Err(source) => return Err(StateError::Record { path, source }),
        };
        serde_json::from_slice(&bytes)
            .map_err(|error| StateError::Record { path, source: error.into() })
    }

    pub(crate) fn write(&self, directory: &TrustedDir) -> Result<(), StateError> {
        let failed = |source| StateError::Record { path: directory.path().join(RECORD), source };
        let bytes = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        directory.replace(RECORD, &bytes).map_err(failed)
    }

    /// The first process, as long as it has not ended.
    pub(crate) fn open(&self) -> io::Result<Option<(Pid, OwnedFd)>> {
        let Some(RecordedProcess { pid, started }) = self.process else { return Ok(None) };
        let Some(pid) = Pid::from_raw(pid) else { return Ok(None) };
        Ok(process::open_started(pid, started)?.map(|pidfd| (pid, pidfd)))
    }

    /// The state without looking at the freezer.
    pub(crate) fn state(
        &self,
        directory: &TrustedDir,
        id: &ContainerId,
    ) -> Result<State, StateError> {
        let process = self
            .open()
            .map_err(|source| StateError::Record { path: directory.path().join(RECORD), source })?;
        let status = match (&process, self.process) {
            (None, None) => Status::Creating,
            (None, Some(_)) => Status::Stopped,
            (Some(_), _) if directory.has(START_SOCKET) => Status::Created,
            (Some(_), _) => Status::Running,
        };
        Ok(State {
            id: id.clone(),
            status,
            pid: process.map(|(pid, _)| pid),
            bundle: self.bundle.clone(),
            annotations: self.annotations.clone(),
            created_millis: self.created_millis,
            rootfs: self.rootfs.clone(),
        })
    }
}

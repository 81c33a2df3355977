//! What a shim leaves in its directory, for those who come when it is gone.
//!
//! | file | holds |
//! |---|---|
//! | `shim.json` | what the shim was told: [`crate::ShimConfig`] |
//! | `shim.sock` | the socket; it answers as long as the shim lives |
//! | `shim.pid` | the shim's process id, for people |
//! | `shim.log` | what the shim itself had to say; empty unless something broke |
//! | `init.pid` | the container's first process: [`InitProcess`] |
//! | `exit.json` | how it ended: [`Exit`]; there before any waiter is answered |

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use carrack_linux::process;
use jiff::Timestamp;
use rustix::process::Pid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) const CONFIG: &str = "shim.json";
pub(crate) const SOCKET: &str = "shim.sock";
pub(crate) const SHIM_PID: &str = "shim.pid";
pub(crate) const SHIM_LOG: &str = "shim.log";
pub(crate) const INIT_PID: &str = "init.pid";
pub(crate) const EXIT: &str = "exit.json";

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// What a shell would report: the exit status, or 128 plus the signal.
    pub code: i32,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// When the shim learned of it.
    pub at: Timestamp,
    /// Whether the kernel killed something in the container for want of memory.
    pub oom: bool,
}

/// A container's first process, told apart from any later one with its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitProcess {
    /// Its process id, in the namespace of whoever reads this.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub start_time: u64,
}

impl InitProcess {
    /// The process that has this id now; `None` when there is none.
    #[must_use]
    pub fn of(pid: Pid) -> Option<Self> {
        let start_time = process::start_time(pid)?;
        Some(Self { pid: pid.as_raw_pid(), start_time })
    }

    /// A handle on the process, if it still runs and is the same one.
    ///
    /// # Errors
    ///
    /// What opening it says.
    pub fn open(&self) -> io::Result<Option<OwnedFd>> {
        match Pid::from_raw(self.pid) {
            Some(pid) => process::open_started(pid, self.start_time),
            None => Ok(None),
        }
    }
}

/// The container's first process, as recorded in a shim's directory.
///
/// `None` when the shim never got as far as creating it.
///
/// # Errors
///
/// What reading says, or `InvalidData` for something that is no such record.
pub fn read_init(directory: &Path) -> io::Result<Option<InitProcess>> {
    read(&directory.join(INIT_PID))
}

/// How the container ended, as recorded in a shim's directory.
///
/// `None` when it still runs, or when its shim died first.
///
/// # Errors
///
/// What reading says, or `InvalidData` for something that is no such record.
pub fn read_exit(directory: &Path) -> io::Result<Option<Exit>> {
    read(&directory.join(EXIT))
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

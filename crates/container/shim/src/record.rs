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

use jiff::Timestamp;
use rustix::process::{Pid, PidfdFlags};
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
    /// The process that has this id now.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is none.
    pub fn of(pid: i32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let start_time = start_time(&stat)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no start time"))?;
        Ok(Self { pid, start_time })
    }

    /// A handle on the process, if it still is the same one.
    #[must_use]
    pub fn open(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(self.pid)?;
        let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Read after opening: the handle is on whoever had the id then, and the start
        // time tells whether that was still ours.
        (Self::of(self.pid).ok()? == *self).then_some(handle)
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

/// Field 22 of `/proc/PID/stat`. Field 2 is the name, in parentheses, and may hold
/// anything, so counting starts after its last parenthesis.
fn start_time(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_named_like_a_stat_line_does_not_fool_the_reader() {
        let stat = "7 (x) S 1 (y) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 0";
        assert_eq!(start_time(stat), Some(4242));
    }

    #[test]
    fn a_number_given_to_another_process_is_not_taken_for_the_old_one() {
        let own = i32::try_from(std::process::id()).expect("fits");
        let this = InitProcess::of(own).expect("own process");
        assert!(this.open().is_some());
        let earlier = InitProcess { start_time: this.start_time - 1, ..this };
        assert!(earlier.open().is_none());
    }
}

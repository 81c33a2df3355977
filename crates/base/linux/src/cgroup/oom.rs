//! Being told that a group ran out of memory.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::EventfdFlags;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{Mode, OFlags};

use super::{CgroupError, write_file};

/// A descriptor that is readable when something happened to a group's memory.
///
/// Poll it for reading, then [`take`](Self::take). Version 1 tells through an event
/// descriptor, version 2 through a watch of `memory.events` and `cgroup.events`.
#[derive(Debug)]
pub struct OomWatch {
    told: OwnedFd,
    kind: Kind,
    seen: u64,
}

#[derive(Debug)]
enum Kind {
    One { directory: PathBuf, _control: OwnedFd },
    Two { directory: PathBuf },
}

/// What happened since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OomEvents {
    /// How often memory ran out.
    pub count: u64,
    /// Whether the group is empty or gone, so that nothing more will happen.
    pub is_over: bool,
}

impl OomWatch {
    /// Watches through `cgroup.event_control` of a version 1 memory group.
    pub(super) fn one(directory: &Path) -> Result<Self, CgroupError> {
        let path = directory.join("memory.oom_control");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let control = rustix::fs::open(&path, flags, Mode::empty())
            .map_err(|error| CgroupError::Open { path, source: error.into() })?;
        let told = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| watch_failed(directory, error.into()))?;
        let request = format!("{} {}", told.as_raw_fd(), control.as_raw_fd());
        write_file(&directory.join("cgroup.event_control"), &request)?;
        let kind = Kind::One { directory: directory.to_owned(), _control: control };
        Ok(Self { told, kind, seen: 0 })
    }

    /// Watches the event files of a version 2 group.
    pub(super) fn two(directory: &Path) -> Result<Self, CgroupError> {
        let failed = |error: rustix::io::Errno| watch_failed(directory, error.into());
        let told = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(failed)?;
        for file in ["memory.events", "cgroup.events"] {
            inotify::add_watch(&told, directory.join(file), WatchFlags::MODIFY).map_err(failed)?;
        }
        let kind = Kind::Two { directory: directory.to_owned() };
        let seen = killed(directory).unwrap_or(0);
        Ok(Self { told, kind, seen })
    }

    /// What happened since the last call; all zero when it was called too early.
    ///
    /// # Errors
    ///
    /// When the descriptor cannot be read.
    pub fn take(&mut self) -> io::Result<OomEvents> {
        let mut buffer = [0u8; 4096];
        let length = match rustix::io::read(&self.told, &mut buffer) {
            Ok(length) => length,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        match &self.kind {
            Kind::One { directory, .. } => {
                let number = buffer.get(..length).and_then(|told| told.try_into().ok());
                let count = number.map_or(0, u64::from_ne_bytes);
                // The kernel also tells when the group is removed.
                let gone = !directory.join("cgroup.event_control").exists();
                Ok(OomEvents { count: if gone { 0 } else { count }, is_over: gone })
            }
            Kind::Two { directory } => {
                let killed = killed(directory);
                let count = killed.unwrap_or(self.seen).saturating_sub(self.seen);
                let populated = fs::read_to_string(directory.join("cgroup.events"))
                    .is_ok_and(|text| text.lines().any(|line| line == "populated 1"));
                self.seen = killed.unwrap_or(self.seen);
                Ok(OomEvents { count, is_over: !populated })
            }
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.told.as_fd()
    }
}

fn watch_failed(directory: &Path, source: io::Error) -> CgroupError {
    CgroupError::Watch { path: directory.to_owned(), source }
}

fn killed(directory: &Path) -> Option<u64> {
    let text = fs::read_to_string(directory.join("memory.events")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

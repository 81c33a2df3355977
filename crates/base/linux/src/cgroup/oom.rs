//! Hearing of a group that ran out of memory.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::EventfdFlags;
use rustix::fs::inotify::{CreateFlags, WatchFlags};
use rustix::io::Errno;

use super::{CgroupError, Group, Version};

/// A watch for a group's processes being killed for want of memory.
///
/// Its descriptor is readable when something may have happened; [`Self::take`] says whether
/// it has.
#[derive(Debug)]
pub struct OomWatch {
    event: OwnedFd,
    /// The file that counts the kills, and its open descriptor as long as the kernel needs it.
    counter: PathBuf,
    _counter: Option<OwnedFd>,
    seen: u64,
}

impl Group {
    /// Starts to watch for a process of the group being killed for want of memory.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Unsupported`] without a memory controller; when the kernel refuses.
    pub fn watch_oom(&self) -> Result<OomWatch, CgroupError> {
        let unsupported = || CgroupError::Unsupported {
            what: "the memory controller".into(),
            remedy: "enable it to hear of processes killed for want of memory",
        };
        let directory = self.directory("memory").ok_or_else(unsupported)?;
        match self.version() {
            Version::One => watch_v1(directory),
            Version::Two => watch_v2(directory.join("memory.events")),
        }
    }
}

fn watch_v1(directory: PathBuf) -> Result<OomWatch, CgroupError> {
    let counter = directory.join("memory.oom_control");
    let opened = fs::File::open(&counter)
        .map_err(|source| CgroupError::Open { path: counter.clone(), source })?;
    let control = directory.join("cgroup.event_control");
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let event = rustix::event::eventfd(0, flags)
        .map_err(|error| CgroupError::Open { path: control.clone(), source: error.into() })?;
    let value = format!("{} {}", event.as_raw_fd(), opened.as_raw_fd());
    fs::OpenOptions::new()
        .write(true)
        .open(&control)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|source| CgroupError::Write { path: control, value, source })?;
    let seen = kills(&counter).unwrap_or(0);
    Ok(OomWatch { event, counter, _counter: Some(opened.into()), seen })
}

fn watch_v2(counter: PathBuf) -> Result<OomWatch, CgroupError> {
    let failed = |error: rustix::io::Errno| CgroupError::Open {
        path: counter.clone(),
        source: error.into(),
    };
    let event =
        rustix::fs::inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(failed)?;
    rustix::fs::inotify::add_watch(&event, &counter, WatchFlags::MODIFY).map_err(failed)?;
    let seen = kills(&counter).unwrap_or(0);
    Ok(OomWatch { event, counter, _counter: None, seen })
}

/// What happened since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OomEvents {
    /// How many processes were killed.
    pub count: u64,
    /// Whether the group is gone, so that nothing more will happen.
    pub is_over: bool,
}

impl OomWatch {
    /// What happened since the last call; nothing when it was called too early.
    ///
    /// # Errors
    ///
    /// When the descriptor cannot be read.
    pub fn take(&mut self) -> io::Result<OomEvents> {
        let mut buffer = [0_u8; 512];
        // What the events say is in the counter, too.
        loop {
            match rustix::io::read(&self.event, &mut buffer) {
                Ok(1..) | Err(Errno::INTR) => {}
                Ok(0) | Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        let Some(kills) = kills(&self.counter) else {
            return Ok(OomEvents { count: 0, is_over: true });
        };
        let seen = std::mem::replace(&mut self.seen, kills);
        Ok(OomEvents { count: kills.saturating_sub(seen), is_over: false })
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// Both versions write `oom_kill NUMBER`.
fn kills(counter: &PathBuf) -> Option<u64> {
    let text = fs::read_to_string(counter).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_is_told_once_and_other_events_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let counter = directory.path().join("memory.events");
        fs::write(&counter, "low 0\noom_kill 1\n").unwrap();
        let mut watch = watch_v2(counter.clone()).unwrap();
        assert_eq!(watch.take().unwrap().count, 0, "it was killed before");
        fs::write(&counter, "low 5\noom_kill 1\n").unwrap();
        let mut interest = [rustix::event::PollFd::new(&watch, rustix::event::PollFlags::IN)];
        assert_eq!(rustix::event::poll(&mut interest, None), Ok(1));
        assert_eq!(watch.take().unwrap(), OomEvents::default());
        fs::write(&counter, "low 5\noom_kill 3\noom_group_kill 0\n").unwrap();
        assert_eq!(watch.take().unwrap().count, 2);
        assert_eq!(watch.take().unwrap().count, 0);
        fs::remove_file(&counter).unwrap();
        assert_eq!(watch.take().unwrap(), OomEvents { count: 0, is_over: true });
    }
}

//! Waiting for many descriptors at once.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData};
pub(crate) use rustix::event::epoll::{Event, EventFlags};
use rustix::time::Timespec;

/// Says which descriptor an event is about.
pub(crate) type Token = u64;

/// How many events are taken at a time.
const BATCH: usize = 16;

/// A set of descriptors, each with its token.
///
/// Whoever adds a descriptor removes it before closing it: others may hold the same
/// open file, and it would then stay in the set without anyone to remove it.
#[derive(Debug)]
pub(crate) struct Poll {
    descriptor: OwnedFd,
    last: Token,
}

impl Poll {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { descriptor: epoll::create(CreateFlags::CLOEXEC)?, last: 0 })
    }

    /// Adds a descriptor and gives it a token nobody had before.
    ///
    /// That its other side went away is told whatever `flags` are.
    pub(crate) fn add(&mut self, descriptor: impl AsFd, flags: EventFlags) -> io::Result<Token> {
        self.last += 1;
        epoll::add(&self.descriptor, descriptor, EventData::new_u64(self.last), flags)?;
        Ok(self.last)
    }

    pub(crate) fn change(
        &self,
        token: Token,
        descriptor: impl AsFd,
        flags: EventFlags,
    ) -> io::Result<()> {
        Ok(epoll::modify(&self.descriptor, descriptor, EventData::new_u64(token), flags)?)
    }

    pub(crate) fn remove(&self, descriptor: impl AsFd) {
        // It fails only for one that is not in the set, which is what was wanted.
        epoll::delete(&self.descriptor, descriptor).ok();
    }

    /// Waits for something to happen, or for `patience` to run out.
    pub(crate) fn wait(&self, patience: Option<Duration>) -> io::Result<Vec<(Token, EventFlags)>> {
        let patience = patience.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
        let mut events = Vec::with_capacity(BATCH);
        let spare = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&self.descriptor, spare, patience.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(events.iter().map(|event: &Event| (event.data.u64(), event.flags)).collect())
    }
}

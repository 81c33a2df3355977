//! Being born in namespaces that nobody comes back from.
//!
//! ```text
//! we ──▶ a process between ──joins everything, becomes root there──▶ the first process, our child
//! ```
//!
//! Whoever enters a user namespace cannot come back, nor can root of a user namespace from other
//! process ids; so a process between does it for us. What it starts is its sibling: our child.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use carrack_linux::namespace::{self, Kinds};
use carrack_linux::process::{self, Birth, Child};
use rustix::pipe::PipeFlags;
use rustix::process::Pid;

use crate::joined::Joined;

/// Starts a process in `joined`, where they can be left again or not.
///
/// # Errors
///
/// What joining or starting answers.
pub(crate) fn start_in(
    joined: &Joined,
    birth: Birth<'_>,
    body: impl FnOnce(),
) -> io::Result<Child> {
    if joined.can_be_left() {
        return joined.within(|| process::start(birth, body));
    }
    start_between(|| joined.enter(), birth, body)
}

/// Starts a process in the user namespace `user`, with those of `birth` new below it.
///
/// # Errors
///
/// What joining or starting answers.
pub(crate) fn start_within(
    user: &OwnedFd,
    joined: &Joined,
    birth: Birth<'_>,
    body: impl FnOnce(),
) -> io::Result<Child> {
    start_between(|| enter(user, joined), birth, body)
}

fn start_between(
    enter: impl FnOnce() -> io::Result<()>,
    birth: Birth<'_>,
    body: impl FnOnce(),
) -> io::Result<Child> {
    let (reads, writes) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let between = process::start(Birth { namespaces: Kinds::empty(), ..birth }, || {
        // The group was entered on the way here, and is left to the one that comes.
        let next = Birth { cgroup: None, sibling: true, ..birth };
        let made = process::set_undumpable()
            .and_then(|()| enter())
            .and_then(|()| process::start(next, body));
        let answer = match made {
            Ok(child) => child.pid().as_raw_nonzero().get(),
            Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
        };
        // Our caller takes silence for a failure.
        rustix::io::write(&writes, &answer.to_ne_bytes()).ok();
        process::leave(0)
    })?;
    between.wait()?;
    drop(writes);
    let mut answer = [0; 4];
    if rustix::io::read(&reads, &mut answer)? != answer.len() {
        return Err(io::Error::other("the process between ended before it was done"));
    }
    match i32::from_ne_bytes(answer) {
        errno @ ..0 => Err(io::Error::from_raw_os_error(-errno)),
        pid => {
            let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("it told no process"))?;
            Child::adopt(pid)
        }
    }
}

fn enter(user: &OwnedFd, joined: &Joined) -> io::Result<()> {
    // What belongs to other users is entered while we still may.
    joined.enter()?;
    namespace::enter(user.as_fd(), Kinds::USER)?;
    Ok(())
}

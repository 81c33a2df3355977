//! Leaving the parent behind, and hearing of signals as events.
//!
//! What the shim needs to become a process of its own: [`detach`] forks into a new
//! session, [`Signals`] turns signals into something `epoll` can wait for.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Which of the two processes [`detach`] returned in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that called; the new one carries on without it.
    Parent {
        /// Process id of the new one.
        child: i32,
    },
    /// The new one, leader of a session of its own.
    Child,
}

/// Forks; the child leads a new session without a terminal.
///
/// # Errors
///
/// What `fork` says, or `InvalidInput` in a process with several threads, where
/// the child could find a lock held by a thread that no longer exists.
pub fn detach() -> io::Result<Side> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        let message = "detaching needs a process with one thread";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    // SAFETY: the process has one thread, as checked above, so the child's copy of
    // memory is consistent and it may run any code.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => rustix::process::setsid().map(|_| Side::Child).map_err(io::Error::from),
        child => Ok(Side::Parent { child }),
    }
}

/// Closes whatever the parent left open besides the three standard streams.
///
/// A process that outlives its parent must not keep that parent's pipes and sockets
/// open. To be called first of all, before this process has opened anything itself.
///
/// # Errors
///
/// `ENOSYS` before Linux 5.9.
pub fn close_inherited() -> io::Result<()> {
    const FIRST: libc::c_uint = 3;
    // SAFETY: no memory is involved. By the promise above nothing in this process owns
    // any of the descriptors closed.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, 0) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Signals, delivered by reading instead of by interrupting.
#[derive(Debug)]
pub struct Signals {
    descriptor: OwnedFd,
}

impl Signals {
    /// Blocks `signals` for this thread and watches for them.
    ///
    /// The block outlives this value, and children inherit it until they say
    /// otherwise.
    ///
    /// # Errors
    ///
    /// What the kernel says, such as `EINVAL` for a number that is no signal.
    pub fn watch(signals: &[i32]) -> io::Result<Self> {
        let set = signal_set(signals)?;
        // SAFETY: `set` is an initialized signal set that outlives the call, and a null
        // pointer says the previous set is not wanted.
        if unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: `set` is an initialized signal set that outlives the call.
        let raw = unsafe { libc::signalfd(-1, &raw const set, flags) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded, so `raw` is open and owned by nothing else.
        Ok(Self { descriptor: unsafe { OwnedFd::from_raw_fd(raw) } })
    }

    /// The next that has arrived, without waiting.
    ///
    /// # Errors
    ///
    /// As `read`, but for having nothing to read.
    pub fn next_arrived(&self) -> io::Result<Option<i32>> {
        let mut buffer = [0_u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.descriptor, &mut buffer) {
            // It begins with the number of the signal.
            Ok(_) => Ok(buffer.first_chunk().map(|first| i32::from_ne_bytes(*first))),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes in whatever has arrived, without waiting.
    pub fn drain(&self) {
        let mut buffer = [0_u8; size_of::<libc::signalfd_siginfo>() * 4];
        // Non-blocking: ends with `EAGAIN` once nothing is left.
        while matches!(rustix::io::read(&self.descriptor, &mut buffer), Ok(read) if read > 0) {}
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> i32 {
        self.descriptor.as_raw_fd()
    }
}

fn signal_set(signals: &[i32]) -> io::Result<libc::sigset_t> {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: the pointer is valid for writing one signal set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: `sigemptyset` initialized it.
    let mut set: libc::sigset_t = unsafe { set.assume_init() };
    for signal in signals {
        // SAFETY: the set is initialized and borrowed for the call only.
        if unsafe { libc::sigaddset(&raw mut set, *signal) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_several_threads_is_not_detached() {
        // The test harness has more threads than this one.
        let error = detach().expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_signal_watched_for_is_read_instead_of_taking_effect() {
        let signals = Signals::watch(&[libc::SIGTERM]).expect("watched");
        // SAFETY: `raise` takes any number; the signal is blocked in this thread, to
        // which it is sent.
        assert_eq!(unsafe { libc::raise(libc::SIGTERM) }, 0);
        let mut interest = [rustix::event::PollFd::new(&signals, rustix::event::PollFlags::IN)];
        let at_once = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut ready = || rustix::event::poll(&mut interest, Some(&at_once)).expect("polled");
        assert_eq!(ready(), 1);
        signals.drain();
        assert_eq!(ready(), 0);
    }

    #[test]
    fn a_number_that_is_no_signal_is_refused() {
        assert!(Signals::watch(&[4711]).is_err());
    }
}

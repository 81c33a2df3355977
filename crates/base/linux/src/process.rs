//! Processes by descriptor: clone3, pidfd, exit status.
//!
//! A process id can be reused while somebody looks at it; a pidfd cannot. Processes are
//! started, signalled and waited for through their pidfd, and a process recorded on disk
//! is recognised by its id together with the moment it started.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use crate::namespace::Kinds;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Exit {
    /// The code a shell would report: 128 and the signal for a process that was killed.
    pub fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// A child of this process.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Child {
    /// Takes a child that another process started as our own ([`Birth::sibling`]).
    ///
    /// # Errors
    ///
    /// `ESRCH` when there is none.
    pub fn adopt(pid: Pid) -> io::Result<Self> {
        Ok(Self { pid, pidfd: open(pid)? })
    }

    /// Its id, as this process sees it.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Its descriptor; readable once it has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Gives up the handle without waiting; somebody else reaps the process.
    pub fn into_pidfd(self) -> OwnedFd {
        self.pidfd
    }

    /// Waits until it ends, and reaps it.
    ///
    /// # Errors
    ///
    /// `ECHILD` when somebody else reaped it.
    pub fn wait(&self) -> io::Result<Exit> {
        wait(self.pidfd.as_fd())
    }

    /// Ends it at once and reaps it; fine when it has ended already.
    pub fn destroy(self) {
        signal(self.pidfd.as_fd(), libc::SIGKILL).ok(); // It may have ended.
        self.wait().ok(); // It may have been reaped.
    }
}

/// What a new process is born with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Birth<'a> {
    /// New namespaces for it.
    pub namespaces: Kinds,
    /// The version 2 control group it starts in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Make it a child of the caller's parent, a sibling of the caller.
    pub sibling: bool,
}

/// Starts a process that runs `body` on a copy of this one's memory.
///
/// The body ends by replacing the program or by leaving. Should it return or panic, the
/// process ends with code 127 or 101; it never goes on in the caller's code. Handlers of
/// signals are reset to the default in the new process, where the kernel offers `clone3`.
///
/// # Errors
///
/// `EBUSY` (as [`io::ErrorKind::ResourceBusy`]) when this process has more than one
/// thread: the copy would have one only, and locks of the others would stay closed in it
/// for ever. As `clone3` otherwise.
pub fn start(birth: Birth<'_>, body: impl FnOnce()) -> io::Result<Child> {
    refuse_threads()?;
    let mut pidfd: libc::c_int = -1;
    let mut flags = CLONE_PIDFD | CLONE_CLEAR_SIGHAND | u64::from(birth.namespaces.bits());
    let mut cgroup = 0;
    if let Some(descriptor) = birth.cgroup {
        flags |= CLONE_INTO_CGROUP;
        cgroup = u64::try_from(descriptor.as_raw_fd()).map_err(io::Error::other)?;
    }
    if birth.sibling {
        flags |= CLONE_PARENT;
    }
    let arguments = CloneArguments {
        flags,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        // A sibling must not choose its signal: it is the caller's own.
        exit_signal: if birth.sibling { 0 } else { u64::from(libc::SIGCHLD.cast_unsigned()) },
        cgroup,
        ..CloneArguments::default()
    };
    // SAFETY: without CLONE_VM and with no stack given this is `fork`: the child goes on
    // here on a copy of this stack, which is sound as there is one thread (checked above);
    // `arguments` and the `pidfd` it points to outlive the call.
    let mut answer = unsafe {
        libc::syscall(libc::SYS_clone3, std::ptr::from_ref(&arguments), size_of::<CloneArguments>())
    };
    let refused = answer < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS);
    if refused && birth.cgroup.is_none() {
        // Inside a container: Docker's seccomp profile hides clone3, whose flags a filter
        // cannot see, and lets clone through. Handlers are then not cleared here.
        let flags = (flags & !CLONE_CLEAR_SIGHAND) | arguments.exit_signal;
        // SAFETY: as above: no CLONE_VM, no stack; the third argument of clone is where the
        // kernel stores the pidfd.
        answer = unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) };
    }
    match answer {
        0 => {
            let _leave = LeaveOnDrop;
            body();
            leave(127)
        }
        1.. => {
            let pid = i32::try_from(answer).ok().and_then(Pid::from_raw);
            let pid = pid.ok_or_else(|| io::Error::other("clone3 answered no process id"))?;
            // SAFETY: clone3 succeeded with CLONE_PIDFD, so it stored a new descriptor here.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Child { pid, pidfd })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_PARENT: u64 = 0x8000;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args`, whole.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Keeps a panic of the body from unwinding into the caller's code, in the copy.
struct LeaveOnDrop;

impl Drop for LeaveOnDrop {
    fn drop(&mut self) {
        leave(101)
    }
}

/// The task directory has two links and one for each thread.
fn refuse_threads() -> io::Result<()> {
    let tasks = rustix::fs::stat("/proc/self/task")?;
    if tasks.st_nlink > 3 {
        let message = "this process has several threads, so it cannot be copied; \
                       start containers from a process with one thread";
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, message));
    }
    Ok(())
}

/// Starts a process that only waits until it is ended, or its parent has: somebody to be in
/// a place before those come for whom it is made.
///
/// # Errors
///
/// As [`start`].
pub fn start_waiting() -> io::Result<Child> {
    let parent = rustix::process::getpid();
    start(Birth::default(), || {
        let bound = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        // The parent may have ended before it was bound to.
        if bound.is_ok() && rustix::process::getppid() == Some(parent) {
            loop {
                rustix::event::pause();
            }
        }
    })
}

/// Leaves at once, running nothing on the way out: for the body of [`start`].
pub fn leave(code: u8) -> ! {
    // SAFETY: `_exit` takes any code and does not return; it runs no handlers, so no
    // state shared with the parent is touched.
    unsafe { libc::_exit(i32::from(code)) }
}

/// Gives every signal its default action and blocks none.
///
/// A program inherits what is ignored and blocked, so this comes right before it.
///
/// # Errors
///
/// When the mask cannot be set.
pub fn reset_signals() -> io::Result<()> {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL installs no code of ours; for numbers that cannot be changed
        // the call answers an error and does nothing.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `none` is a valid place for a set, which the call fills.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: `none` was filled above; the old mask is not asked for.
    let answer =
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Blocks every signal that can be blocked, so that [`wait_for_signal`] gets them.
///
/// # Errors
///
/// When the mask cannot be set.
pub fn block_signals() -> io::Result<()> {
    let all = every_signal();
    // SAFETY: `all` was filled; the old mask is not asked for.
    let answer =
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut()) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits for the next blocked signal and takes it.
///
/// # Errors
///
/// As `sigwaitinfo`, but for an interruption.
pub fn wait_for_signal() -> io::Result<i32> {
    let all = every_signal();
    loop {
        // SAFETY: `all` was filled; without a place for details none are stored.
        let signal = unsafe { libc::sigwaitinfo(&raw const all, std::ptr::null_mut()) };
        if signal > 0 {
            return Ok(signal);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn every_signal() -> libc::sigset_t {
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `all` is a valid place for a set, which the call fills.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: filled above.
    unsafe { all.assume_init() }
}

/// Replaces the program of this process by the one in `program`.
///
/// # Errors
///
/// Returns only on failure, with the reason.
pub fn execute(
    program: BorrowedFd<'_>,
    arguments: &[std::ffi::CString],
    environment: &[std::ffi::CString],
) -> io::Error {
    let arguments = pointers(arguments);
    let environment = pointers(environment);
    // SAFETY: both lists end in a null pointer and their strings, borrowed from the
    // caller, end in NUL and outlive the call; the path is a literal.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// Replaces the program of this process by the one at `path`.
///
/// # Errors
///
/// Returns only on failure, with the reason.
pub fn execute_path(
    path: &std::ffi::CStr,
    arguments: &[std::ffi::CString],
    environment: &[std::ffi::CString],
) -> io::Error {
    let arguments = pointers(arguments);
    let environment = pointers(environment);
    // SAFETY: both lists end in a null pointer and their strings, borrowed from the
    // caller, end in NUL and outlive the call; so does the path.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

fn pointers(strings: &[std::ffi::CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Marks every descriptor from `first` up to be closed when the program is replaced.
///
/// # Errors
///
/// As `close_range`.
pub fn close_on_execute_from(first: u32) -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: nothing is closed now; descriptors in use stay valid until the program,
    // and with it every owner of a descriptor, is gone.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes `descriptors` this process's `first`, `first` + 1 and so on, and leaves no other
/// from `first` up to the program that comes next.
///
/// For a process that [`start`] made and that is about to become another program: whatever
/// had those numbers is closed.
///
/// # Errors
///
/// As `dup3` and `close_range`.
pub fn place_descriptors(descriptors: &[BorrowedFd<'_>], first: u32) -> io::Result<()> {
    // Out of the way first, so that none is overwritten before it is placed.
    const ASIDE: i32 = 256;
    let aside = descriptors.iter().map(|&one| rustix::io::fcntl_dupfd_cloexec(one, ASIDE));
    let aside = aside.collect::<Result<Vec<_>, _>>()?;
    close_on_execute_from(first)?;
    for (number, one) in (first..).zip(&aside) {
        let number = i32::try_from(number).map_err(io::Error::other)?;
        // SAFETY: no memory is involved. By the promise above no owner of the descriptor
        // that is replaced runs again in this process.
        if unsafe { libc::dup3(one.as_raw_fd(), number, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Closes every descriptor from `first` up but those in `keep`.
///
/// For a process that goes on with what it keeps and never lets another owner of a
/// descriptor run again, such as the one [`start`] made.
///
/// # Errors
///
/// As `close_range`.
pub fn close_from_except(first: u32, keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let kept = keep.iter().map(|kept| u32::try_from(kept.as_raw_fd()).map_err(io::Error::other));
    let mut kept = kept.collect::<io::Result<Vec<u32>>>()?;
    kept.sort_unstable();
    let mut next = first;
    for kept in kept {
        if kept > next {
            close_range(next, kept - 1)?;
        }
        next = next.max(kept.saturating_add(1));
    }
    close_range(next, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: the caller promised that no other owner of a descriptor runs again.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Leaves the session's keys behind for a new, empty set.
///
/// # Errors
///
/// `ENOSYS` on a kernel without keys; as `keyctl`.
pub fn new_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    let unnamed = std::ptr::null::<libc::c_char>();
    // SAFETY: without a name the call takes nothing by address.
    let answer = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, unnamed) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets the execution domain, such as 8 for 32-bit Linux.
///
/// # Errors
///
/// As `personality`.
pub fn set_personality(personality: u32) -> io::Result<()> {
    // SAFETY: the call takes a number and changes how later programs are executed.
    let answer = unsafe { libc::personality(libc::c_ulong::from(personality)) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets class and level of the calling thread's block device requests.
///
/// # Errors
///
/// As `ioprio_set`.
pub fn set_io_priority(priority: i32) -> io::Result<()> {
    const PROCESS: libc::c_int = 1;
    // SAFETY: the call takes numbers only; 0 means the calling thread.
    let answer = unsafe { libc::syscall(libc::SYS_ioprio_set, PROCESS, 0, priority) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Opens a process by its id. Check afterwards that it is still the one that was meant.
///
/// # Errors
///
/// `ESRCH` when there is none.
pub fn open(pid: Pid) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Sends a signal by number; real-time signals too.
///
/// # Errors
///
/// `ESRCH` when the process has ended and been reaped; `EINVAL` for no such signal.
pub fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: without information the kernel fills its own; the descriptor is borrowed.
    let answer =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits until the child behind `pidfd` ends, and reaps it.
///
/// # Errors
///
/// `ECHILD` when it is not a child of this process or was reaped already.
pub fn wait(pidfd: BorrowedFd<'_>) -> io::Result<Exit> {
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
            Ok(Some(status)) => return Ok(exit_of(&status)),
            Ok(None) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reaps the child behind `pidfd` if it has ended; `None` while it runs.
///
/// # Errors
///
/// As [`wait`].
pub fn try_wait(pidfd: BorrowedFd<'_>) -> io::Result<Option<Exit>> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let status = rustix::process::waitid(WaitId::PidFd(pidfd), options)?;
    Ok(status.as_ref().map(exit_of))
}

/// Reaps any child that has ended; `None` when none has.
///
/// # Errors
///
/// `ECHILD` when this process has no children.
pub fn try_wait_any() -> io::Result<Option<(Pid, Exit)>> {
    let answer = rustix::process::wait(rustix::process::WaitOptions::NOHANG)?;
    Ok(answer.map(|(pid, status)| {
        let exit = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or_default()),
        };
        (pid, exit)
    }))
}

fn exit_of(status: &rustix::process::WaitIdStatus) -> Exit {
    match status.exit_status() {
        Some(code) => Exit::Code(code),
        None => Exit::Signal(status.terminating_signal().unwrap_or_default()),
    }
}

/// The moment a process started, in clock ticks since boot: with the id, its name for
/// good. `None` once it has ended, reaped or not.
pub fn start_time(pid: Pid) -> Option<u64> {
    let line = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    parse_stat(&line)
}

/// The 22nd field; the second one is in parentheses and may hold anything.
fn parse_stat(line: &str) -> Option<u64> {
    let (_, rest) = line.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Opens the process that had `pid` when it started at `started`; `None` when it ended.
///
/// # Errors
///
/// As `pidfd_open`, other than for a process that ended.
pub fn open_started(pid: Pid, started: u64) -> io::Result<Option<OwnedFd>> {
    let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // Read after opening: if it matches now, the descriptor is the process meant.
    Ok((start_time(pid) == Some(started)).then_some(pidfd))
}

/// The root directory of a process. Check afterwards that it is still the one that was meant.
///
/// # Errors
///
/// When it is gone, or not ours to inspect.
pub fn root_of(pid: Pid) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let path = format!("/proc/{}/root", pid.as_raw_nonzero());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Hides this process's `/proc` entry and memory from processes without privilege over it.
///
/// # Errors
///
/// As `prctl`.
pub fn set_undumpable() -> io::Result<()> {
    let behavior = rustix::process::DumpableBehavior::NotDumpable;
    Ok(rustix::process::set_dumpable_behavior(behavior)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_a_hostile_name() {
        let line = "7 (a) R (b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        assert_eq!(parse_stat(line), Some(4242));
        assert_eq!(parse_stat(&line.replace(" S ", " Z ")), None);
        assert_eq!(parse_stat("7 (x"), None);
    }

    #[test]
    fn a_process_is_opened_only_with_the_right_start_time() {
        let own = rustix::process::getpid();
        let started = start_time(own).unwrap();
        assert!(open_started(own, started).unwrap().is_some());
        assert!(open_started(own, started + 1).unwrap().is_none());
    }

    #[test]
    fn a_process_with_threads_is_not_copied() {
        // The test harness runs this on a thread of its own.
        let error = start(Birth::default(), || leave(0)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    }

    #[test]
    fn a_child_is_signalled_and_waited_for_by_descriptor() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pidfd = open(Pid::from_child(&child)).unwrap();
        assert_eq!(try_wait(pidfd.as_fd()).unwrap(), None);
        signal(pidfd.as_fd(), libc::SIGTERM).unwrap();
        assert_eq!(wait(pidfd.as_fd()).unwrap(), Exit::Signal(libc::SIGTERM));
        child.wait().unwrap_err(); // It is reaped already.
        assert_eq!(Exit::Signal(15).shell_code(), 143);
    }
}

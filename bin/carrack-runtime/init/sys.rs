//! System calls, and how the kernel starts a program: all that is unsafe here.
//!
//! `call` makes one system call. Every function below passes it numbers, or the addresses
//! of what lives until it returns; where the kernel writes, it is to a place of the type it
//! writes. So each block's reason says what the kernel does with the arguments.
#![expect(unsafe_code, reason = "there is no library below this program")]

use core::ffi::{CStr, c_char};

#[cfg(target_arch = "aarch64")]
#[path = "aarch64.rs"]
mod machine;
#[cfg(target_arch = "x86_64")]
#[path = "x86_64.rs"]
mod machine;

use machine::{call, number};

pub(crate) const STDIN: usize = 0;
pub(crate) const STDOUT: usize = 1;
pub(crate) const STDERR: usize = 2;

pub(crate) const SIGCHLD: i32 = 17;
pub(crate) const SIGTTIN: i32 = 21;
pub(crate) const SIGTTOU: i32 = 22;

/// What a system call answered in place of a result.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(i32);

impl Errno {
    pub(crate) const NOENT: Self = Self(2);
    pub(crate) const ACCES: Self = Self(13);
    pub(crate) const NOTDIR: Self = Self(20);

    pub(crate) fn number(self) -> i32 {
        self.0
    }

    /// In words, for those that executing a program is known to answer.
    pub(crate) fn reason(self) -> Option<&'static str> {
        Some(match self.0 {
            1 => "operation not permitted",
            2 => "there is no such file, or the loader or interpreter it names is missing",
            5 => "reading it failed",
            7 => "its arguments and environment are too long",
            8 => "it is neither a program for this machine nor a script that begins with #!",
            11 => "no process is left (see the pids limit)",
            12 => "memory is short",
            13 => "permission denied",
            20 => "a part of its path is not a directory",
            21 => "it is a directory",
            26 => "it is open for writing",
            36 => "its name is too long",
            40 => "it leads through too many links",
            _ => return None,
        })
    }
}

fn answer(raw: isize) -> Result<usize, Errno> {
    // The kernel answers errors as the numbers from -4095 to -1.
    match i32::try_from(raw) {
        Ok(number @ -4095..=-1) => Err(Errno(-number)),
        Ok(_) | Err(_) => Ok(raw.cast_unsigned()),
    }
}

fn id(raw: isize) -> Result<i32, Errno> {
    // Process ids are at most 2^22.
    answer(raw).map(|id| i32::try_from(id).unwrap_or(0))
}

/// What the kernel puts on the stack of a new program: the number of arguments, a pointer
/// to each, a null, a pointer to each variable, a null.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    count: usize,
    arguments: *const *const c_char,
}

impl Entry {
    fn pointer(self, at: usize) -> *const *const c_char {
        // SAFETY: callers stay between the first argument and the null behind the last
        // variable, which is one object, made by the kernel.
        unsafe { self.arguments.add(at) }
    }

    fn string(self, at: usize) -> Option<&'static CStr> {
        // SAFETY: as in `pointer`; nobody writes there.
        let string = unsafe { self.pointer(at).read() };
        // SAFETY: a pointer there that is not null is to a string that ends in NUL, on the
        // first page of the stack, where it stays.
        (!string.is_null()).then(|| unsafe { CStr::from_ptr(string) })
    }

    /// An argument by its number.
    pub(crate) fn argument(self, at: usize) -> Option<&'static CStr> {
        if at < self.count { self.string(at) } else { None }
    }

    /// The value of an environment variable.
    pub(crate) fn variable(self, name: &[u8]) -> Option<&'static [u8]> {
        // Behind the arguments is one null.
        let mut at = self.count + 1;
        while let Some(entry) = self.string(at) {
            let value = entry.to_bytes().strip_prefix(name);
            if let Some(value) = value.and_then(|rest| rest.strip_prefix(b"=")) {
                return Some(value);
            }
            at += 1;
        }
        None
    }
}

/// Where the first instruction, in `machine`, goes on.
///
/// # Safety
///
/// `stack` is what the stack pointer was when the kernel started this program.
unsafe extern "C" fn begin(stack: *const usize) -> ! {
    // SAFETY: the first word there is the number of arguments.
    let count = unsafe { stack.read() };
    // SAFETY: the pointers come right behind it.
    let arguments = unsafe { stack.add(1) }.cast();
    exit(crate::main(Entry { count, arguments }))
}

/// Leaves with this code.
pub(crate) fn exit(code: i32) -> ! {
    loop {
        // SAFETY: the call takes a number and does not return.
        unsafe { call(number::EXIT_GROUP, [word(code), 0, 0, 0, 0]) };
    }
}

/// A number as the kernel takes it: with its sign.
fn word(number: i32) -> usize {
    // On 64 bits every `i32` fits.
    isize::try_from(number).unwrap_or(0).cast_unsigned()
}

/// Writes all of it, unless nobody takes it: there is nobody else to tell.
pub(crate) fn write(descriptor: usize, mut bytes: &[u8]) {
    const EINTR: Errno = Errno(4);
    while !bytes.is_empty() {
        let (from, length) = (bytes.as_ptr().expose_provenance(), bytes.len());
        // SAFETY: the kernel reads `length` bytes of the slice.
        match answer(unsafe { call(number::WRITE, [descriptor, from, length, 0, 0]) }) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(EINTR) => {}
            Err(_) => return,
        }
    }
}

/// The name of this process in lists of processes.
pub(crate) fn set_name(name: &CStr) {
    const SET_NAME: usize = 15;
    // SAFETY: the kernel reads up to 16 bytes and stops at the NUL.
    unsafe { call(number::PRCTL, [SET_NAME, name.as_ptr().expose_provenance(), 0, 0, 0]) };
}

/// Makes orphans below this process its children.
pub(crate) fn become_subreaper() -> Result<(), Errno> {
    const SET_CHILD_SUBREAPER: usize = 36;
    // SAFETY: the call takes numbers only.
    answer(unsafe { call(number::PRCTL, [SET_CHILD_SUBREAPER, 1, 0, 0, 0]) }).map(drop)
}

/// A copy of this process; 0 in the copy.
pub(crate) fn fork() -> Result<i32, Errno> {
    // SAFETY: without CLONE_VM and with no stack given the copy goes on here on a copy of
    // this stack; there is one thread, and no address is given to write to.
    id(unsafe { call(number::CLONE, [word(SIGCHLD), 0, 0, 0, 0]) })
}

/// This process's id.
pub(crate) fn process() -> i32 {
    // SAFETY: the call takes nothing.
    id(unsafe { call(number::GETPID, [0; 5]) }).unwrap_or(0)
}

/// This process's group.
pub(crate) fn group() -> i32 {
    // SAFETY: the call takes a number; 0 is the caller.
    id(unsafe { call(number::GETPGID, [0; 5]) }).unwrap_or(0)
}

/// Puts this process into a group of its own.
pub(crate) fn make_group() -> Result<(), Errno> {
    // SAFETY: the call takes numbers; 0 is the caller, and a group named after it.
    answer(unsafe { call(number::SETPGID, [0; 5]) }).map(drop)
}

/// The process group in front of the terminal that is standard input.
pub(crate) fn foreground() -> Result<i32, Errno> {
    const TIOCGPGRP: usize = 0x540f;
    let mut group = 0_i32;
    let place = (&raw mut group).expose_provenance();
    // SAFETY: the kernel writes one `int` to `group`.
    answer(unsafe { call(number::IOCTL, [STDIN, TIOCGPGRP, place, 0, 0]) })?;
    Ok(group)
}

/// Puts a process group in front of the terminal that is standard input. SIGTTOU is
/// blocked, so that one in the background may.
pub(crate) fn set_foreground(group: i32) -> Result<(), Errno> {
    const TIOCSPGRP: usize = 0x5410;
    let place = (&raw const group).expose_provenance();
    // SAFETY: the kernel reads one `int`.
    answer(unsafe { call(number::IOCTL, [STDIN, TIOCSPGRP, place, 0, 0]) }).map(drop)
}

/// A set of signals, as the kernel keeps it: a bit each for 1 to 64.
#[derive(Clone, Copy)]
pub(crate) struct Signals(u64);

impl Signals {
    pub(crate) const ALL: Self = Self(u64::MAX);
    pub(crate) const NONE: Self = Self(0);
}

/// Blocks these signals and no others.
pub(crate) fn set_mask(signals: Signals) {
    const SETMASK: usize = 2;
    let set = (&raw const signals.0).expose_provenance();
    // SAFETY: the kernel reads eight bytes; the old mask is not asked for.
    unsafe { call(number::RT_SIGPROCMASK, [SETMASK, set, 0, size_of::<u64>(), 0]) };
}

/// Gives every signal its default action: what is ignored would stay so in the program.
pub(crate) fn reset_handlers() {
    /// `struct sigaction`: handler, flags, restorer and mask; all zeroes is the default.
    const DEFAULT: [u64; 4] = [0; 4];
    let action = DEFAULT.as_ptr().expose_provenance();
    for signal in 1..=64 {
        // SAFETY: the kernel reads the 32 bytes of an action (24 where there is no
        // restorer); the old one is not asked for. For SIGKILL and SIGSTOP it refuses.
        unsafe { call(number::RT_SIGACTION, [signal, action, 0, size_of::<u64>(), 0]) };
    }
}

/// Waits for the next of the blocked signals and takes it.
pub(crate) fn next_signal() -> i32 {
    let all = Signals::ALL;
    let set = (&raw const all.0).expose_provenance();
    loop {
        // SAFETY: the kernel reads eight bytes; details and a time limit are not given.
        let raw = unsafe { call(number::RT_SIGTIMEDWAIT, [set, 0, 0, size_of::<u64>(), 0]) };
        // An error is an interruption: we were stopped and go on.
        if let Ok(signal) = id(raw) {
            return signal;
        }
    }
}

/// Sends a signal; to a process group when the number is negative.
pub(crate) fn kill(process: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: the call takes numbers only.
    answer(unsafe { call(number::KILL, [word(process), word(signal), 0, 0, 0]) }).map(drop)
}

/// How a process ended, as the kernel packs it.
#[derive(Clone, Copy)]
pub(crate) struct Status(i32);

impl Status {
    /// Its code, or 128 and the signal that ended it.
    pub(crate) fn shell_code(self) -> i32 {
        let signal = self.0 & 0x7f;
        if signal == 0 { (self.0 >> 8) & 0xff } else { 128 + signal }
    }
}

/// Reaps a child that has ended, if there is one.
pub(crate) fn reap_one() -> Option<(i32, Status)> {
    const ANY: i32 = -1;
    const NOHANG: usize = 1;
    let mut status = 0_i32;
    let place = (&raw mut status).expose_provenance();
    // SAFETY: the kernel writes one `int` to `status`; usage is not asked for.
    match id(unsafe { call(number::WAIT4, [word(ANY), place, NOHANG, 0, 0]) }) {
        Ok(process) if process > 0 => Some((process, Status(status))),
        Ok(_) | Err(_) => None,
    }
}

/// Becomes the program at `path`, with our arguments from number `first` on and our
/// environment; returns why it could not.
pub(crate) fn execute(path: &CStr, entry: Entry, first: usize) -> Errno {
    let (arguments, environment) = (entry.pointer(first), entry.pointer(entry.count + 1));
    let lists = [arguments.expose_provenance(), environment.expose_provenance()];
    let path = path.as_ptr().expose_provenance();
    // SAFETY: both lists end in a null, and all strings in NUL; they were made by the
    // kernel for this program and none was changed.
    match answer(unsafe { call(number::EXECVE, [path, lists[0], lists[1], 0, 0]) }) {
        Err(errno) => errno,
        Ok(_) => Errno(0),
    }
}

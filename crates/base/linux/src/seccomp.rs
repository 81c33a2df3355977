//! System call filters: a profile compiled to BPF and loaded.
//!
//! ```text
//! Profile ─▶ one section per architecture ─▶ ranges of numbers ─▶ binary search ─▶ Filter ─load─▶ kernel
//! ```
//!
//! Calls next to each other that end the same way become one range, and the ranges a
//! balanced tree of comparisons, so a verdict takes about eight instructions. For a call
//! with conditions, its rules are tried in the order they were written, conditional ones
//! first; when none matches, the profile's default holds.

mod assemble;
mod syscalls;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use thiserror::Error;

use assemble::{Instruction, Verdict};

/// What happens to a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The process ends as if by SIGSYS.
    KillProcess,
    /// The thread ends as if by SIGSYS.
    KillThread,
    /// The thread is sent SIGSYS.
    Trap,
    /// The call answers this error number.
    Errno(u16),
    /// A tracer decides; without one the call answers `ENOSYS`.
    Trace(u16),
    /// The call is made and logged.
    Log,
    /// Whoever listens decides.
    Notify,
    /// The call is made.
    Allow,
}

impl Action {
    /// As the kernel spells it.
    fn value(self) -> u32 {
        match self {
            Self::KillProcess => 0x8000_0000,
            Self::KillThread => 0,
            Self::Trap => 0x0003_0000,
            Self::Errno(number) => 0x0005_0000 | u32::from(number),
            Self::Trace(number) => 0x7ff0_0000 | u32::from(number),
            Self::Log => 0x7ffc_0000,
            Self::Notify => 0x7fc0_0000,
            Self::Allow => 0x7fff_0000,
        }
    }
}

/// An instruction set a process can make system calls with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86.
    X86,
    /// 64-bit ARM.
    Aarch64,
}

impl Architecture {
    /// The one this program was built for.
    #[cfg(target_arch = "x86_64")]
    pub const NATIVE: Self = Self::X86_64;
    /// The one this program was built for.
    #[cfg(target_arch = "aarch64")]
    pub const NATIVE: Self = Self::Aarch64;

    fn audit_value(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// The number of a call, if the architecture has it.
    fn number(self, name: &str) -> Option<u32> {
        let index = syscalls::TABLE.binary_search_by_key(&name, |entry| entry.0).ok()?;
        let &(_, x86_64, x86, aarch64) = syscalls::TABLE.get(index)?;
        let number = match self {
            Self::X86_64 => x86_64,
            Self::X86 => x86,
            Self::Aarch64 => aarch64,
        };
        (number != syscalls::NONE).then(|| u32::from(number))
    }
}

/// How an argument is compared. All comparisons are unsigned and 64 bits wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// Other than the value.
    NotEqual,
    /// Below the value.
    Less,
    /// The value or below.
    LessOrEqual,
    /// The value.
    Equal,
    /// The value or above.
    GreaterOrEqual,
    /// Above the value.
    Greater,
    /// The value, once the bits outside this mask are cleared.
    MaskedEqual(u64),
}

/// A condition on one argument of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Condition {
    /// Which argument, from 0 to 5.
    pub argument: u8,
    /// How it is compared.
    pub comparison: Comparison,
    /// With what.
    pub value: u64,
}

/// What happens to some calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The calls, by name. Names no architecture here knows are passed over, since a
    /// profile is written for kernels older and newer than ours.
    pub names: Vec<String>,
    /// What happens to them.
    pub action: Action,
    /// All of these must hold.
    pub conditions: Vec<Condition>,
}

/// What happens to which calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// What happens to a call no rule matches.
    pub default: Action,
    /// Instruction sets besides the native one whose calls are filtered by the rules;
    /// a process that makes calls of any other is killed.
    pub architectures: Vec<Architecture>,
    /// The rules.
    pub rules: Vec<Rule>,
    /// Log what is not allowed.
    pub log: bool,
    /// Do not turn on speculation mitigations for the sake of the filter.
    pub allow_speculation: bool,
    /// Whoever waits for the listener's answer can only be killed.
    pub wait_killable: bool,
}

/// Why a profile cannot be compiled.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SeccompError {
    /// A condition on an argument that no call has.
    #[error(
        "compiling the seccomp profile: {name} has a condition on argument {argument}; arguments are numbered 0 to 5"
    )]
    Argument {
        /// The call.
        name: String,
        /// The argument's number.
        argument: u8,
    },
    /// More instructions than the kernel takes.
    #[error(
        "compiling the seccomp profile: {count} instructions are more than the kernel's 4096; use fewer conditions"
    )]
    TooLong {
        /// How many it came to.
        count: usize,
    },
}

/// A compiled profile.
#[derive(Clone, Debug)]
pub struct Filter {
    instructions: Vec<Instruction>,
    flags: libc::c_ulong,
}

/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`, since Linux 5.19.
const WAIT_KILLABLE_RECEIVE: libc::c_ulong = 1 << 5;

const MAX_INSTRUCTIONS: usize = 4096;

/// Calls through the 64-bit interface with 32-bit pointers have this bit; they are answered
/// `ENOSYS`, as by a kernel built without them.
const X32_BIT: u32 = 0x4000_0000;

impl Profile {
    /// Compiles for this machine's kernel.
    ///
    /// # Errors
    ///
    /// See [`SeccompError`].
    pub fn compile(&self) -> Result<Filter, SeccompError> {
        let mut architectures = vec![Architecture::NATIVE];
        for &architecture in &self.architectures {
            if !architectures.contains(&architecture) {
                architectures.push(architecture);
            }
        }
        let mut sections = Vec::new();
        for architecture in architectures {
            let ranges = self.ranges(architecture)?;
            sections.push((architecture.audit_value(), assemble::search(&ranges)));
        }
        let instructions = assemble::program(sections, Action::KillProcess.value());
        if instructions.len() > MAX_INSTRUCTIONS {
            return Err(SeccompError::TooLong { count: instructions.len() });
        }
        let mut flags = 0;
        if self.log {
            flags |= libc::SECCOMP_FILTER_FLAG_LOG;
        }
        if self.allow_speculation {
            flags |= libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        }
        if self.notifies() {
            flags |= libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
            if self.wait_killable {
                flags |= WAIT_KILLABLE_RECEIVE;
            }
        }
        Ok(Filter { instructions, flags })
    }

    /// Whether some call is for a listener to decide.
    pub fn notifies(&self) -> bool {
        self.default == Action::Notify
            || self.rules.iter().any(|rule| rule.action == Action::Notify)
    }

    /// Where each verdict starts to hold, by call number, for one architecture.
    fn ranges(&self, architecture: Architecture) -> Result<Vec<(u32, Verdict)>, SeccompError> {
        let calls = self.calls(architecture)?;
        let default = Verdict::always(self.default.value());
        let mut ranges: Vec<(u32, Verdict)> = Vec::new();
        let mut push = |start: u32, verdict: &Verdict| {
            if ranges.last().is_none_or(|(_, last)| last != verdict) {
                ranges.push((start, verdict.clone()));
            }
        };
        let mut next = 0;
        for (&number, verdict) in &calls {
            if number > next || (number == 0 && next == 0) {
                push(next, &default);
            }
            push(number, verdict);
            next = number + 1;
        }
        // A call newer than all the profile knows does not exist, as far as it can tell;
        // programs then fall back to what it does know.
        let newer = match self.default {
            Action::Errno(_) => Verdict::always(Action::Errno(ENOSYS).value()),
            _ => default,
        };
        push(next, &newer);
        if architecture == Architecture::X86_64 {
            push(X32_BIT, &Verdict::always(Action::Errno(ENOSYS).value()));
        }
        Ok(ranges)
    }

    /// The verdict on each call the rules name.
    fn calls(&self, architecture: Architecture) -> Result<BTreeMap<u32, Verdict>, SeccompError> {
        let mut calls = BTreeMap::new();
        for rule in &self.rules {
            for name in &rule.names {
                if let Some(condition) =
                    rule.conditions.iter().find(|condition| condition.argument > 5)
                {
                    let argument = condition.argument;
                    return Err(SeccompError::Argument { name: name.clone(), argument });
                }
                let Some(number) = architecture.number(name) else { continue };
                let verdict =
                    calls.entry(number).or_insert_with(|| Verdict::undecided(self.default.value()));
                verdict.add(&rule.conditions, rule.action.value());
            }
        }
        Ok(calls)
    }
}

const ENOSYS: u16 = 38;

impl Filter {
    /// How many instructions the kernel gets.
    pub fn len(&self) -> usize {
        self.instructions.len()
    }

    /// Never true: even an empty profile has its default.
    pub fn is_empty(&self) -> bool {
        self.instructions.is_empty()
    }

    /// Puts the calling thread, and every process it starts, under the filter for good. When
    /// the profile leaves calls to a listener, this is what to listen at.
    ///
    /// # Errors
    ///
    /// `EACCES` without `no_new_privs` or CAP_SYS_ADMIN; as `seccomp` otherwise.
    pub fn load(&self) -> io::Result<Option<OwnedFd>> {
        let program = libc::sock_fprog {
            len: libc::c_ushort::try_from(self.instructions.len()).map_err(io::Error::other)?,
            // The kernel only reads; the type has no const.
            filter: self.instructions.as_ptr().cast_mut().cast(),
        };
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        // SAFETY: `program` points to `len` instructions laid out as `sock_filter`, which
        // the kernel copies; both outlive the call.
        let answer = unsafe {
            libc::syscall(libc::SYS_seccomp, mode, self.flags, std::ptr::from_ref(&program))
        };
        if answer < 0 {
            return Err(io::Error::last_os_error());
        }
        if self.flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
            return Ok(None);
        }
        let raw = i32::try_from(answer).map_err(io::Error::other)?;
        // SAFETY: asked for a listener, the call answered its descriptor, which is new and
        // owned by nothing else.
        Ok(Some(unsafe { OwnedFd::from_raw_fd(raw) }))
    }
}

#[cfg(test)]
mod tests;

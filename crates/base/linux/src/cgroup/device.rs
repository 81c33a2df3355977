//! Which devices a group may use: rules, and the filter version 2 wants them as.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::CgroupError;

bitflags::bitflags! {
    /// What may be done with a device.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct DeviceAccess: u16 {
        /// Make its node.
        const MAKE = 1;
        /// Read it.
        const READ = 2;
        /// Write it.
        const WRITE = 4;
    }
}

impl DeviceAccess {
    /// Some of `rwm`.
    pub(super) fn letters(self) -> String {
        [(Self::READ, 'r'), (Self::WRITE, 'w'), (Self::MAKE, 'm')]
            .into_iter()
            .filter(|(bit, _)| self.contains(*bit))
            .map(|(_, letter)| letter)
            .collect()
    }
}

/// The kinds of device a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// Both kinds; major and minor are then ignored, as the kernel does.
    All,
    /// Block devices.
    Block,
    /// Character devices.
    Character,
}

/// One rule. Of several that match, the last decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// Whether it permits or forbids.
    pub allow: bool,
    /// The kind of device.
    pub kind: DeviceKind,
    /// The major number; all without.
    pub major: Option<u32>,
    /// The minor number; all without.
    pub minor: Option<u32>,
    /// What is permitted or forbidden.
    pub access: DeviceAccess,
}

impl DeviceRule {
    /// The rule as version 1 takes it: `c 1:3 rwm`, or `a` for everything.
    pub(super) fn v1_text(&self) -> String {
        let kind = match self.kind {
            DeviceKind::All => return "a".to_owned(),
            DeviceKind::Block => 'b',
            DeviceKind::Character => 'c',
        };
        let number =
            |value: Option<u32>| value.map_or_else(|| "*".to_owned(), |value| value.to_string());
        format!("{kind} {}:{} {}", number(self.major), number(self.minor), self.access.letters())
    }
}

/// One instruction of the kernel's filter machine.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    operation: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const MOVE: u8 = 0xb7;
const COPY: u8 = 0xbf;
const JUMP_NOT_EQUAL: u8 = 0x55;
const JUMP_EQUAL: u8 = 0x15;
const EXIT: u8 = 0x95;

const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

impl Instruction {
    fn new(operation: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Self {
        Self { operation, registers: (from << 4) | to, offset, immediate }
    }
}

/// The rules as a program: the last rule is tried first, and no match means no.
pub(super) fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut program = vec![
        // The context holds (access << 16 | kind), major and minor, 32 bits each.
        Instruction::new(LOAD_WORD, KIND, CONTEXT, 0, 0),
        Instruction::new(COPY, ACCESS, KIND, 0, 0),
        Instruction::new(AND, KIND, 0, 0, 0xffff),
        Instruction::new(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        Instruction::new(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        Instruction::new(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        program.extend(rule_block(rule));
        if rule.kind == DeviceKind::All {
            return program; // It always matches, and the kernel refuses code never reached.
        }
    }
    program.extend(answer(false));
    program
}

fn answer(allow: bool) -> [Instruction; 2] {
    [Instruction::new(MOVE, ANSWER, 0, 0, i32::from(allow)), Instruction::new(EXIT, 0, 0, 0, 0)]
}

/// Tests that jump behind the block when the rule does not match, then its answer.
fn rule_block(rule: &DeviceRule) -> Vec<Instruction> {
    // Each test: its instructions, of which the last is a jump still without its distance.
    let mut tests: Vec<Instruction> = Vec::new();
    let everything = DeviceAccess::all();
    let kind = match rule.kind {
        DeviceKind::All => None,
        DeviceKind::Block => Some(1),
        DeviceKind::Character => Some(2),
    };
    if let Some(kind) = kind {
        tests.push(Instruction::new(JUMP_NOT_EQUAL, KIND, 0, 0, kind));
        let numbers = [(MAJOR, rule.major), (MINOR, rule.minor)];
        for (register, number) in numbers {
            if let Some(number) = number {
                tests.push(Instruction::new(JUMP_NOT_EQUAL, register, 0, 0, number.cast_signed()));
            }
        }
        if rule.access != everything {
            tests.push(Instruction::new(COPY, SCRATCH, ACCESS, 0, 0));
            // Permitting needs all of what is asked; forbidding, any of it.
            let (mask, jump) = if rule.allow {
                (everything - rule.access, JUMP_NOT_EQUAL)
            } else {
                (rule.access, JUMP_EQUAL)
            };
            tests.push(Instruction::new(AND, SCRATCH, 0, 0, i32::from(mask.bits())));
            tests.push(Instruction::new(jump, SCRATCH, 0, 0, 0));
        }
    }
    let mut block = tests;
    block.extend(answer(rule.allow));
    let length = block.len();
    for (index, instruction) in block.iter_mut().enumerate() {
        if matches!(instruction.operation, JUMP_EQUAL | JUMP_NOT_EQUAL) {
            // A block has at most eight instructions.
            instruction.offset = i16::try_from(length - index - 1).unwrap_or(i16::MAX);
        }
    }
    block
}

/// `union bpf_attr` as far as loading a program reads it.
#[repr(C)]
#[derive(Default)]
struct Load {
    program_type: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// `union bpf_attr` as far as attaching a program reads it.
#[repr(C)]
#[derive(Default)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// `union bpf_attr` as far as detaching a program reads it.
type Detach = Attach;

/// `union bpf_attr` as far as opening a program by its number reads it.
#[repr(C)]
#[derive(Default)]
struct Open {
    number: u32,
    next: u32,
    flags: u32,
}

/// `union bpf_attr` as far as listing programs reads and writes it: kernels differ in how
/// much of the end they write, so all of it is here.
#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    numbers: u64,
    count: u32,
    padding: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

const PROGRAM_LOAD: libc::c_int = 5;
const PROGRAM_ATTACH: libc::c_int = 8;
const PROGRAM_DETACH: libc::c_int = 9;
const PROGRAM_OPEN: libc::c_int = 13;
const PROGRAM_QUERY: libc::c_int = 16;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Groups below may attach filters of their own; all of them must agree.
const ALLOW_MULTI: u32 = 2;
/// The most programs the kernel attaches to one group.
const MAX_PROGRAMS: usize = 64;

/// Makes the rules hold for a version 2 group and the groups below it.
///
/// They take the place of rules the group had: the new filter is attached before the
/// earlier ones are taken away, so there is no moment without any.
pub(super) fn attach(directory: &Path, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    let failed = |source| CgroupError::Devices { path: directory.to_owned(), source };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let group =
        rustix::fs::open(directory, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
    replace(&group, &program(rules)).map_err(failed)
}

fn replace(group: &OwnedFd, instructions: &[Instruction]) -> io::Result<()> {
    let earlier = attached(group)?;
    let program = load(instructions)?;
    let mut request = Attach {
        target: descriptor(group)?,
        program: descriptor(&program)?,
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: `Attach` is what the command reads; it holds no addresses.
    unsafe { bpf(PROGRAM_ATTACH, &mut request) }?;
    earlier.into_iter().try_for_each(|number| detach(group, number))
}

fn detach(group: &OwnedFd, number: u32) -> io::Result<()> {
    let gone = |error: &io::Error| error.raw_os_error() == Some(libc::ENOENT);
    let program = match open(number) {
        Ok(program) => program,
        Err(error) if gone(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut request = Detach {
        target: descriptor(group)?,
        program: descriptor(&program)?,
        kind: ATTACH_CGROUP_DEVICE,
        flags: 0,
    };
    // SAFETY: `Detach` is what the command reads; it holds no addresses.
    match unsafe { bpf(PROGRAM_DETACH, &mut request) } {
        Err(error) if !gone(&error) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The numbers of the filters attached to this very group.
fn attached(group: &OwnedFd) -> io::Result<Vec<u32>> {
    let mut numbers = vec![0u32; MAX_PROGRAMS];
    let mut request = Query {
        target: descriptor(group)?,
        kind: ATTACH_CGROUP_DEVICE,
        numbers: numbers.as_mut_ptr() as u64,
        count: u32::try_from(numbers.len()).map_err(io::Error::other)?,
        ..Query::default()
    };
    // SAFETY: `Query` is what the command reads and writes, and it points to room for
    // `count` numbers, which outlives the call.
    unsafe { bpf(PROGRAM_QUERY, &mut request) }?;
    numbers.truncate(usize::try_from(request.count).map_err(io::Error::other)?);
    Ok(numbers)
}

fn open(number: u32) -> io::Result<OwnedFd> {
    let mut request = Open { number, ..Open::default() };
    // SAFETY: `Open` is what the command reads; it holds no addresses.
    let answer = unsafe { bpf(PROGRAM_OPEN, &mut request) }?;
    // SAFETY: the call succeeded, so `answer` is open and owned by nothing else.
    Ok(unsafe { OwnedFd::from_raw_fd(answer) })
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut request = Load {
        program_type: TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..Load::default()
    };
    // SAFETY: `Load` is what the command reads, and it points to `count` instructions and
    // to a string with its NUL, which outlive the call.
    let answer = unsafe { bpf(PROGRAM_LOAD, &mut request) }?;
    // SAFETY: the call succeeded, so `answer` is open and owned by nothing else.
    Ok(unsafe { OwnedFd::from_raw_fd(answer) })
}

fn descriptor(fd: &OwnedFd) -> io::Result<u32> {
    u32::try_from(fd.as_raw_fd()).map_err(io::Error::other)
}

/// One command to the kernel's filter machine.
///
/// # Safety
///
/// `request` must have the layout that `command` reads and writes, and every address in it
/// must be good for what the command does there.
unsafe fn bpf<T>(command: libc::c_int, request: &mut T) -> io::Result<i32> {
    // SAFETY: the caller's promise; the size passed is that of `request`.
    let answer = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(request), size_of::<T>())
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(answer).map_err(io::Error::other)
}

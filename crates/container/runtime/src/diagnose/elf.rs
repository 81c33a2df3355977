//! What an ELF file asks of the system that executes it.
//!
//! Only headers and the dynamic section are read, each within a bound; whatever points
//! outside the file is as good as absent.

use super::bytes::Bytes;

/// As many bytes of program headers as the kernel takes.
const MAX_HEADERS: usize = 64 << 10;
const MAX_DYNAMIC: usize = 64 << 10;
const MAX_STRING: usize = 4096;
const MAX_NEEDED: usize = 256;

const LOAD: u32 = 1;
const DYNAMIC: u32 = 2;
const INTERPRETER: u32 = 3;

const NEEDED: u64 = 1;
const STRING_TABLE: u64 = 5;
const RPATH: u64 = 15;
const RUNPATH: u64 = 29;

/// A program or library.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elf {
    /// 64-bit, not 32-bit.
    pub wide: bool,
    /// Lowest byte first.
    pub little: bool,
    /// The processor's number.
    pub machine: u16,
    /// The loader that starts it.
    pub interpreter: Option<Vec<u8>>,
    /// Libraries it cannot start without.
    pub needed: Vec<Vec<u8>>,
    /// Where they and what they need are looked for before anywhere else.
    pub rpath: Option<Vec<u8>>,
    /// Where they are looked for before the usual directories.
    pub runpath: Option<Vec<u8>>,
    /// How long the file has to be.
    pub extent: u64,
}

/// Why a file that begins as ELF is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// It ends before its headers do.
    Short,
    /// Its headers say nothing that can be meant.
    Senseless,
}

/// A part of a file, in the byte order and width of that file.
struct Part {
    bytes: Vec<u8>,
    wide: bool,
    little: bool,
}

impl Part {
    fn number<const N: usize>(&self, at: usize) -> Option<u64> {
        let bytes: [u8; N] = self.bytes.get(at..at.checked_add(N)?)?.try_into().ok()?;
        let fold = |number: u64, byte: &u8| (number << 8) | u64::from(*byte);
        Some(if self.little {
            bytes.iter().rev().fold(0, fold)
        } else {
            bytes.iter().fold(0, fold)
        })
    }

    fn half(&self, at: usize) -> Option<u16> {
        self.number::<2>(at).and_then(|number| u16::try_from(number).ok())
    }

    fn word(&self, at: usize) -> Option<u32> {
        self.number::<4>(at).and_then(|number| u32::try_from(number).ok())
    }

    /// An address or a size: as wide as the file's class, at the place of that class.
    fn long(&self, wide: usize, narrow: usize) -> Option<u64> {
        if self.wide { self.number::<8>(wide) } else { self.number::<4>(narrow) }
    }
}

/// A piece of the file that goes to memory, or names something.
#[derive(Clone, Copy)]
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    length: u64,
}

/// Reads a file that begins with the magic number.
///
/// # Errors
///
/// When its headers are cut off or make no sense.
pub fn read(file: &dyn Bytes) -> Result<Elf, Broken> {
    let head = file.read(0, 64).or_else(|| file.read(0, 52)).ok_or(Broken::Short)?;
    let (class, order) = (head.get(4).copied(), head.get(5).copied());
    let wide = match class {
        Some(1) => false,
        Some(2) => true,
        Some(_) | None => return Err(Broken::Senseless),
    };
    let little = match order {
        Some(1) => true,
        Some(2) => false,
        Some(_) | None => return Err(Broken::Senseless),
    };
    let head = Part { bytes: head, wide, little };
    let machine = head.half(18).ok_or(Broken::Short)?;
    let segments = segments(file, &head)?;
    let ends = segments.iter().filter(|segment| segment.kind == LOAD);
    let extent = ends.map(|load| load.offset.saturating_add(load.length)).max().unwrap_or(0);
    let interpreter = segments.iter().find(|segment| segment.kind == INTERPRETER);
    let mut elf = Elf {
        wide,
        little,
        machine,
        interpreter: interpreter.and_then(|segment| name(file, *segment)),
        extent,
        ..Elf::default()
    };
    if let Some(dynamic) = segments.iter().find(|segment| segment.kind == DYNAMIC) {
        read_dynamic(file, *dynamic, &segments, &mut elf);
    }
    Ok(elf)
}

fn segments(file: &dyn Bytes, head: &Part) -> Result<Vec<Segment>, Broken> {
    let table = head.long(32, 28).ok_or(Broken::Short)?;
    let (size_at, count_at, least) = if head.wide { (54, 56, 56) } else { (42, 44, 32) };
    let size = usize::from(head.half(size_at).ok_or(Broken::Short)?);
    let count = usize::from(head.half(count_at).ok_or(Broken::Short)?);
    let length = size.checked_mul(count).filter(|&length| length <= MAX_HEADERS);
    let length = length.filter(|_| size >= least && count > 0).ok_or(Broken::Senseless)?;
    let bytes = file.read(table, length).ok_or(Broken::Short)?;
    let table = Part { bytes, wide: head.wide, little: head.little };
    let segment = |index: usize| {
        let at = index * size;
        Some(Segment {
            kind: table.word(at)?,
            offset: table.long(at + 8, at + 4)?,
            address: table.long(at + 16, at + 8)?,
            length: table.long(at + 32, at + 16)?,
        })
    };
    (0..count).map(|index| segment(index).ok_or(Broken::Short)).collect()
}

/// The text of a segment, up to its NUL.
fn name(file: &dyn Bytes, segment: Segment) -> Option<Vec<u8>> {
    let length = usize::try_from(segment.length).ok().filter(|&length| length <= MAX_STRING)?;
    let bytes = file.read(segment.offset, length)?;
    Some(up_to_nul(&bytes).to_vec())
}

fn up_to_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// What the dynamic section names, through its table of strings.
fn read_dynamic(file: &dyn Bytes, dynamic: Segment, segments: &[Segment], elf: &mut Elf) {
    let length = usize::try_from(dynamic.length).unwrap_or(MAX_DYNAMIC).min(MAX_DYNAMIC);
    let Some(bytes) = file.read(dynamic.offset, length) else { return };
    let part = Part { bytes, wide: elf.wide, little: elf.little };
    let size = if elf.wide { 16 } else { 8 };
    let entries = (0..length / size).map_while(|index| {
        let at = index * size;
        let entry = (part.long(at, at)?, part.long(at + 8, at + 4)?);
        (entry.0 != 0).then_some(entry)
    });
    let entries: Vec<(u64, u64)> = entries.collect();
    let table = entries.iter().find(|entry| entry.0 == STRING_TABLE);
    let Some(table) = table.and_then(|entry| place_of(entry.1, segments)) else { return };
    let text = |at: u64| string(file, table.checked_add(at)?);
    let first = |tag: u64| entries.iter().find(|entry| entry.0 == tag).and_then(|at| text(at.1));
    elf.rpath = first(RPATH);
    elf.runpath = first(RUNPATH);
    let needed = entries.iter().filter(|entry| entry.0 == NEEDED).take(MAX_NEEDED);
    elf.needed = needed.filter_map(|entry| text(entry.1)).collect();
}

/// Where in the file an address is.
fn place_of(address: u64, segments: &[Segment]) -> Option<u64> {
    let loads = segments.iter().filter(|segment| segment.kind == LOAD);
    loads
        .filter_map(|load| {
            let within = address.checked_sub(load.address)?;
            (within < load.length).then(|| load.offset.checked_add(within))?
        })
        .next()
}

/// A string that ends in NUL. Most are short, and a library's table of strings may be near
/// the end of the file.
fn string(file: &dyn Bytes, at: u64) -> Option<Vec<u8>> {
    let left = usize::try_from(file.length().checked_sub(at)?).unwrap_or(MAX_STRING);
    for length in [128, MAX_STRING] {
        let bytes = file.read(at, left.min(length))?;
        if bytes.contains(&0) {
            return Some(up_to_nul(&bytes).to_vec());
        }
    }
    None
}

/// The name of a processor.
pub fn machine_name(machine: u16, little: bool) -> String {
    let name = match machine {
        2 | 18 | 43 => "SPARC",
        3 => "32-bit x86 (i386)",
        8 => "MIPS",
        20 => "32-bit PowerPC",
        21 if little => "64-bit PowerPC (ppc64le)",
        21 => "64-bit PowerPC, big-endian (ppc64)",
        22 => "IBM Z (s390x)",
        40 => "32-bit ARM",
        62 => "x86_64",
        183 if little => "64-bit ARM (aarch64)",
        183 => "64-bit ARM, big-endian (aarch64_be)",
        243 => "RISC-V",
        258 => "LoongArch",
        _ => return format!("an unknown processor (ELF machine {machine})"),
    };
    name.to_owned()
}

/// Whether this machine executes such programs: its own, and its smaller brother's.
pub fn runs_here(elf: &Elf) -> bool {
    let native = match std::env::consts::ARCH {
        "x86_64" => elf.machine == 62 || (elf.machine == 3 && !elf.wide),
        "aarch64" => (elf.machine == 183 && elf.wide) || (elf.machine == 40 && !elf.wide),
        // Others are not told apart.
        _ => true,
    };
    native && elf.little == cfg!(target_endian = "little")
}

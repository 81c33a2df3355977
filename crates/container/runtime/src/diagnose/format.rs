//! What kind of program the bytes of a file are.

use super::bytes::Bytes;
use super::elf::{self, Broken, Elf};

/// As much of a script's first line as the kernel reads.
const MAX_LINE: usize = 256;

/// A file, by how it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// No bytes.
    Empty,
    /// `#!` and a line.
    Script(Script),
    /// A program for Linux.
    Elf(Elf),
    /// A program for Linux that is not whole.
    Broken(Broken),
    /// A program for Windows.
    Windows,
    /// A program for macOS.
    MacOs,
    /// Readable text.
    Text,
    /// None of these.
    Unknown,
}

/// The first line of a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// The program that reads it; may be empty.
    pub interpreter: Vec<u8>,
    /// All that follows, which the interpreter gets as one word.
    pub argument: Option<Vec<u8>>,
    /// The line ends as lines of Windows do, and the kernel takes that for part of a name.
    pub carriage_return: bool,
}

/// Looks at a file's first bytes, and at the headers if it is ELF.
pub fn inspect(file: &dyn Bytes) -> Format {
    let length = usize::try_from(file.length()).unwrap_or(MAX_LINE).min(MAX_LINE);
    let head = file.read(0, length).unwrap_or_default();
    if let Some(line) = head.strip_prefix(b"#!") {
        return Format::Script(script(line));
    }
    match head.as_slice() {
        [] => Format::Empty,
        [0x7f, b'E', b'L', b'F', ..] => match elf::read(file) {
            Ok(elf) => Format::Elf(elf),
            Err(broken) => Format::Broken(broken),
        },
        [b'M', b'Z', ..] => Format::Windows,
        [0xfe, 0xed, 0xfa, 0xce | 0xcf, ..]
        | [0xce | 0xcf, 0xfa, 0xed, 0xfe, ..]
        | [0xca, 0xfe, 0xba, 0xbe, ..] => Format::MacOs,
        text if text.iter().all(|&byte| is_text(byte)) => Format::Text,
        _ => Format::Unknown,
    }
}

fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..=0x7e | 0x80..)
}

/// Splits it as the kernel does: at the first blank, with those around taken off.
fn script(line: &[u8]) -> Script {
    let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let carriage_return = line.ends_with(b"\r");
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let line = line.trim_ascii();
    let mut parts = line.splitn(2, blank);
    let interpreter = parts.next().unwrap_or_default().to_vec();
    let argument = parts.next().map(<[u8]>::trim_ascii).filter(|rest| !rest.is_empty());
    Script { interpreter, argument: argument.map(<[u8]>::to_vec), carriage_return }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: Format) {
        assert_eq!(inspect(&bytes), expected, "for {:?}", String::from_utf8_lossy(bytes));
    }

    fn script(interpreter: &str, argument: Option<&str>, carriage_return: bool) -> Format {
        let argument = argument.map(|argument| argument.as_bytes().to_vec());
        Format::Script(Script { interpreter: interpreter.into(), argument, carriage_return })
    }

    #[test]
    fn a_file_is_known_by_how_it_begins() {
        check(b"", Format::Empty);
        check(b"echo hello\n", Format::Text);
        check(b"\x01\x02\x00", Format::Unknown);
        check(b"MZ\x90\x00", Format::Windows);
        check(&[0xcf, 0xfa, 0xed, 0xfe, 7], Format::MacOs);
        check(&[0xca, 0xfe, 0xba, 0xbe], Format::MacOs);
        check(b"\x7fELF", Format::Broken(Broken::Short));
        check(&[b"\x7fELF".as_slice(), &[0; 60]].concat(), Format::Broken(Broken::Senseless));
    }

    #[test]
    fn the_first_line_of_a_script_is_split_as_the_kernel_does() {
        check(b"#!/bin/sh\necho", script("/bin/sh", None, false));
        check(b"#! /bin/sh -e  -u \n", script("/bin/sh", Some("-e  -u"), false));
        check(b"#!/bin/sh", script("/bin/sh", None, false));
        check(b"#!/bin/sh\r\necho\r\n", script("/bin/sh", None, true));
        check(b"#!/usr/bin/env\tpython3\r\n", script("/usr/bin/env", Some("python3"), true));
        check(b"#!\n", script("", None, false));
    }

    #[test]
    fn the_program_that_runs_these_tests_is_for_this_machine() {
        let bytes = carrack_linux::fs::read_bounded("/proc/self/exe".as_ref(), 1 << 30).unwrap();
        let Format::Elf(elf) = inspect(&bytes.as_slice()) else { panic!("it is ELF") };
        assert!(elf::runs_here(&elf));
        assert!(elf.extent <= u64::try_from(bytes.len()).unwrap());
        assert!(elf.interpreter.is_some_and(|loader| loader.starts_with(b"/lib")));
        assert!(elf.needed.iter().any(|name| name.starts_with(b"libc.so")), "{:?}", elf.needed);
    }
}

//! Programs that would not run.

use std::cell::Cell;

use carrack_container_runtime::diagnose::bytes::Bytes;
use carrack_container_runtime::diagnose::format::{Format, inspect};
use carrack_container_runtime::diagnose::{cache, elf};

/// More than is ever read of one file.
const BOUND: usize = 2 << 20;

/// Bytes that count how many of them were read.
struct Counted<'a> {
    bytes: &'a [u8],
    read: Cell<usize>,
}

impl Bytes for Counted<'_> {
    fn length(&self) -> u64 {
        self.bytes.length()
    }

    fn read(&self, at: u64, length: usize) -> Option<Vec<u8>> {
        let piece = self.bytes.read(at, length)?;
        self.read.set(self.read.get() + piece.len());
        Some(piece)
    }
}

pub(crate) fn program(bytes: &[u8]) {
    let file = Counted { bytes, read: Cell::new(0) };
    if let Format::Elf(elf) = inspect(&file) {
        assert!(!elf::machine_name(elf.machine, elf.little).is_empty());
        elf::runs_here(&elf);
    }
    assert!(file.read.get() <= BOUND, "{} bytes were read", file.read.get());
    for path in cache::lookup(bytes, b"libfoo.so.1") {
        assert!(!path.contains(&0));
    }
}

//! A file as a place to read pieces from, so that what reads them can be tried on bytes.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

/// Something with a length, read a piece at a time.
pub trait Bytes {
    /// How many bytes there are.
    fn length(&self) -> u64;

    /// The piece, if all of it is there.
    fn read(&self, at: u64, length: usize) -> Option<Vec<u8>>;
}

impl Bytes for &[u8] {
    fn length(&self) -> u64 {
        u64::try_from(self.len()).unwrap_or(u64::MAX)
    }

    fn read(&self, at: u64, length: usize) -> Option<Vec<u8>> {
        let at = usize::try_from(at).ok()?;
        self.get(at..at.checked_add(length)?).map(<[u8]>::to_vec)
    }
}

/// A regular file.
pub(super) struct Opened {
    file: File,
    length: u64,
}

impl Opened {
    pub(super) fn new(file: OwnedFd) -> io::Result<Self> {
        let file = File::from(file);
        let length = file.metadata()?.len();
        Ok(Self { file, length })
    }
}

impl Bytes for Opened {
    fn length(&self) -> u64 {
        self.length
    }

    fn read(&self, at: u64, length: usize) -> Option<Vec<u8>> {
        let end = at.checked_add(u64::try_from(length).ok()?)?;
        if end > self.length {
            return None;
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, at).ok()?;
        Some(bytes)
    }
}

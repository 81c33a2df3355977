//! Tar archives: what a layer is made of.
//!
//! ```text
//! bytes ─Reader─▶ Entry, content; Entry, content; … ─Writer─▶ the same bytes each time
//! ```
//!
//! The reader holds at most [`LARGEST_HEADER`] bytes whatever the archive says, and
//! refuses what it would otherwise have to guess at. It judges no path: an
//! [`Entry`] says what the archive says, `../` and all, and whoever puts it on a
//! disk keeps it inside (`image/rootfs`).
//!
//! This is not left to the `tar` crate because that reads extended headers into
//! memory whole, and a few kilobytes of gzip can announce gigabytes of them.

mod header;
mod pax;
mod reader;
mod writer;

use std::collections::BTreeMap;
use std::io;

pub use reader::Reader;
pub use writer::Writer;

/// The size of everything in a tar archive is a multiple of this.
const BLOCK: usize = 512;

/// The most an extended header (a long name, attributes) may take.
pub const LARGEST_HEADER: u64 = 1024 * 1024;

/// One thing in an archive: a file, a directory, a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path as the archive has it.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Its permission bits, set-user-id and sticky bits among them.
    pub mode: u32,
    /// Its owner.
    pub uid: u64,
    /// Its group.
    pub gid: u64,
    /// How many bytes of content follow. Zero for all but files.
    pub size: u64,
    /// When it was changed, in seconds since 1970.
    pub modified: i64,
    /// Its extended attributes.
    pub attributes: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file with content.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to this text.
    Symlink(Vec<u8>),
    /// Another name for what is at this path of the archive.
    HardLink(Vec<u8>),
    /// A character device.
    Character(Device),
    /// A block device.
    Block(Device),
    /// A named pipe.
    Fifo,
}

/// Which device a device node stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// The driver.
    pub major: u32,
    /// The device among the driver's.
    pub minor: u32,
}

impl Entry {
    /// An entry owned by root, changed in 1970, without content.
    #[must_use]
    pub fn new(path: impl Into<Vec<u8>>, kind: Kind, mode: u32) -> Self {
        Self {
            path: path.into(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            size: 0,
            modified: 0,
            attributes: BTreeMap::new(),
        }
    }

    /// A file owned by root, changed in 1970, with `size` bytes of content.
    #[must_use]
    pub fn file(path: impl Into<Vec<u8>>, mode: u32, size: u64) -> Self {
        Self { size, ..Self::new(path, Kind::File, mode) }
    }
}

/// Why an archive could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The stream beneath failed.
    #[error("reading or writing a tar archive")]
    Io(#[from] io::Error),
    /// It ends in the middle of something.
    #[error("the tar archive ends in the middle of an entry")]
    Truncated,
    /// A header is not one.
    #[error("the tar archive has a header whose {0}")]
    Header(&'static str),
    /// A header is larger than any honest one.
    #[error(
        "the tar archive has an extended header of {0} bytes where at most {LARGEST_HEADER} are allowed"
    )]
    HeaderTooLarge(u64),
    /// Something we do not unpack.
    #[error("the tar archive has `{path}` as {what}, which is not supported")]
    Unsupported {
        /// The entry's path.
        path: String,
        /// What it is.
        what: String,
    },
    /// The writer was given less or more content than announced.
    #[error(
        "`{path}` has {found} bytes of content where its header says {expected}; was it changed meanwhile?"
    )]
    Content {
        /// The entry's path.
        path: String,
        /// What its header says.
        expected: u64,
        /// What there was.
        found: u64,
    },
}

/// A path out of an archive, for people to read: nothing in it can steer their
/// terminal.
#[must_use]
pub fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).escape_debug().to_string()
}

/// How many bytes of zeros follow `size` bytes of content.
fn padding(size: u64) -> u64 {
    const BLOCK_SIZE: u64 = BLOCK as u64;
    (BLOCK_SIZE - size % BLOCK_SIZE) % BLOCK_SIZE
}

#[cfg(test)]
mod tests;

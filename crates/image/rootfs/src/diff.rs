//! What a container or a build step has written, as a layer.
//!
//! The upper directory of an overlay holds exactly the changes. Walking it in the
//! order of names, with times no later than one given, yields the same bytes for
//! the same changes.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use carrack_oci::archive::{ArchiveError, Device, Entry, Kind, Writer, shown};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, major, minor, openat, readlinkat, statat,
};

use crate::attributes;
use crate::path::open_directory;

/// How a layer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiffOptions {
    /// No entry is dated later than this, in seconds since 1970.
    pub source_date_epoch: i64,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// How many entries. None means that nothing has changed.
    pub entries: u64,
    /// How many bytes of content.
    pub bytes: u64,
}

/// Writes what is in `upper`, the upper directory of an overlay or any other tree,
/// as a layer.
///
/// Whiteouts and opaque directories become `.wh.` names, further names of a file
/// become hard links. Sockets are left out: no archive can hold one. The root
/// directory itself is not an entry.
///
/// # Errors
///
/// When something cannot be read, or has a name that would mean a whiteout.
pub fn diff(upper: &Path, output: impl Write, options: &DiffOptions) -> Result<Written, DiffError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(upper, flags, Mode::empty()).map_err(|source| DiffError::Read {
        path: upper.display().to_string(),
        source: source.into(),
    })?;
    let mut walk = Walk {
        writer: Writer::new(output),
        options,
        linked: HashMap::new(),
        written: Written::default(),
    };
    walk.directory(&root, &mut Vec::new())?;
    walk.writer.finish().map_err(DiffError::Archive)?;
    Ok(walk.written)
}

struct Walk<'a, W> {
    writer: Writer<W>,
    options: &'a DiffOptions,
    /// Where files with several names were seen first, by device and inode.
    linked: HashMap<(u64, u64), Vec<u8>>,
    written: Written,
}

/// Something found in the tree: where it is, and what the kernel says of it.
struct Found<'a> {
    directory: BorrowedFd<'a>,
    name: &'a OsStr,
    stat: Stat,
}

impl<W: Write> Walk<'_, W> {
    /// Writes everything in `directory`, whose path in the archive is `path`.
    fn directory(&mut self, directory: &OwnedFd, path: &mut Vec<u8>) -> Result<(), DiffError> {
        let names = names(directory).map_err(|source| unreadable(path, source))?;
        for name in names {
            let length = path.len();
            path.extend_from_slice(name.as_bytes());
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let stat = statat(directory, &name, flags)
                .map_err(|source| unreadable(path, source.into()))?;
            self.found(&Found { directory: directory.as_fd(), name: &name, stat }, path)?;
            path.truncate(length);
        }
        Ok(())
    }

    fn found(&mut self, found: &Found<'_>, path: &mut Vec<u8>) -> Result<(), DiffError> {
        if found.name.as_bytes().starts_with(b".wh.") {
            return Err(DiffError::LooksLikeWhiteout { path: shown(path) });
        }
        match FileType::from_raw_mode(found.stat.st_mode) {
            FileType::Directory => self.subdirectory(found, path),
            FileType::RegularFile => self.file(found, path),
            FileType::Symlink => {
                let target = readlinkat(found.directory, found.name, Vec::new())
                    .map_err(|source| unreadable(path, source.into()))?;
                self.node(found, path, Kind::Symlink(target.into_bytes()))
            }
            FileType::CharacterDevice if found.stat.st_rdev == 0 => self.whiteout(found, path),
            FileType::CharacterDevice => {
                self.node(found, path, Kind::Character(device(&found.stat)))
            }
            FileType::BlockDevice => self.node(found, path, Kind::Block(device(&found.stat))),
            FileType::Fifo => self.node(found, path, Kind::Fifo),
            FileType::Socket | FileType::Unknown => Ok(()),
        }
    }

    fn subdirectory(&mut self, found: &Found<'_>, path: &mut Vec<u8>) -> Result<(), DiffError> {
        let read = |path: &[u8], source| unreadable(path, source);
        path.push(b'/');
        let entry = self.entry(found, path, Kind::Directory)?;
        self.append(&entry)?;
        let is_opaque = attributes::is_opaque(found.directory, found.name)
            .map_err(|source| read(path, source))?;
        if is_opaque {
            let marker = [path.as_slice(), b".wh..wh..opq"].concat();
            self.append(&Entry::new(marker, Kind::File, 0o644))?;
        }
        let directory = open_directory(found.directory, Path::new(found.name))
            .map_err(|source| read(path, source.into()))?;
        self.directory(&directory, path)
    }

    fn file(&mut self, found: &Found<'_>, path: &[u8]) -> Result<(), DiffError> {
        if let Some(first) = self.first_name(found, path) {
            return self.node(found, path, Kind::HardLink(first));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let content = openat(found.directory, found.name, flags, Mode::empty())
            .map_err(|source| unreadable(path, source.into()))?;
        let mut entry = self.entry(found, path, Kind::File)?;
        entry.size = u64::try_from(found.stat.st_size).unwrap_or_default();
        self.written.entries += 1;
        self.written.bytes = self.written.bytes.saturating_add(entry.size);
        self.writer.append(&entry, File::from(content)).map_err(DiffError::Archive)
    }

    fn node(&mut self, found: &Found<'_>, path: &[u8], kind: Kind) -> Result<(), DiffError> {
        let is_link = matches!(kind, Kind::Symlink(_));
        let mut entry = self.entry(found, path, kind)?;
        if is_link {
            entry.mode = 0o777;
        }
        self.append(&entry)
    }

    fn whiteout(&mut self, found: &Found<'_>, path: &[u8]) -> Result<(), DiffError> {
        let above = path.len().saturating_sub(found.name.len());
        let above = path.get(..above).unwrap_or_default();
        let name = [above, b".wh.", found.name.as_bytes()].concat();
        self.append(&Entry::new(name, Kind::File, 0o644))
    }

    fn append(&mut self, entry: &Entry) -> Result<(), DiffError> {
        self.written.entries += 1;
        self.writer.append_empty(entry).map_err(DiffError::Archive)
    }

    fn entry(&self, found: &Found<'_>, path: &[u8], kind: Kind) -> Result<Entry, DiffError> {
        let attributes = match kind {
            // Links have none that travel, and further names of a file share its own.
            Kind::Symlink(_) | Kind::HardLink(_) => Default::default(),
            _ => attributes::get(found.directory, found.name)
                .map_err(|source| unreadable(path, source))?,
        };
        Ok(Entry {
            uid: u64::from(found.stat.st_uid),
            gid: u64::from(found.stat.st_gid),
            modified: found.stat.st_mtime.min(self.options.source_date_epoch),
            attributes,
            ..Entry::new(path, kind, found.stat.st_mode & 0o7777)
        })
    }

    /// The name under which a file with several was written before.
    fn first_name(&mut self, found: &Found<'_>, path: &[u8]) -> Option<Vec<u8>> {
        if found.stat.st_nlink < 2 {
            return None;
        }
        let file = (found.stat.st_dev, found.stat.st_ino);
        let first = self.linked.get(&file).cloned();
        if first.is_none() {
            self.linked.insert(file, path.to_vec());
        }
        first
    }
}

fn names(directory: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort();
    Ok(names)
}

fn device(stat: &Stat) -> Device {
    Device { major: major(stat.st_rdev), minor: minor(stat.st_rdev) }
}

fn unreadable(path: &[u8], source: io::Error) -> DiffError {
    DiffError::Read { path: shown(path), source }
}

/// Why a layer could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiffError {
    /// Something in the tree cannot be read.
    #[error("reading `{path}` for a layer")]
    Read {
        /// What.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Something has a name that means a whiteout in a layer.
    #[error(
        "`{path}` cannot be part of a layer: a name that starts with `.wh.` hides another; rename it"
    )]
    LooksLikeWhiteout {
        /// What.
        path: String,
    },
    /// The archive cannot be written.
    #[error("writing a layer")]
    Archive(#[source] ArchiveError),
}

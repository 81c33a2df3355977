//! Picked files put into a root filesystem.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use carrack_linux::rooted::{Entry, RootedDir};
use carrack_oci::Hasher;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::{FilesError, Kind, Node, Pick, Tree};

/// Where things go and how they are dressed.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    /// Absolute in the image; a trailing slash says that it is a directory.
    pub(crate) destination: String,
    /// Owner and group of everything brought in; their own when absent.
    pub(crate) owner: Option<(u32, u32)>,
    /// Mode of everything brought in; their own when absent.
    pub(crate) mode: Option<u32>,
    /// The time things get that have none of their own, and the latest any may have.
    pub(crate) epoch: i64,
}

/// Writes into a root filesystem.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    pub(crate) root: &'a RootedDir,
    pub(crate) placement: &'a Placement,
}

/// Mode, owner and time of something written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dress {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) modified: i64,
}

impl Writer<'_> {
    /// Puts every pick in its place.
    pub(crate) fn place(&self, picks: &[Pick], tree: &Tree) -> Result<(), FilesError> {
        picks.iter().try_for_each(|pick| self.place_one(pick, tree))
    }

    /// Puts a file whose content is at hand in its place.
    pub(crate) fn place_document(&self, name: &str, content: &[u8]) -> Result<(), FilesError> {
        let path = self.file_path(OsStr::new(name))?;
        let (uid, gid) = self.placement.owner.unwrap_or((0, 0));
        let mode = self.placement.mode.unwrap_or(0o644);
        let dress = Dress { mode, uid, gid, modified: self.placement.epoch };
        self.parent(&path)?;
        let mut file = self.create(&path)?;
        let done = file.write_all(content).and_then(|()| dress.file(&file));
        done.map_err(FilesError::write(&path))
    }

    /// Makes the directory and those above it; what is there already stays as it is.
    pub(crate) fn directory(&self, path: &Path) -> Result<(), FilesError> {
        let mut made = PathBuf::new();
        for part in path.components() {
            let Component::Normal(part) = part else { continue };
            made.push(part);
            if self.root.directory(&made).is_ok() {
                continue;
            }
            let (uid, gid) = self.placement.owner.unwrap_or((0, 0));
            let dress = Dress { mode: 0o755, uid, gid, modified: self.placement.epoch };
            let make = || -> io::Result<()> {
                dress.directory(&self.root.make_directories(&made, 0o755)?)
            };
            make().map_err(|source| match source.kind() {
                io::ErrorKind::NotADirectory => FilesError::InTheWay {
                    path: made.clone(),
                    found: "no directory",
                    wanted: "a directory",
                },
                _ => FilesError::Write { path: made.clone(), source },
            })?;
        }
        Ok(())
    }

    fn place_one(&self, pick: &Pick, tree: &Tree) -> Result<(), FilesError> {
        if !pick.is_directory {
            let path = self.file_path(&pick.name)?;
            self.parent(&path)?;
            return pick.nodes.iter().try_for_each(|node| self.node(node, &path, tree));
        }
        let base = self.destination();
        self.directory(&base)?;
        for node in &pick.nodes {
            self.node(node, &base.join(&node.below), tree)?;
        }
        // Times last, from the inside out, since writing into a directory changes its own.
        for node in pick.nodes.iter().rev().filter(|node| node.kind == Kind::Directory) {
            let path = base.join(&node.below);
            let dress = || -> io::Result<()> {
                self.dress(node, tree).directory(&self.root.directory(&path)?)
            };
            dress().map_err(FilesError::write(&path))?;
        }
        Ok(())
    }

    /// The destination relative to the root.
    pub(super) fn destination(&self) -> PathBuf {
        let destination = self.placement.destination.trim_matches('/');
        if destination.is_empty() { PathBuf::from(".") } else { PathBuf::from(destination) }
    }

    /// Where a single file of that name goes.
    fn file_path(&self, name: &OsStr) -> Result<PathBuf, FilesError> {
        let destination = self.destination();
        if self.placement.destination.ends_with('/') {
            self.directory(&destination)?;
            return Ok(destination.join(name));
        }
        if self.root.directory(&destination).is_ok() {
            return Ok(destination.join(name));
        }
        Ok(destination)
    }

    pub(super) fn parent(&self, path: &Path) -> Result<(), FilesError> {
        path.parent().map_or(Ok(()), |parent| self.directory(parent))
    }

    fn dress(&self, node: &Node, tree: &Tree) -> Dress {
        let (uid, gid) = self.placement.owner.unwrap_or((node.uid, node.gid));
        let epoch = self.placement.epoch;
        let modified = if tree.is_image { node.modified.min(epoch) } else { epoch };
        Dress { mode: self.placement.mode.unwrap_or(node.mode), uid, gid, modified }
    }

    fn node(&self, node: &Node, path: &Path, tree: &Tree) -> Result<(), FilesError> {
        let dress = self.dress(node, tree);
        match &node.kind {
            Kind::Directory => self.own_directory(path),
            Kind::Link { target } => self.link(path, target, dress),
            Kind::File { .. } => self.file(node, path, tree, dress),
        }
    }

    /// A directory that is brought in. A link to a directory stands for it.
    pub(super) fn own_directory(&self, path: &Path) -> Result<(), FilesError> {
        if self.root.directory(path).is_ok() {
            return Ok(());
        }
        let entry = self.entry(path)?;
        match rustix::fs::mkdirat(&entry.directory, &entry.name, Mode::from_raw_mode(0o755)) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => Err(FilesError::InTheWay {
                path: path.to_owned(),
                found: "no directory",
                wanted: "a directory",
            }),
            Err(error) => Err(FilesError::write(path)(error.into())),
        }
    }

    pub(super) fn link(&self, path: &Path, target: &OsStr, dress: Dress) -> Result<(), FilesError> {
        let entry = self.cleared(path)?;
        let make = || -> io::Result<()> {
            rustix::fs::symlinkat(target, &entry.directory, &entry.name)?;
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let (uid, gid) = (Uid::from_raw(dress.uid), Gid::from_raw(dress.gid));
            rustix::fs::chownat(&entry.directory, &entry.name, Some(uid), Some(gid), flags)?;
            Ok(rustix::fs::utimensat(&entry.directory, &entry.name, &dress.times(), flags)?)
        };
        make().map_err(FilesError::write(path))
    }

    fn file(&self, node: &Node, path: &Path, tree: &Tree, dress: Dress) -> Result<(), FilesError> {
        let mut from = tree.open(&node.path)?;
        let mut to = self.create(path)?;
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 128 * 1024];
        loop {
            let count = from.read(&mut buffer).map_err(tree.failed(&node.path))?;
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
            hasher.update(bytes);
            to.write_all(bytes).map_err(FilesError::write(path))?;
        }
        if !matches!(&node.kind, Kind::File { digest, .. } if *digest == hasher.finish()) {
            return Err(FilesError::Changed(node.path.clone()));
        }
        let finish = || -> io::Result<()> {
            dress.file(&to)?;
            if let Some(capability) = &node.capability {
                let name = "security.capability";
                rustix::fs::fsetxattr(&to, name, capability, XattrFlags::empty())?;
            }
            Ok(())
        };
        finish().map_err(FilesError::write(path))
    }

    /// A new, empty file at `path` in place of what was there.
    pub(super) fn create(&self, path: &Path) -> Result<File, FilesError> {
        let entry = self.cleared(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(0o600);
        let file = rustix::fs::openat(&entry.directory, &entry.name, flags | OFlags::CLOEXEC, mode);
        file.map(File::from).map_err(|error| FilesError::write(path)(error.into()))
    }

    /// The place of a file or link, with what was there removed.
    pub(super) fn cleared(&self, path: &Path) -> Result<Entry, FilesError> {
        let entry = self.entry(path)?;
        let is_directory = entry
            .stat()
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        if is_directory {
            let (found, wanted) = ("a directory", "a file or link");
            return Err(FilesError::InTheWay { path: path.to_owned(), found, wanted });
        }
        entry.remove_file().map_err(FilesError::write(path))?;
        Ok(entry)
    }

    pub(super) fn entry(&self, path: &Path) -> Result<Entry, FilesError> {
        self.root.entry(path).map_err(FilesError::write(path))
    }
}

impl Dress {
    fn times(&self) -> Timestamps {
        let time = Timespec { tv_sec: self.modified, tv_nsec: 0 };
        Timestamps { last_access: time, last_modification: time }
    }

    /// Owner before mode, since a change of owner takes set-user-id away.
    pub(super) fn file(&self, file: &impl AsFd) -> io::Result<()> {
        rustix::fs::fchown(file, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?;
        rustix::fs::fchmod(file, Mode::from_raw_mode(self.mode))?;
        Ok(rustix::fs::futimens(file, &self.times())?)
    }

    pub(super) fn directory(&self, directory: &impl AsFd) -> io::Result<()> {
        self.file(directory)
    }
}

/// Whether a path of an archive stays below where it is unpacked, and the path without `.`.
pub(super) fn inside(path: &[u8]) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(path)).components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

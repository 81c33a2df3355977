//! A directory that files are taken from.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use carrack_linux::rooted::RootedDir;
use carrack_oci::{Digest, Hasher};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use super::FilesError;
use crate::frontend::dockerfile::ignore::Ignore;

/// The ignore file's name at the root of a context.
const IGNORE_FILE: &str = ".dockerignore";

/// More than any ignore file needs.
const LARGEST_IGNORE_FILE: u64 = 1024 * 1024;

/// A directory to take files from: a build context, or an image's root.
#[derive(Debug)]
pub(crate) struct Tree {
    root: RootedDir,
    /// What people call it.
    pub(super) name: String,
    pub(super) ignore: Ignore,
    /// Whether owners and times are part of what it holds. A build context's are
    /// those of whoever checked it out, and mean nothing.
    pub(super) is_image: bool,
}

impl Tree {
    /// A build context, less what its ignore file names.
    ///
    /// An ignore file beside the Dockerfile, `NAME.dockerignore`, goes before the
    /// context's own.
    pub(crate) fn context(
        directory: &Path,
        beside: Option<&Path>,
        name: &str,
    ) -> Result<Self, FilesError> {
        let failed =
            |source| FilesError::Read { path: directory.to_owned(), tree: name.to_owned(), source };
        let root = RootedDir::open(directory).map_err(failed)?;
        let own = directory.join(IGNORE_FILE);
        let mut ignore = Ignore::default();
        for path in beside.into_iter().chain([own.as_path()]) {
            match carrack_linux::fs::read_bounded(path, LARGEST_IGNORE_FILE) {
                Ok(bytes) => {
                    ignore = Ignore::parse(&String::from_utf8_lossy(&bytes))?;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => {
                    let (path, tree) = (path.to_owned(), name.to_owned());
                    return Err(FilesError::Read { path, tree, source });
                }
            }
        }
        Ok(Self { root, name: name.to_owned(), ignore, is_image: false })
    }

    /// The root filesystem of an image or an earlier stage.
    pub(crate) fn image(root: RootedDir, name: &str) -> Self {
        Self { root, name: name.to_owned(), ignore: Ignore::default(), is_image: true }
    }

    pub(super) fn failed(&self, path: &Path) -> impl FnOnce(io::Error) -> FilesError {
        let (path, tree) = (path.to_owned(), self.name.clone());
        move |source| FilesError::Read { path, tree, source }
    }

    /// What is at `path`; a link at its end is followed when asked. `None`: nothing is.
    pub(super) fn stat(&self, path: &Path, follow: bool) -> Result<Option<Stat>, FilesError> {
        let handle = if follow { self.root.handle(path) } else { self.root.handle_nofollow(path) };
        let stat = handle.and_then(|handle| Ok(rustix::fs::fstat(handle)?));
        match stat {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(None),
            Err(error) => Err(self.failed(path)(error)),
        }
    }

    /// The names in a directory, sorted.
    pub(super) fn names(&self, directory: &Path) -> Result<Vec<OsString>, FilesError> {
        let list = || -> io::Result<Vec<OsString>> {
            let mut names = Vec::new();
            for entry in rustix::fs::Dir::read_from(self.root.directory(directory)?)? {
                let name = entry?.file_name().to_bytes().to_vec();
                if name != b"." && name != b".." {
                    names.push(OsString::from_vec(name));
                }
            }
            names.sort();
            Ok(names)
        };
        list().map_err(self.failed(directory))
    }

    pub(super) fn link_target(&self, path: &Path) -> Result<OsString, FilesError> {
        let read = || -> io::Result<OsString> {
            let entry = self.root.entry(path)?;
            let target = rustix::fs::readlinkat(&entry.directory, &entry.name, Vec::new())?;
            Ok(OsString::from_vec(target.into_bytes()))
        };
        read().map_err(self.failed(path))
    }

    /// Opens a regular file; a pipe put in its place does not make us wait.
    pub(super) fn open(&self, path: &Path) -> Result<std::fs::File, FilesError> {
        let open = || -> io::Result<OwnedFd> {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let file = self.root.open_with(path, flags, Mode::empty())?;
            let stat = rustix::fs::statat(&file, c"", AtFlags::EMPTY_PATH)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Err(io::Error::other("is not a regular file any more"));
            }
            Ok(file)
        };
        open().map(Into::into).map_err(self.failed(path))
    }

    /// Size and digest of a file's content.
    pub(super) fn digest(&self, path: &Path) -> Result<(u64, Digest), FilesError> {
        let mut file = self.open(path)?;
        let mut hasher = Hasher::default();
        let mut size = 0;
        let mut buffer = vec![0; 128 * 1024];
        loop {
            let count = file.read(&mut buffer).map_err(self.failed(path))?;
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
            hasher.update(bytes);
            size += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        }
        Ok((size, hasher.finish()))
    }

    /// The capabilities a file carries. Only an image's count.
    pub(super) fn capability(&self, path: &Path) -> Option<Vec<u8>> {
        if !self.is_image {
            return None;
        }
        let file = self.open(path).ok()?;
        let mut value = [0; 64];
        let length = rustix::fs::fgetxattr(&file, "security.capability", &mut value).ok()?;
        value.get(..length).map(<[u8]>::to_vec)
    }

    /// The whole content of a small file. `None`: there is none.
    pub(super) fn read_small(
        &self,
        path: &Path,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, FilesError> {
        if self.stat(path, true)?.is_none() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        self.open(path)?.take(limit).read_to_end(&mut bytes).map_err(self.failed(path))?;
        Ok(Some(bytes))
    }
}

/// `path` below the root, without `.` and `..`.
pub(super) fn cleaned(path: &str) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    clean
}

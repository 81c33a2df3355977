//! Directories and files of the host that the caller trusts.
//!
//! ```text
//! TrustedDir ──openat(one name, never a link)──▶ its files
//! ```
//!
//! A path is looked up once, when the directory is opened; from then on its files are
//! named by single components that are never followed as links. Whoever may write to the
//! parent directories is trusted. For directories that somebody else fills there is
//! [`crate::rooted`].

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

/// A handle on what a trusted path leads to, for `fstat` and for copying its mount.
///
/// # Errors
///
/// As `open`.
pub fn handle(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// As [`handle`], of what has the name itself, even when that is a symbolic link.
///
/// # Errors
///
/// As `open`.
pub fn handle_nofollow(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// As [`handle`], of a directory.
///
/// # Errors
///
/// As `open`; `ENOTDIR` when it is something else.
pub fn directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// The path without links and dots.
///
/// # Errors
///
/// When there is nothing of that name.
pub fn canonical(path: &Path) -> io::Result<PathBuf> {
    std::fs::canonicalize(path)
}

/// An empty input.
///
/// # Errors
///
/// When `/dev/null` cannot be opened.
pub fn empty_input() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The names in the directory at `path`; none when it does not exist.
///
/// # Errors
///
/// As `open` and `getdents`.
pub fn names(path: &Path) -> io::Result<Vec<OsString>> {
    match std::fs::read_dir(path) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// A directory of the host, held open.
#[derive(Debug)]
pub struct TrustedDir {
    path: PathBuf,
    handle: OwnedFd,
}

impl TrustedDir {
    /// The directory at `path`.
    ///
    /// # Errors
    ///
    /// As `open`; `ENOTDIR` when it is something else.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = rustix::fs::open(&path, flags, Mode::empty())?;
        Ok(Self { path, handle })
    }

    /// Makes the directory at `path`, which must not exist, for its owner alone; the
    /// directories above are made too if they are missing.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`]; as `mkdir`.
    pub fn make(path: PathBuf) -> io::Result<Self> {
        let private = Mode::from_raw_mode(0o700);
        match rustix::fs::mkdir(&path, private) {
            Err(Errno::NOENT) => {
                use std::os::unix::fs::DirBuilderExt;
                let above = path.parent().ok_or(Errno::NOENT)?;
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(above)?;
                rustix::fs::mkdir(&path, private)?;
            }
            made => made?,
        }
        Self::open(path)
    }

    /// Where it was when it was opened, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file `name`, which may not be longer than `limit` bytes.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::FileTooLarge`] when there is more; as `openat`.
    pub fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        let file = std::fs::File::from(self.file(name, OFlags::RDONLY)?);
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
            let message = format!("{name} is longer than {limit} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        Ok(bytes)
    }

    /// Makes the file `name`, which must not exist, with `bytes`, for its owner alone.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`]; as `openat`.
    pub fn create(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let file = self.file(name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
        std::fs::File::from(file).write_all(bytes)
    }

    /// Replaces the file `name`, for its owner alone; readers see the old bytes or the new,
    /// never a part. After a power loss the old ones may be back.
    ///
    /// # Errors
    ///
    /// As `openat` and `renameat`; the old file is then untouched.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        component(name)?;
        let temporary = format!(".{name}.{}.tmp", std::process::id());
        let replaced = match self.create(&temporary, bytes) {
            // Left by a process of an earlier boot that had our id.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.remove(&temporary)?;
                self.create(&temporary, bytes)
            }
            created => created,
        }
        .and_then(|()| Ok(rustix::fs::renameat(self, &*temporary, self, name)?));
        replaced.inspect_err(|_| {
            // That error is the one to report.
            self.remove(&temporary).ok();
        })
    }

    /// Whether it has something called `name`.
    pub fn has(&self, name: &str) -> bool {
        rustix::fs::statat(self, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Removes the file `name`.
    ///
    /// # Errors
    ///
    /// As `unlinkat`.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        component(name)?;
        Ok(rustix::fs::unlinkat(self, name, AtFlags::empty())?)
    }

    /// Makes the directory `name`, which must not exist, with these permissions whatever the
    /// mask of this process.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`]; as `mkdirat`.
    pub fn make_directory(&self, name: &str, permissions: u32) -> io::Result<()> {
        component(name)?;
        let mode = Mode::from_raw_mode(permissions);
        rustix::fs::mkdirat(self, name, mode)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::fchmod(rustix::fs::openat(self, name, flags, Mode::empty())?, mode)?)
    }

    /// Removes the directory `name`, which must be empty.
    ///
    /// # Errors
    ///
    /// As `unlinkat`.
    pub fn remove_directory(&self, name: &str) -> io::Result<()> {
        component(name)?;
        Ok(rustix::fs::unlinkat(self, name, AtFlags::REMOVEDIR)?)
    }

    /// Removes the directory with all that is in it; links in it are removed, not followed.
    ///
    /// # Errors
    ///
    /// As `unlinkat`. That it is gone already is fine.
    pub fn remove_all(self) -> io::Result<()> {
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn file(&self, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
        component(name)?;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(self, name, flags, Mode::from_raw_mode(0o600))?)
    }
}

impl AsFd for TrustedDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

/// A name of one component, which cannot lead elsewhere.
fn component(name: &str) -> io::Result<()> {
    let name = OsStr::new(name).as_bytes();
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
        let message = "the name of a file in a directory has one component";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (tempfile::TempDir, TrustedDir) {
        let place = tempfile::tempdir().unwrap();
        let made = TrustedDir::make(place.path().join("a/b")).unwrap();
        (place, made)
    }

    #[test]
    fn a_directory_is_made_once_with_what_is_missing_above_it() {
        let (place, made) = made();
        assert_eq!(made.path(), place.path().join("a/b"));
        let again = TrustedDir::make(place.path().join("a/b")).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(names(&place.path().join("a")).unwrap(), ["b"]);
        assert!(names(&place.path().join("none")).unwrap().is_empty());
    }

    #[test]
    fn files_are_created_replaced_and_removed_in_it_wherever_its_path_leads_by_now() {
        let (place, made) = made();
        made.create("f", b"one").unwrap();
        assert_eq!(made.create("f", b"x").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        std::fs::rename(place.path().join("a"), place.path().join("moved")).unwrap();
        made.replace("f", b"two").unwrap();
        assert_eq!(made.read("f", 3).unwrap(), b"two");
        assert_eq!(made.read("f", 2).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert!(made.has("f"));
        assert_eq!(names(&place.path().join("moved/b")).unwrap(), ["f"]);
        made.remove("f").unwrap();
        assert!(!made.has("f"));
    }

    #[test]
    fn a_name_is_no_path_and_a_link_is_not_followed() {
        let (place, made) = made();
        for name in ["", ".", "..", "../f", "/etc/passwd"] {
            assert!(made.read(name, 1).is_err(), "for {name:?}");
            assert!(made.create(name, b"x").is_err(), "for {name:?}");
        }
        std::fs::write(place.path().join("f"), b"x").unwrap();
        std::os::unix::fs::symlink("../../f", place.path().join("a/b/link")).unwrap();
        assert_eq!(made.read("link", 1).unwrap_err().raw_os_error(), Some(libc::ELOOP));
    }
}

//! Paths as archives have them, and the directories they lead to.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, fchmod, mkdirat, openat2};
use rustix::io::Errno;

/// The mode of directories that an archive implies and does not have.
const MODE: Mode = Mode::from_raw_mode(0o755);

/// A path with `..` in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Escapes;

/// The path beneath the root that `text` means: slashes in front, double slashes
/// and `.` dropped. Empty for the root itself.
pub(crate) fn beneath(text: &[u8]) -> Result<PathBuf, Escapes> {
    let mut path = PathBuf::new();
    for part in text.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(Escapes),
            name => path.push(OsStr::from_bytes(name)),
        }
    }
    Ok(path)
}

/// Opens the directory at `path` beneath `root` without passing through any link.
pub(crate) fn open_directory(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, flags, Mode::empty(), resolve)
}

/// As [`open_directory`], making what is missing. `made` hears of each directory
/// that had to be made.
pub(crate) fn make_directories(
    root: BorrowedFd<'_>,
    path: &Path,
    mut made: impl FnMut(PathBuf),
) -> io::Result<OwnedFd> {
    match open_directory(root, path) {
        Err(Errno::NOENT) => {}
        other => return Ok(other?),
    }
    let mut directory = open_directory(root, Path::new(""))?;
    let mut so_far = PathBuf::new();
    for name in path {
        so_far.push(name);
        let is_new = match mkdirat(&directory, name, MODE) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        directory = open_directory(directory.as_fd(), Path::new(name))?;
        if is_new {
            // Whatever the umask says.
            fchmod(&directory, MODE)?;
            made(so_far.clone());
        }
    }
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_beneath_the_root_or_not_at_all() {
        let check = |text: &str, path: &str| {
            assert_eq!(beneath(text.as_bytes()).unwrap(), Path::new(path), "{text}");
        };
        check("./a//b/./c/", "a/b/c");
        check("/etc/passwd", "etc/passwd");
        check("./", "");
        check("/", "");
        check("..a/b..", "..a/b..");
        for text in ["..", "../a", "a/../b", "a/..", "/../a", "./../a"] {
            assert_eq!(beneath(text.as_bytes()), Err(Escapes), "{text}");
        }
    }
}

//! Files that survive a crash: atomic writes, directory fsync.
//!
//! Everything here takes a path its caller trusts. A path that somebody else may
//! have prepared (inside a container, inside a layer) goes through [`crate::rooted`].

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags};

/// Tells temporary names of one process apart; the process id tells processes apart.
static SEQUENCE: AtomicU64 = AtomicU64::new(0);

/// Replaces the file at `path` by one that holds `bytes`, whole or not at all.
///
/// A reader sees the old content or the new, never a part, across a crash too: the
/// bytes are on disk before the name changes, and the name is on disk before this
/// returns. The file has exactly the permissions `mode`.
///
/// # Errors
///
/// Whatever the file system answers; the old file is then untouched.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let directory = directory_of(path);
    let handle = open_directory(directory)?;
    replace_synced(path, bytes, mode)?;
    rustix::fs::fsync(&handle)?;
    Ok(())
}

/// Replaces the file at `path` as [`write_atomic`] does, without waiting for the disk.
///
/// Readers never see a part of it. After a power loss the old content may be back:
/// right for files below `/run`, which a power loss empties anyway.
///
/// # Errors
///
/// Whatever the file system answers; the old file is then untouched.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let (mut file, temporary) = temporary_beside(path, mode)?;
    let written = file.write_all(bytes).and_then(|()| std::fs::rename(&temporary, path));
    written.inspect_err(|_| remove_temporary(&temporary))
}

/// Makes the names in `directory` (creations, renames, removals) survive a crash.
///
/// # Errors
///
/// When the directory cannot be opened or the disk refuses.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    Ok(rustix::fs::fsync(open_directory(directory)?)?)
}

/// Reads a whole file that may not be longer than `limit` bytes.
///
/// # Errors
///
/// [`io::ErrorKind::FileTooLarge`] when there is more; nothing of it is kept.
pub fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        let message = format!("{} is longer than {limit} bytes", path.display());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

fn replace_synced(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let (mut file, temporary) = temporary_beside(path, mode)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&temporary, path));
    written.inspect_err(|_| remove_temporary(&temporary))
}

fn temporary_beside(path: &Path, mode: u32) -> io::Result<(std::fs::File, PathBuf)> {
    let name = path.file_name().ok_or_else(|| {
        let message = format!("{} does not name a file", path.display());
        io::Error::new(io::ErrorKind::InvalidInput, message)
    })?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    loop {
        let mut temporary = OsString::from(".");
        temporary.push(name);
        let count = SEQUENCE.fetch_add(1, Ordering::Relaxed);
        temporary.push(format!(".{}.{count}.tmp", std::process::id()));
        let temporary = path.with_file_name(temporary);
        match rustix::fs::open(&temporary, flags, Mode::from_raw_mode(0o600)) {
            Ok(descriptor) => {
                rustix::fs::fchmod(&descriptor, Mode::from_raw_mode(mode))?;
                return Ok((descriptor.into(), temporary));
            }
            // Left by a process of an earlier boot that had our id.
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn remove_temporary(temporary: &Path) {
    // The write already failed and that error is the one to report.
    std::fs::remove_file(temporary).ok();
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

fn open_directory(directory: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(directory, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_written_file_has_its_bytes_its_mode_and_no_leftovers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        write_atomic(&path, b"one", 0o640).unwrap();
        write_atomic(&path, b"two", 0o600).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_temporary() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("taken");
        std::fs::create_dir(&path).unwrap();
        write_atomic(&path, b"x", 0o600).unwrap_err();
        assert!(path.is_dir());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_over_the_limit_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("long");
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(read_bounded(&path, 5).unwrap(), b"12345");
        let error = read_bounded(&path, 4).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}

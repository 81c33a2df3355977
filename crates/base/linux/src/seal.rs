//! An executable the container cannot overwrite (CVE-2019-5736).
//!
//! A process inside a container can be made to run the runtime's own executable, as
//! `/proc/self/exe`, and then open that file for writing. So what runs there must not be
//! the file on the host. It is a copy in memory, sealed against any change:
//!
//! ```text
//! carrack-runtime ──copy once──▶ sealed memory ──execute──▶ every shim, and all it starts
//! ```
//!
//! Whoever starts many shims makes the copy once and starts each from it: the pages are
//! shared and a start costs nothing. A program started from the file itself starts over,
//! once, before it does anything else, and copies nothing if it can help it: it executes
//! itself through an overlay of its directory that has nowhere to write to. Even a
//! container with every privilege cannot make that writable, as it could a read-only bind
//! mount. Where overlays are refused it makes a copy of its own.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};

use crate::{mount, process};

const SEALS: SealFlags =
    SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// A sealed copy of the program at `path`, to be executed by descriptor.
///
/// # Errors
///
/// When the file cannot be read or memory is short.
pub fn copy(path: &Path) -> io::Result<OwnedFd> {
    let source = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    copy_of(source)
}

fn copy_of(source: OwnedFd) -> io::Result<OwnedFd> {
    let size = u64::try_from(rustix::fs::fstat(&source)?.st_size).map_err(io::Error::other)?;
    let copy = memory_file(c"carrack-runtime")?;
    let mut left = size;
    while left > 0 {
        let chunk = usize::try_from(left).unwrap_or(usize::MAX);
        let sent = rustix::fs::sendfile(&copy, &source, None, chunk)?;
        if sent == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the program shrank while it was copied",
            ));
        }
        left = left.saturating_sub(u64::try_from(sent).map_err(io::Error::other)?);
    }
    rustix::fs::fchmod(&copy, Mode::from_raw_mode(0o500))?;
    rustix::fs::fcntl_add_seals(&copy, SEALS)?;
    Ok(copy)
}

/// The program whose executable file is `bytes`, in sealed memory that is called `name`,
/// to be executed by descriptor, by any user.
///
/// # Errors
///
/// When memory is short, or the setting `vm.memfd_noexec` forbids programs in memory.
pub fn program(name: &CStr, bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memory_file(name)?);
    file.write_all(bytes)?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o555))?;
    rustix::fs::fcntl_add_seals(&file, SEALS)?;
    Ok(file.into())
}

/// Memory that may be executed; older kernels do not know the flag and allow it always.
fn memory_file(name: &CStr) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC) {
        Err(rustix::io::Errno::INVAL) => Ok(rustix::fs::memfd_create(name, flags)?),
        made => Ok(made?),
    }
}

/// Whether the file this process runs from cannot be written through the process.
///
/// # Errors
///
/// When `/proc` is not mounted.
pub fn is_sealed() -> io::Result<bool> {
    is_sealed_file(&own_executable()?)
}

fn is_sealed_file(file: &OwnedFd) -> io::Result<bool> {
    // Files that are not in memory have no seals and answer an error.
    if rustix::fs::fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SEALS)) {
        return Ok(true);
    }
    let read_only =
        rustix::fs::fstatvfs(file)?.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
    Ok(read_only && rustix::fs::fstatfs(file)?.f_type == OVERLAY)
}

/// The magic number of overlays.
const OVERLAY: i64 = 0x794c_7630;

fn own_executable() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

const OWN: &str = "/proc/self/exe";

/// Makes sure that this process runs from a sealed file: if not, it starts over from one,
/// with these arguments and this environment.
///
/// To be called first of all; open descriptors without close-on-exec stay open.
///
/// # Errors
///
/// When no sealed file can be made or executed. It returns without error only in the
/// process that runs from it.
pub fn ensure(arguments: &[CString], environment: &[CString]) -> io::Result<()> {
    let own = own_executable()?;
    if is_sealed_file(&own)? {
        return Ok(());
    }
    // Overlays may be missing, or refused by the file system below: then a copy it is.
    if let Ok(through) = through_overlay(&own) {
        process::execute(through.as_fd(), arguments, environment);
    }
    let copy = copy_of(own)?;
    Err(process::execute(copy.as_fd(), arguments, environment))
}

/// The program at `own`, seen through an overlay without an upper directory.
fn through_overlay(own: &OwnedFd) -> io::Result<OwnedFd> {
    let path = std::fs::read_link(OWN)?;
    let (directory, name) = path.parent().zip(path.file_name()).ok_or(rustix::io::Errno::NOENT)?;
    let overlay = mount::read_only_view(directory)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let through = rustix::fs::openat(&overlay, name, flags, Mode::empty())?;
    // Somebody may have put another program there since we were started.
    let (ours, theirs) = (rustix::fs::fstat(own)?, rustix::fs::fstat(&through)?);
    let same = (ours.st_ino, ours.st_size, ours.st_mtime, ours.st_mtime_nsec)
        == (theirs.st_ino, theirs.st_size, theirs.st_mtime, theirs.st_mtime_nsec);
    if same { Ok(through) } else { Err(rustix::io::Errno::STALE.into()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_sealed_copy_runs_and_cannot_be_changed() {
        let copy = copy(Path::new("/bin/true")).unwrap();
        assert!(rustix::io::write(&copy, b"x").is_err());
        assert!(rustix::fs::ftruncate(&copy, 0).is_err());
        let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
        std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, b"x"))
            .unwrap_err();
        let status = std::process::Command::new(&path).status().unwrap();
        assert!(status.success());
    }

    #[test]
    fn a_program_from_bytes_runs_as_any_user_and_cannot_be_changed() {
        let bytes = std::fs::read("/bin/true").unwrap();
        let program = program(c"true", &bytes).unwrap();
        assert!(rustix::io::write(&program, b"x").is_err());
        assert_eq!(rustix::fs::fstat(&program).unwrap().st_mode & 0o777, 0o555);
        let path = format!("/proc/self/fd/{}", program.as_raw_fd());
        assert!(std::process::Command::new(&path).status().unwrap().success());
    }

    #[test]
    fn a_program_on_disk_is_not_sealed() {
        assert!(!is_sealed().unwrap());
    }
}

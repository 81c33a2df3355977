//! An executable the container cannot overwrite (CVE-2019-5736).
//!
//! A process inside a container can be made to run the runtime's own executable, as
//! `/proc/self/exe`, and then open that file for writing. So what runs there must not be
//! the file on the host. It is a copy in memory, sealed against any change:
//!
//! ```text
//! carrack-runtime ──copy once──▶ sealed memory ──execute──▶ every shim, and every init it starts
//! ```
//!
//! Whoever starts many shims makes the copy once and starts each from it: the pages are
//! shared and a start costs nothing. A program started from the file itself makes its
//! own copy and starts over, once, before it does anything else.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};

use crate::process;

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
    let copy = memory_file()?;
    let mut left = size;
    while left > 0 {
        let chunk = usize::try_from(left).unwrap_or(usize::MAX);
        let sent = rustix::fs::sendfile(&copy, &source, None, chunk)?;
        if sent == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the program shrank while it was copied"));
        }
        left = left.saturating_sub(u64::try_from(sent).map_err(io::Error::other)?);
    }
    rustix::fs::fchmod(&copy, Mode::from_raw_mode(0o500))?;
    rustix::fs::fcntl_add_seals(&copy, SEALS)?;
    Ok(copy)
}

/// Memory that may be executed; older kernels do not know the flag and allow it always.
fn memory_file() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match rustix::fs::memfd_create("carrack-runtime", flags | MemfdFlags::EXEC) {
        Err(rustix::io::Errno::INVAL) => Ok(rustix::fs::memfd_create("carrack-runtime", flags)?),
        made => Ok(made?),
    }
}

/// Whether this process runs from a sealed copy.
///
/// # Errors
///
/// When `/proc` is not mounted.
pub fn is_sealed() -> io::Result<bool> {
    let own = own_executable()?;
    // Files that are not in memory have no seals and answer an error.
    Ok(rustix::fs::fcntl_get_seals(&own).is_ok_and(|seals| seals.contains(SEALS)))
}

fn own_executable() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/proc/self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Makes sure that this process runs from a sealed copy: if not, it starts over from one,
/// with these arguments and this environment.
///
/// To be called first of all; open descriptors without close-on-exec stay open.
///
/// # Errors
///
/// When no copy can be made or executed. It returns without error only in the copy.
pub fn ensure(arguments: &[CString], environment: &[CString]) -> io::Result<()> {
    let own = own_executable()?;
    let sealed = rustix::fs::fcntl_get_seals(&own).is_ok_and(|seals| seals.contains(SEALS));
    if sealed {
        return Ok(());
    }
    let copy = copy_of(own)?;
    Err(process::execute(copy.as_fd(), arguments, environment))
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
        std::fs::OpenOptions::new().write(true).open(&path).and_then(|mut file| {
            std::io::Write::write_all(&mut file, b"x")
        }).unwrap_err();
        let status = std::process::Command::new(&path).status().unwrap();
        assert!(status.success());
    }

    #[test]
    fn a_program_on_disk_is_not_sealed() {
        assert!(!is_sealed().unwrap());
    }
}

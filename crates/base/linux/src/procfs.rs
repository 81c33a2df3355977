//! `/proc`, and really that.
//!
//! ```text
//! Proc ──magic and root inode checked──▶ openat2(BENEATH, NO_XDEV) ──magic checked──▶ write
//! ```
//!
//! What is written to `/proc` (id maps, labels, settings, scores) has no effect, or one on
//! another file, when something else is mounted there (CVE-2019-16884, CVE-2019-19921,
//! CVE-2025-52881). So `/proc` is opened once, by descriptor; that descriptor is the root of
//! a proc file system or nothing is written. Files below it are resolved by the kernel
//! without leaving that mount, so what somebody mounted over one of them is an error
//! (`EXDEV`) and not a target.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::process::Pid;

use crate::mount::{Attributes, Filesystem};

/// The magic number of `/proc`.
const MAGIC: i64 = 0x9fa0;

/// The inode of a proc file system's root.
const ROOT_INODE: u64 = 1;

/// The longest file read.
const MAX_READ: u64 = 1 << 20;

/// A proc file system.
#[derive(Debug)]
pub struct Proc {
    root: OwnedFd,
}

impl Proc {
    /// The one mounted at `/proc`.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidData`] when that is something else.
    pub fn mounted() -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Self::checked(rustix::fs::open("/proc", flags, Mode::empty())?)
    }

    /// One of our own for the caller's process id namespace, attached nowhere: nothing can
    /// be mounted over any of its files.
    ///
    /// # Errors
    ///
    /// `EPERM` without privilege over that namespace.
    pub fn private() -> io::Result<Self> {
        let filesystem = Filesystem::open("proc")?;
        let safe = Attributes::NO_SUID | Attributes::NO_DEV | Attributes::NO_EXEC;
        Self::checked(filesystem.mount(safe)?)
    }

    /// Takes `root`, if it is the root of a proc file system.
    fn checked(root: OwnedFd) -> io::Result<Self> {
        if !is_proc(&root)? || rustix::fs::fstat(&root)?.st_ino != ROOT_INODE {
            return Err(not_proc("/proc"));
        }
        Ok(Self { root })
    }

    /// Writes `value` to `path`, which is relative to `/proc`, in one call.
    ///
    /// # Errors
    ///
    /// `EXDEV` when something is mounted over it, `ELOOP` when a link that leaves `/proc`
    /// is on the way; whatever the file answers.
    pub fn write(&self, path: &str, value: &str) -> io::Result<()> {
        let file = self.open(path, OFlags::WRONLY)?;
        let written = rustix::io::write(&file, value.as_bytes())?;
        if written == value.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// A descriptor to write to `path` with, later.
    ///
    /// # Errors
    ///
    /// As [`Self::write`].
    pub fn writable(&self, path: &str) -> io::Result<OwnedFd> {
        self.open(path, OFlags::WRONLY)
    }

    /// Writes to a file of a process, such as `uid_map`.
    ///
    /// # Errors
    ///
    /// As [`Self::write`].
    pub fn write_of(&self, process: Pid, file: &str, value: &str) -> io::Result<()> {
        self.write(&format!("{}/{file}", process.as_raw_nonzero()), value)
    }

    /// Reads a file of a process.
    ///
    /// # Errors
    ///
    /// As [`Self::write`].
    pub fn read_of(&self, process: Pid, file: &str) -> io::Result<String> {
        let path = format!("{}/{file}", process.as_raw_nonzero());
        let file = std::fs::File::from(self.open(&path, OFlags::RDONLY)?);
        let mut text = String::new();
        file.take(MAX_READ).read_to_string(&mut text)?;
        Ok(text)
    }

    fn open(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(&self.root, Path::new(path), flags, Mode::empty(), resolve)?;
        if is_proc(&file)? { Ok(file) } else { Err(not_proc(path)) }
    }
}

/// Whether a descriptor is of a proc file system.
///
/// # Errors
///
/// As `fstatfs`.
pub fn is_proc(descriptor: impl AsFd) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(descriptor)?.f_type == MAGIC)
}

fn not_proc(path: &str) -> io::Error {
    let message = format!("{path} is not the kernel's: another file system is mounted there");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_reads_and_writes_its_own_files() {
        let proc = Proc::mounted().unwrap();
        let own = rustix::process::getpid();
        let score = proc.read_of(own, "oom_score_adj").unwrap();
        proc.write_of(own, "oom_score_adj", score.trim()).unwrap();
    }

    #[test]
    fn links_out_of_proc_are_not_followed() {
        let proc = Proc::mounted().unwrap();
        for path in ["self/root/etc/passwd", "self/cwd/x", "self/fd/0", "../etc/passwd"] {
            assert!(proc.open(path, OFlags::RDONLY).is_err(), "for {path}");
        }
    }

    #[test]
    fn another_file_system_or_a_directory_of_proc_is_refused() {
        for path in ["/tmp", "/proc/self", "/proc/sys"] {
            let opened = crate::trusted::directory(Path::new(path)).unwrap();
            let error = Proc::checked(opened).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "for {path}");
        }
    }

    #[test]
    fn what_is_mounted_over_a_file_is_an_error_and_no_target() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        std::thread::spawn(|| {
            crate::namespace::unshare(crate::namespace::Kinds::MOUNT).unwrap();
            crate::mount::set_root_propagation(crate::mount::Propagation::Private).unwrap();
            let place = tempfile::tempdir().unwrap();
            let fake = place.path().join("fake");
            std::fs::write(&fake, "").unwrap();
            let source = crate::trusted::handle(&fake).unwrap();
            let tree = crate::mount::clone_tree(source.as_fd(), false).unwrap();
            let over = Path::new("/proc/sys/kernel/domainname");
            let target = crate::trusted::handle(over).unwrap();
            crate::mount::attach(tree.as_fd(), target.as_fd()).unwrap();
            let error = Proc::mounted().unwrap().write("sys/kernel/domainname", "x").unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EXDEV));
            assert_eq!(std::fs::read(&fake).unwrap(), b"");
            Proc::private().unwrap().open("sys/kernel/domainname", OFlags::RDONLY).unwrap();
        })
        .join()
        .unwrap();
    }
}

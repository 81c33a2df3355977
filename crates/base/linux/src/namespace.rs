//! Namespaces: opening, entering, unsharing.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::thread::LinkNameSpaceType;

bitflags::bitflags! {
    /// A set of kinds of namespaces.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Kinds: u32 {
        /// What is mounted.
        const MOUNT = 0x0002_0000;
        /// Control group roots.
        const CGROUP = 0x0200_0000;
        /// Host and domain name.
        const UTS = 0x0400_0000;
        /// System V objects and message queues.
        const IPC = 0x0800_0000;
        /// Users and capabilities.
        const USER = 0x1000_0000;
        /// Process ids.
        const PID = 0x2000_0000;
        /// Interfaces, routes, sockets.
        const NETWORK = 0x4000_0000;
        /// Boot and monotonic clocks.
        const TIME = 0x0000_0080;
    }
}

impl Kinds {
    /// The name below `/proc/PID/ns`, for a single kind.
    pub fn name(self) -> &'static str {
        match self {
            Self::MOUNT => "mnt",
            Self::CGROUP => "cgroup",
            Self::UTS => "uts",
            Self::IPC => "ipc",
            Self::USER => "user",
            Self::PID => "pid",
            Self::NETWORK => "net",
            Self::TIME => "time",
            _ => "several",
        }
    }

    fn link_type(self) -> Option<LinkNameSpaceType> {
        Some(match self {
            Self::MOUNT => LinkNameSpaceType::Mount,
            Self::CGROUP => LinkNameSpaceType::ControlGroup,
            Self::UTS => LinkNameSpaceType::HostNameAndNISDomainName,
            Self::IPC => LinkNameSpaceType::InterProcessCommunication,
            Self::USER => LinkNameSpaceType::User,
            Self::PID => LinkNameSpaceType::ProcessID,
            Self::NETWORK => LinkNameSpaceType::Network,
            Self::TIME => LinkNameSpaceType::Time,
            _ => return None,
        })
    }
}

/// Whether the calling process is in a user namespace other than the first one, where even
/// root has no power over the host. In doubt it is not.
pub fn is_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.is_empty() && !maps_everybody(&map)
}

/// Only the first namespace has every number there is, each as itself.
fn maps_everybody(map: &str) -> bool {
    let numbers: Vec<&str> = map.split_ascii_whitespace().collect();
    numbers == ["0", "0", "4294967295"]
}

/// Opens a namespace by its file, such as one bound below `/run`.
///
/// # Errors
///
/// When the file cannot be opened. That it is a namespace shows when it is entered.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens the namespace a process is in.
///
/// # Errors
///
/// When the process is gone or not ours to inspect.
pub fn open_of(process: rustix::process::Pid, kind: Kinds) -> io::Result<OwnedFd> {
    let name = kind.name();
    open(Path::new(&format!("/proc/{}/ns/{name}", process.as_raw_nonzero())))
}

/// Opens a namespace of the calling thread.
///
/// # Errors
///
/// When `/proc` is not mounted.
pub fn open_own(kind: Kinds) -> io::Result<OwnedFd> {
    open(Path::new(&format!("/proc/thread-self/ns/{}", kind.name())))
}

/// Opens the process id namespace that children of the calling thread are born in.
///
/// # Errors
///
/// When `/proc` is not mounted.
pub fn open_for_children() -> io::Result<OwnedFd> {
    open(Path::new("/proc/thread-self/ns/pid_for_children"))
}

/// Opens the time namespace that was made last, and that only children are born in so far.
///
/// # Errors
///
/// When `/proc` is not mounted or the kernel has no time namespaces.
pub fn open_time_for_children() -> io::Result<OwnedFd> {
    open(Path::new("/proc/thread-self/ns/time_for_children"))
}

/// Moves the calling thread into a namespace, which must be of the given kind.
///
/// A process id namespace takes in children born later, not the thread itself.
///
/// # Errors
///
/// `EINVAL` when the descriptor is of another kind; `EPERM`.
pub fn enter(namespace: BorrowedFd<'_>, kind: Kinds) -> io::Result<()> {
    Ok(rustix::thread::move_into_link_name_space(namespace, kind.link_type())?)
}

/// Moves the calling thread into several namespaces of a process at once.
///
/// # Errors
///
/// As `setns`: none of them is entered then.
pub fn enter_of(process: BorrowedFd<'_>, kinds: Kinds) -> io::Result<()> {
    let kinds = rustix::thread::ThreadNameSpaceType::from_bits_retain(kinds.bits());
    Ok(rustix::thread::move_into_thread_name_spaces(process, kinds)?)
}

/// Whether this process is in a user namespace below the first: there root has no devices to
/// make. What cannot be told counts as no.
pub fn has_mapped_users() -> bool {
    let own = rustix::process::getpid();
    let map = crate::procfs::Proc::mounted().and_then(|proc| proc.read_of(own, "uid_map"));
    map.is_ok_and(|map| !map.split_ascii_whitespace().eq(["0", "0", "4294967295"]))
}

/// A user namespace that maps ids by these lines: `INSIDE OUTSIDE COUNT`. Nobody is in it.
///
/// # Errors
///
/// When the kernel refuses the namespace or the maps.
pub fn user_with(uid_map: &str, gid_map: &str) -> io::Result<OwnedFd> {
    use crate::process::{self, Birth};
    let (waits, release) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let birth = Birth { namespaces: Kinds::USER, ..Birth::default() };
    let holder = process::start(birth, || {
        // It holds the namespace open until it is ended.
        let mut byte = [0; 1];
        rustix::io::read(&waits, &mut byte).ok();
    })?;
    let made = write_maps(holder.pid(), uid_map, gid_map)
        .and_then(|()| open_of(holder.pid(), Kinds::USER));
    holder.destroy();
    drop(release);
    made
}

/// Maps the ids of a user namespace, through its first process.
///
/// # Errors
///
/// As the kernel answers, with the name of the map.
pub fn write_maps(process: rustix::process::Pid, uid_map: &str, gid_map: &str) -> io::Result<()> {
    let proc = crate::procfs::Proc::mounted()?;
    for (file, map) in [("uid_map", uid_map), ("gid_map", gid_map)] {
        proc.write_of(process, file, map)
            .map_err(|source| io::Error::new(source.kind(), format!("{file}: {source}")))?;
    }
    Ok(())
}

/// Gives the calling thread new namespaces.
///
/// # Errors
///
/// As `unshare`.
pub fn unshare(kinds: Kinds) -> io::Result<()> {
    let flags = libc::c_int::try_from(kinds.bits()).map_err(io::Error::other)?;
    // SAFETY: only namespace flags can be in `Kinds`, and none of them stops sharing
    // memory or descriptors, which is what other code could rely on.
    let answer = unsafe { libc::unshare(flags) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether two descriptors are the same namespace.
///
/// # Errors
///
/// As `fstat`.
pub fn same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<bool> {
    let one = rustix::fs::fstat(one)?;
    let other = rustix::fs::fstat(other)?;
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn an_unshared_namespace_differs_and_can_be_left_again() {
        std::thread::spawn(|| {
            let before = open_own(Kinds::UTS).unwrap();
            unshare(Kinds::UTS).unwrap();
            let inside = open_own(Kinds::UTS).unwrap();
            assert!(!same(before.as_fd(), inside.as_fd()).unwrap());
            enter(before.as_fd(), Kinds::UTS).unwrap();
            assert!(same(before.as_fd(), open_own(Kinds::UTS).unwrap().as_fd()).unwrap());
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_namespace_of_another_kind_is_refused() {
        let network = open_own(Kinds::NETWORK).unwrap();
        let error = enter(network.as_fd(), Kinds::UTS).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}

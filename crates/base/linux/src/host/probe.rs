//! Trying what cannot be read anywhere.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::mount::{self, Attributes, Filesystem, Overlay, Propagation};
use crate::namespace::Kinds;
use crate::process::{self, Birth, Exit};

/// System calls that containers are made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is the name of a system call")]
pub enum Call {
    Openat2,
    Clone3,
    PidfdOpen,
    Fsopen,
    MountSetattr,
    CloseRange,
    Seccomp,
}

/// What a child tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trial {
    /// Mounting a tmpfs in a mount namespace of its own.
    Mount,
    /// Mounting an overlay there.
    Overlay,
    /// Making a user namespace.
    UserNamespace,
    /// Mounting an overlay in a user namespace of its own.
    UserOverlay,
}

/// Each is called with arguments that are refused where it is known.
pub(super) fn calls() -> BTreeMap<Call, bool> {
    // A descriptor that is none, sizes of nothing, addresses of nothing.
    let none = u64::MAX;
    let numbers = [
        (Call::Openat2, libc::SYS_openat2, [none, 0, 0, 0]),
        (Call::Clone3, libc::SYS_clone3, [0, 0, 0, 0]),
        (Call::PidfdOpen, libc::SYS_pidfd_open, [0, none, 0, 0]),
        (Call::Fsopen, libc::SYS_fsopen, [0, none, 0, 0]),
        (Call::MountSetattr, libc::SYS_mount_setattr, [none, 0, none, 0]),
        (Call::CloseRange, libc::SYS_close_range, [1, 0, 0, 0]),
        (Call::Seccomp, libc::SYS_seccomp, [none, none, 0, 0]),
    ];
    numbers.map(|(call, number, arguments)| (call, is_known(number, arguments))).into()
}

fn is_known(number: libc::c_long, arguments: [u64; 4]) -> bool {
    let [first, second, third, fourth] = arguments;
    // SAFETY: each of the calls above refuses these arguments before it does anything: a
    // size of zero, a null address, unknown flags, or a range that ends before it begins.
    let answer = unsafe { libc::syscall(number, first, second, third, fourth) };
    answer >= 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
}

pub(super) fn trials() -> BTreeMap<Trial, Result<(), i32>> {
    let user = Kinds::USER | Kinds::MOUNT;
    // Inside, before it is mapped, it has other ids.
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    [
        (Trial::Mount, attempt(Kinds::MOUNT, || mount_tmpfs().map(drop))),
        (Trial::Overlay, attempt(Kinds::MOUNT, mount_overlay)),
        (Trial::UserNamespace, attempt(Kinds::USER, || Ok(()))),
        (Trial::UserOverlay, attempt(user, || map_root(uid, gid).and_then(|()| mount_overlay()))),
    ]
    .into()
}

/// Runs `body` in a child with namespaces of its own; its error's number comes back as the
/// child's code. Error numbers of what is tried here are below 128.
fn attempt(namespaces: Kinds, body: impl FnOnce() -> io::Result<()>) -> Result<(), i32> {
    let birth = Birth { namespaces, ..Birth::default() };
    let child = process::start(birth, || {
        let code = match body() {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
        };
        process::leave(u8::try_from(code).unwrap_or(u8::MAX))
    });
    let answer = child.and_then(|child| child.wait());
    match answer {
        Ok(Exit::Code(0)) => Ok(()),
        Ok(Exit::Code(errno)) => Err(errno),
        Ok(Exit::Signal(_)) => Err(libc::EINTR),
        Err(error) => Err(error.raw_os_error().unwrap_or(libc::EBUSY)),
    }
}

/// Makes the caller root of its user namespace.
fn map_root(uid: u32, gid: u32) -> io::Result<()> {
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

/// A tmpfs on `/tmp`, in our own mount namespace.
fn mount_tmpfs() -> io::Result<PathBuf> {
    mount::set_root_propagation(Propagation::Private)?;
    let mounted = Filesystem::open("tmpfs")?.mount(Attributes::NO_SUID)?;
    let place = Path::new("/tmp");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let target = rustix::fs::open(place, flags, Mode::empty())?;
    mount::attach(mounted.as_fd(), target.as_fd())?;
    Ok(place.to_owned())
}

/// An overlay of directories on that tmpfs.
fn mount_overlay() -> io::Result<()> {
    let place = mount_tmpfs()?;
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| place.join(name));
    for directory in [&lower, &upper, &work] {
        std::fs::create_dir(directory)?;
    }
    let overlay = Overlay { lower: &[lower], upper: Some((&upper, &work)), volatile: false };
    overlay.mount(Attributes::NO_SUID).map(drop)
}

//! Network namespaces that outlive the process that made them.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use carrack_linux::mount;
use carrack_linux::namespace::{self, Kinds};
use carrack_linux::netlink::{Family, Socket};

use crate::error::NetworkError;

const LOOPBACK: &str = "lo";

/// What differs from the kernel's choices in every container's namespace.
///
/// Interfaces other than the loopback speak no IPv6: capture is of IPv4, and a
/// link-local address would be a way around it. Low ports and ping need no privilege,
/// as nobody else's ports are at stake in here.
const SETTINGS: [(&str, &str); 3] = [
    ("ipv6/conf/default/disable_ipv6", "1"),
    ("ipv4/ip_unprivileged_port_start", "0"),
    ("ipv4/ping_group_range", "0 2147483647"),
];

/// Makes a network namespace and keeps it at `path`, with its loopback up.
///
/// If a namespace is there already, it is left as it is.
///
/// # Errors
///
/// [`NetworkError::Namespace`]; nothing is left at `path` then.
pub fn create_namespace(path: &Path) -> Result<(), NetworkError> {
    let failed = |source| NetworkError::Namespace {
        attempt: "making a network namespace at",
        path: path.to_owned(),
        source,
    };
    if is_namespace(path) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    File::create(path).map_err(failed)?;
    on_a_thread(|| make(path)).map_err(|error| {
        // The file holds nothing; should it stay, the next attempt takes it over.
        fs::remove_file(path).ok();
        failed(error)
    })
}

/// Lets go of the namespace kept at `path`. It ends when its last process does.
///
/// That there is none is no error.
///
/// # Errors
///
/// [`NetworkError::Namespace`].
pub fn remove_namespace(path: &Path) -> Result<(), NetworkError> {
    let failed = |source| NetworkError::Namespace {
        attempt: "removing the network namespace at",
        path: path.to_owned(),
        source,
    };
    while is_namespace(path) {
        mount::detach(path).map_err(failed)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}

/// Opens the namespace kept at `path`.
pub(crate) fn open(path: &Path) -> Result<OwnedFd, NetworkError> {
    namespace::open(path).map_err(|source| NetworkError::Namespace {
        attempt: "opening the network namespace at",
        path: path.to_owned(),
        source,
    })
}

fn is_namespace(path: &Path) -> bool {
    const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;
    rustix::fs::statfs(path).is_ok_and(|at| at.f_type == NSFS_MAGIC)
}

fn make(path: &Path) -> io::Result<()> {
    namespace::unshare(Kinds::NETWORK)?;
    let mut route = Socket::open(Family::Route)?;
    let loopback = route.link(LOOPBACK)?.ok_or_else(|| io::Error::other("it has no loopback"))?;
    route.set_up(loopback.index)?;
    for (name, value) in SETTINGS {
        set(name, value)?;
    }
    // The last step, so that what is found at `path` is always whole.
    Ok(rustix::mount::mount_bind("/proc/thread-self/ns/net", path)?)
}

/// Changes a setting of the calling thread's network namespace. One the kernel does
/// not have (IPv6 can be left out of it) needs no changing.
pub(crate) fn set(name: &str, value: &str) -> io::Result<()> {
    match fs::write(format!("/proc/sys/net/{name}"), value) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn on_a_thread<T: Send>(act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, act)?;
        match thread.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

use std::os::fd::AsFd;
use std::path::Path;

use carrack_linux::mount;
use carrack_linux::rooted::{Entry, RootedDir};
use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid};
use rustix::io::Errno;

use super::mounts::target;
use crate::failure::{Attempt, Failure};
use crate::plan::{DevicePlan, Plan};
use crate::prepared::Prepared;

/// Links every program expects.
const LINKS: [(&str, &str); 6] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// Fills `/dev`.
pub(super) fn make(root: &RootedDir, plan: &Plan, prepared: &Prepared) -> Result<(), Failure> {
    for device in &plan.devices {
        let bound = prepared.devices.iter().find(|(path, _)| *path == device.path);
        if let Some((path, tree)) = bound {
            let target = target(root, path, false)?;
            mount::attach(tree.as_fd(), target.as_fd())
                .attempt(|| format!("binding the device {}", path.display()))?;
        } else {
            node(root, device)?;
        }
    }
    for (path, points_to) in LINKS {
        link(root, Path::new(path), points_to)?;
    }
    Ok(())
}

fn node(root: &RootedDir, device: &DevicePlan) -> Result<(), Failure> {
    let attempt = || format!("making the device {}", device.path.display());
    let entry = root.make_entry(&device.path, 0o755).attempt(attempt)?;
    let mode = Mode::from_raw_mode(device.mode);
    let number = rustix::fs::makedev(device.major, device.minor);
    let make = || rustix::fs::mknodat(&entry.directory, &entry.name, device.kind, mode, number);
    match make() {
        Err(Errno::EXIST) if is_same(&entry, device) => return Ok(()),
        // Whatever the image put in its place goes.
        Err(Errno::EXIST) => {
            entry.remove_file().attempt(attempt)?;
            make().attempt(attempt)?;
        }
        answer => answer.attempt(attempt)?,
    }
    // The umask had its say; this has the last word. The name is still what we made: the
    // container has no process yet.
    rustix::fs::chmodat(&entry.directory, &entry.name, mode, AtFlags::empty()).attempt(attempt)?;
    if device.uid != 0 || device.gid != 0 {
        let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(&entry.directory, &entry.name, Some(uid), Some(gid), flags)
            .attempt(attempt)?;
    }
    Ok(())
}

fn is_same(entry: &Entry, device: &DevicePlan) -> bool {
    entry.stat().is_ok_and(|stat| {
        let number = rustix::fs::makedev(device.major, device.minor);
        FileType::from_raw_mode(stat.st_mode) == device.kind
            && (device.kind == FileType::Fifo || stat.st_rdev == number)
    })
}

fn link(root: &RootedDir, path: &Path, points_to: &str) -> Result<(), Failure> {
    let attempt = || format!("linking {}", path.display());
    let entry = root.make_entry(path, 0o755).attempt(attempt)?;
    match rustix::fs::symlinkat(points_to, &entry.directory, &entry.name) {
        // What is there stays: an image, or a mount of the caller's, knows better.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(Failure::new(attempt(), &error.into())),
    }
}

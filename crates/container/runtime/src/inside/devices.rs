use std::os::fd::AsFd;
use std::path::Path;

use carrack_linux::mount;
use carrack_linux::rooted::RootedDir;
use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Uid};

use super::mounts::target_outside_proc;
use crate::failure::{Attempt, Failure};
use crate::plan::{DevicePlan, Plan};
use crate::prepared::Trees;

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
pub(super) fn make(root: &RootedDir, plan: &Plan, trees: &Trees) -> Result<(), Failure> {
    // A mode set at the making need not be set on a name afterwards, which a container that
    // shares the root file system could exchange for a link.
    let umask = rustix::process::umask(Mode::empty());
    for device in &plan.devices {
        let bound = trees.devices.iter().find(|(path, _)| *path == device.path);
        if let Some((path, tree)) = bound {
            let target = target_outside_proc(root, path)?;
            mount::attach(tree.as_fd(), target.as_fd())
                .attempt(|| format!("binding the device {}", path.display()))?;
        } else {
            node(root, device)?;
        }
    }
    for (path, points_to) in LINKS {
        link(root, Path::new(path), points_to)?;
    }
    rustix::process::umask(umask);
    Ok(())
}

fn node(root: &RootedDir, device: &DevicePlan) -> Result<(), Failure> {
    let attempt = || format!("making the device {}", device.path.display());
    let entry = root.make_entry(&device.path, 0o755).attempt(attempt)?;
    let number = rustix::fs::makedev(device.major, device.minor);
    let make = || entry.make_node(device.kind, device.mode, number);
    if !make().attempt(attempt)? {
        if entry.stat().is_ok_and(|stat| is_same(&stat, device)) {
            return Ok(());
        }
        // Whatever the image put in its place goes.
        entry.remove_file().attempt(attempt)?;
        if !make().attempt(attempt)? {
            return Err(Failure::refused(attempt(), "somebody else makes files there meanwhile"));
        }
    }
    if device.uid != 0 || device.gid != 0 {
        // By descriptor: who shares the root file system may have exchanged the name.
        let made = entry.handle().attempt(attempt)?;
        if rustix::fs::fstat(&made).is_ok_and(|stat| is_same(&stat, device)) {
            let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
            rustix::fs::chownat(&made, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
                .attempt(attempt)?;
        }
    }
    Ok(())
}

fn is_same(stat: &Stat, device: &DevicePlan) -> bool {
    let number = rustix::fs::makedev(device.major, device.minor);
    FileType::from_raw_mode(stat.st_mode) == device.kind
        && (device.kind == FileType::Fifo || stat.st_rdev == number)
}

/// What is there already stays: an image, or a mount of the caller's, knows better.
fn link(root: &RootedDir, path: &Path, points_to: &str) -> Result<(), Failure> {
    root.make_entry(path, 0o755)
        .and_then(|entry| entry.make_link(points_to))
        .attempt(|| format!("linking {}", path.display()))?;
    Ok(())
}

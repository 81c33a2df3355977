use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use carrack_linux::label::System;
use carrack_linux::mount::{self, Attributes, Change, Filesystem};
use carrack_linux::procfs;
use carrack_linux::rooted::RootedDir;
use rustix::fs::FileType;

use super::copy_up;
use super::stage::Stage;
use crate::failure::{Attempt, Failure};
use crate::plan::{MountPlan, MountSource};
use crate::prepared::Bind;

/// Files below `/proc` that callers replace by ones made for the container.
const REPLACEABLE: [&str; 12] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/fs/binfmt_misc",
];

/// File systems whose files the kernel labels itself.
const OWN_LABELS: [&str; 4] = ["proc", "sysfs", "cgroup", "cgroup2"];

/// Makes one mount where the plan wants it.
pub(super) fn mount(
    root: &RootedDir,
    planned: &MountPlan,
    bind: Option<&Bind>,
    stage: Option<&Stage>,
) -> Result<(), Failure> {
    let shown = planned.destination.display();
    if let MountSource::Remount { bind, options } = &planned.source {
        return remount(root, planned, *bind, options);
    }
    let (tree, target) = match (&planned.source, bind) {
        (MountSource::New { kind, source, options }, _) => {
            let target = directory(root, &planned.destination, kind)?;
            (new(root, planned, (kind, source, options), &target)?, target)
        }
        (_, Some(bind)) => {
            let tree = match stage {
                Some(stage) => stage.renew(bind, || shown.to_string())?,
                None => {
                    bind.tree.try_clone().attempt(|| format!("keeping the mount for {shown}"))?
                }
            };
            propagate(&tree, planned)?;
            (tree, target(root, &planned.destination, bind.is_directory)?)
        }
        (_, None) => {
            return Err(Failure::refused(format!("mounting {shown}"), "its source was not opened"));
        }
    };
    refuse_proc(&target, planned)?;
    refuse_false_proc(&tree, planned)?;
    mount::attach(tree.as_fd(), target.as_fd()).attempt(|| format!("mounting {shown}"))
}

/// The place for a mount, made if it is missing.
pub(super) fn target(
    root: &RootedDir,
    path: &Path,
    is_directory: bool,
) -> Result<OwnedFd, Failure> {
    let made =
        if is_directory { root.make_directories(path, 0o755) } else { root.make_file(path, 0o644) };
    made.attempt(|| format!("making the mount point {}", path.display()))
}

/// As [`target`], for what is never wanted in `/proc`, where a link of the image may lead
/// (CVE-2025-52565).
pub(super) fn target_outside_proc(root: &RootedDir, path: &Path) -> Result<OwnedFd, Failure> {
    let place = target(root, path, false)?;
    if procfs::is_proc(&place).attempt(|| format!("looking at {}", path.display()))? {
        let hint = "the image leads it into /proc";
        return Err(Failure::refused(format!("mounting {}", path.display()), hint));
    }
    Ok(place)
}

/// `/proc` and `/sys` must be where the kernel's own paths expect them.
fn directory(root: &RootedDir, path: &Path, kind: &str) -> Result<OwnedFd, Failure> {
    if matches!(kind, "proc" | "sysfs")
        && let Ok(found) = root.handle_nofollow(path)
    {
        let stat =
            rustix::fs::fstat(&found).attempt(|| format!("looking at {}", path.display()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            let attempt = format!("mounting {}", path.display());
            return Err(Failure::refused(
                attempt,
                "the image has something else than a directory there",
            ));
        }
    }
    target(root, path, true)
}

/// A volume must not land on `/proc`, where we and others read what the kernel says.
fn refuse_proc(target: &OwnedFd, planned: &MountPlan) -> Result<(), Failure> {
    let allowed = REPLACEABLE.iter().any(|path| planned.destination == Path::new(path));
    if !planned.is_bind() || allowed {
        return Ok(());
    }
    let shown = planned.destination.display();
    if procfs::is_proc(target).attempt(|| format!("looking at {shown}"))? {
        let hint = "it leads into /proc, where only a few files may be replaced";
        return Err(Failure::refused(format!("mounting {shown}"), hint));
    }
    Ok(())
}

/// Programs, and an image's libraries, believe what `/proc` says; a volume there lies
/// (CVE-2019-16884).
fn refuse_false_proc(tree: &OwnedFd, planned: &MountPlan) -> Result<(), Failure> {
    if planned.destination != Path::new("/proc")
        || procfs::is_proc(tree).attempt(|| "looking at the mount for /proc".into())?
    {
        return Ok(());
    }
    Err(Failure::refused("mounting /proc", "only a proc file system may be mounted there"))
}

fn new(
    root: &RootedDir,
    planned: &MountPlan,
    (kind, source, options): (&str, &str, &[(String, Option<String>)]),
    target: &OwnedFd,
) -> Result<OwnedFd, Failure> {
    let shown = planned.destination.display();
    let make = || -> std::io::Result<OwnedFd> {
        let filesystem = Filesystem::open(kind)?;
        filesystem.set("source", source)?;
        for (key, value) in options {
            match value {
                Some(value) => filesystem.set(key, value)?,
                None => filesystem.flag(key)?,
            }
        }
        let labels =
            !OWN_LABELS.contains(&kind) && !options.iter().any(|(key, _)| key == "context");
        if let Some(label) =
            planned.label.as_ref().filter(|_| labels && System::Selinux.is_enabled())
        {
            filesystem.set("context", label)?;
        }
        if kind == "tmpfs" && !options.iter().any(|(key, _)| key == "mode") {
            // What the image says about the directory goes on holding.
            let mode = rustix::fs::fstat(target)?.st_mode & 0o7777;
            filesystem.set("mode", &format!("{mode:o}"))?;
        }
        // What it is filled with has to be written first.
        let early = if planned.copy_up { Attributes::READ_ONLY } else { Attributes::empty() };
        filesystem.mount((planned.change.set | planned.recursive.set) - early)
    };
    let tree = make().attempt(|| format!("mounting {shown}"))?;
    if planned.copy_up {
        copy_up::contents(root, &planned.destination, &tree)?;
        if planned.change.set.contains(Attributes::READ_ONLY) {
            let change = Change { set: Attributes::READ_ONLY, ..Change::default() };
            mount::set_attributes(tree.as_fd(), false, change)
                .attempt(|| format!("making {shown} read-only"))?;
        }
    }
    propagate(&tree, planned)?;
    Ok(tree)
}

fn propagate(tree: &OwnedFd, planned: &MountPlan) -> Result<(), Failure> {
    let Some((propagation, recursive)) = planned.propagation else { return Ok(()) };
    let change = Change { propagation: Some(propagation), ..Change::default() };
    mount::set_attributes(tree.as_fd(), recursive, change)
        .attempt(|| format!("setting the propagation of {}", planned.destination.display()))
}

/// Changes a mount that was made before.
fn remount(
    root: &RootedDir,
    planned: &MountPlan,
    bind: bool,
    options: &[(String, Option<String>)],
) -> Result<(), Failure> {
    let attempt = || format!("remounting {}", planned.destination.display());
    let place = root.handle(&planned.destination).attempt(attempt)?;
    if !bind {
        let options: Vec<(&str, Option<&str>)> =
            options.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
        mount::reconfigure(place.as_fd(), &options).attempt(attempt)?;
    }
    for (recursive, change) in [(true, planned.recursive), (false, planned.change)] {
        if !(change.set.is_empty() && change.clear.is_empty()) {
            mount::set_attributes(place.as_fd(), recursive, change).attempt(attempt)?;
        }
    }
    propagate(&place, planned)
}

/// An empty directory nothing can be done with.
pub(super) fn empty_directory() -> std::io::Result<OwnedFd> {
    let filesystem = Filesystem::open("tmpfs")?;
    filesystem.set("nr_inodes", "1")?;
    filesystem.set("nr_blocks", "1")?;
    filesystem.mount(
        Attributes::READ_ONLY | Attributes::NO_DEV | Attributes::NO_EXEC | Attributes::NO_SUID,
    )
}

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use carrack_linux::cgroup::{Hierarchy, Version};
use carrack_linux::mount::{self, Attributes, Change, Filesystem};
use carrack_linux::rooted::RootedDir;

use super::mounts::target;
use crate::failure::{Attempt, Failure};
use crate::plan::MountPlan;
use crate::prepared::Prepared;

const SAFE: Attributes = Attributes::NO_SUID.union(Attributes::NO_DEV).union(Attributes::NO_EXEC);

/// Shows the container its own control groups, in the layout the host has.
pub(super) fn mount(
    root: &RootedDir,
    planned: &MountPlan,
    prepared: &Prepared,
) -> Result<(), Failure> {
    let path = &planned.destination;
    let attributes = planned.change.set | SAFE;
    let place = target(root, path, true)?;
    if let [(hierarchy, bind)] = prepared.hierarchies.as_slice()
        && hierarchy.version == Version::Two
    {
        return tree(hierarchy, bind.as_ref(), attributes)
            .and_then(|tree| mount::attach(tree.as_fd(), place.as_fd()))
            .attempt(|| format!("mounting the control groups at {}", path.display()));
    }
    shelf(&place).attempt(|| format!("mounting {}", path.display()))?;
    for (hierarchy, bind) in &prepared.hierarchies {
        let name = hierarchy.controllers.join(",");
        let name = name.strip_prefix("name=").unwrap_or(&name);
        let place = target(root, &path.join(name), true)?;
        tree(hierarchy, bind.as_ref(), attributes)
            .and_then(|tree| mount::attach(tree.as_fd(), place.as_fd()))
            .attempt(|| format!("mounting control group hierarchy {name}"))?;
        for controller in hierarchy.controllers.iter().filter(|_| hierarchy.controllers.len() > 1) {
            alias(root, &path.join(controller), name)?;
        }
    }
    if attributes.contains(Attributes::READ_ONLY) {
        let change = Change { set: Attributes::READ_ONLY, ..Change::default() };
        root.handle(path)
            .and_then(|shelf| mount::set_attributes(shelf.as_fd(), false, change))
            .attempt(|| format!("making {} read-only", path.display()))?;
    }
    Ok(())
}

/// The directory that holds a mount for each hierarchy.
fn shelf(place: &OwnedFd) -> io::Result<()> {
    let filesystem = Filesystem::open("tmpfs")?;
    filesystem.set("mode", "755")?;
    let tree = filesystem.mount(SAFE)?;
    mount::attach(tree.as_fd(), place.as_fd())
}

fn tree(
    hierarchy: &Hierarchy,
    bind: Option<&OwnedFd>,
    attributes: Attributes,
) -> io::Result<OwnedFd> {
    if let Some(bind) = bind {
        let change = Change { set: attributes, ..Change::default() };
        mount::set_attributes(bind.as_fd(), false, change)?;
        return bind.try_clone();
    }
    if hierarchy.version == Version::Two {
        return Filesystem::open("cgroup2")?.mount(attributes);
    }
    let filesystem = Filesystem::open("cgroup")?;
    for controller in &hierarchy.controllers {
        match controller.strip_prefix("name=") {
            Some(name) => {
                filesystem.flag("none")?;
                filesystem.set("name", name)?;
            }
            None => filesystem.flag(controller)?,
        }
    }
    filesystem.mount(attributes)
}

/// `cpu` for `cpu,cpuacct`.
fn alias(root: &RootedDir, path: &Path, name: &str) -> Result<(), Failure> {
    let attempt = || format!("linking {}", path.display());
    root.entry(path).and_then(|entry| entry.make_link(name)).attempt(attempt)?;
    Ok(())
}

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
    shelf(&place, attributes, prepared).attempt(|| format!("mounting {}", path.display()))?;
    for (hierarchy, bind) in &prepared.hierarchies {
        let name = name_of(hierarchy);
        let place = target(root, &path.join(&name), true)?;
        tree(hierarchy, bind.as_ref(), attributes)
            .and_then(|tree| mount::attach(tree.as_fd(), place.as_fd()))
            .attempt(|| format!("mounting control group hierarchy {name}"))?;
    }
    Ok(())
}

/// The directory of a hierarchy: `cpu,cpuacct`.
fn name_of(hierarchy: &Hierarchy) -> String {
    let name = hierarchy.controllers.join(",");
    name.strip_prefix("name=").unwrap_or(&name).to_owned()
}

/// The directory that holds a mount for each hierarchy, and its controllers as links. It is
/// filled before it is attached: from then on it may be read-only.
fn shelf(place: &OwnedFd, attributes: Attributes, prepared: &Prepared) -> io::Result<()> {
    let filesystem = Filesystem::open("tmpfs")?;
    filesystem.set("mode", "755")?;
    let tree = filesystem.mount(SAFE)?;
    let inside = RootedDir::from_fd(tree.try_clone()?);
    for (hierarchy, _) in &prepared.hierarchies {
        let name = name_of(hierarchy);
        inside.make_directories(Path::new(&name), 0o755)?;
        for controller in hierarchy.controllers.iter().filter(|_| hierarchy.controllers.len() > 1) {
            // `cpu` for `cpu,cpuacct`.
            inside.make_entry(Path::new(controller), 0o755)?.make_link(&name)?;
        }
    }
    if attributes.contains(Attributes::READ_ONLY) {
        let change = Change { set: Attributes::READ_ONLY, ..Change::default() };
        mount::set_attributes(tree.as_fd(), false, change)?;
    }
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

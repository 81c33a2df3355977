//! A container's control group, whoever makes it.
//!
//! ```text
//! find ─▶ make ─▶ take_in ─▶ limit … ─▶ remove
//!            └─▶ undo
//! ```
//!
//! Three ways lead to a group: a directory of our own; a scope that systemd makes; and, for
//! somebody without the right to either, a directory where that is allowed, or none at all
//! as long as no limits are asked for.

use std::io;
use std::path::{Path, PathBuf};

use carrack_linux::cgroup::systemd::{self, Bus, Manager, Property, Scope};
use carrack_linux::cgroup::{self, CgroupError, Group, Layout, Limits, Version};
use carrack_linux::process::{self, Child};
use carrack_oci::runtime as oci;
use rustix::process::Pid;

use crate::CgroupOptions;
use crate::error::{CreateError, Problem, SpecError};
use crate::id::ContainerId;
use crate::plan::Plan;
use crate::state::RecordedUnit;

/// The group a container is to have.
#[derive(Debug)]
pub(crate) struct Home {
    group: Group,
    unit: Option<Unit>,
    /// Somebody who is in the group until the first process is.
    holder: Option<Holder>,
    rootless: bool,
    /// Whether it was named by the configuration, and has to be that one.
    is_named: bool,
    /// Whether it was not there before, so that it may be taken away again.
    is_ours: bool,
}

/// What systemd is asked for.
#[derive(Debug)]
struct Unit {
    manager: Manager,
    bus: Bus,
    scope: Scope,
    description: String,
    annotated: Vec<Property>,
}

/// A process that waits, ended with this.
#[derive(Debug)]
struct Holder(Option<Child>);

impl Drop for Holder {
    fn drop(&mut self) {
        if let Some(child) = self.0.take() {
            child.destroy();
        }
    }
}

/// Whether the kernel refused a group to somebody for want of privilege.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM))
}

fn refused(field: impl Into<String>, message: String) -> CreateError {
    let problem = Problem { field: field.into(), message };
    CreateError::Spec(SpecError::Refused(vec![problem]))
}

impl Home {
    /// Works out where it is to be. Nothing is made yet.
    pub(crate) fn find(
        options: &CgroupOptions,
        spec: &oci::Spec,
        plan: &Plan,
        id: &ContainerId,
    ) -> Result<Self, CreateError> {
        let named = spec.linux.as_ref().map_or("", |linux| linux.cgroups_path.as_str());
        if let Some(bus) = &options.systemd {
            return Self::find_unit(bus, options.rootless, spec, named, id);
        }
        let is_named = named.starts_with('/');
        let layout = match Layout::detect() {
            Err(CgroupError::NotMounted) if options.rootless && !is_named => Layout::none(),
            layout => layout?,
        };
        let path = match cgroup::own_path() {
            Some(own) if options.rootless && !is_named && layout.version() == Version::Two => {
                beside(&own, &plan.cgroup)
            }
            _ => plan.cgroup.clone(),
        };
        let group = Group::new(layout, &path)?;
        let is_ours = !group.exists();
        let rootless = options.rootless;
        Ok(Self { group, unit: None, holder: None, rootless, is_named, is_ours })
    }

    fn find_unit(
        bus: &Bus,
        rootless: bool,
        spec: &oci::Spec,
        named: &str,
        id: &ContainerId,
    ) -> Result<Self, CreateError> {
        let default = if *bus == Bus::System { "system.slice" } else { "user.slice" };
        let scope = Scope::parse(named, id.as_str(), default)
            .map_err(|message| refused("linux.cgroupsPath", message))?;
        let annotated = systemd::annotated(spec.annotations.iter())
            .map_err(|(key, message)| refused(format!("annotations.{key}"), message))?;
        let layout = Layout::detect()?;
        if *bus != Bus::System && layout.version() == Version::One {
            return Err(CgroupError::Unsupported {
                what: "systemd's driver for a user on control groups version 1".to_owned(),
                remedy: "leave --systemd-cgroup out, or start the machine with version 2 only",
            }
            .into());
        }
        let manager = Manager::connect(bus)?;
        let group = Group::new(layout, &manager.group(&scope))?;
        let description = format!("carrack container {id}");
        let unit = Unit { manager, bus: bus.clone(), scope, description, annotated };
        Ok(Self { group, unit: Some(unit), holder: None, rootless, is_named: true, is_ours: false })
    }

    pub(crate) fn group(&self) -> &Group {
        &self.group
    }

    pub(crate) fn is_rootless(&self) -> bool {
        self.rootless
    }

    /// The unit, for the record.
    pub(crate) fn unit(&self) -> Option<RecordedUnit> {
        let unit = self.unit.as_ref()?;
        let bus = match &unit.bus {
            Bus::System => None,
            Bus::User(address) => Some(address.clone()),
        };
        Some(RecordedUnit { name: unit.scope.name.clone(), bus })
    }

    /// Makes the group, with its limits.
    pub(crate) fn make(&mut self, limits: &Limits) -> Result<(), CreateError> {
        let limits = Limits {
            // Without privilege nobody is kept from devices but by whoever gave them.
            devices: limits.devices.clone().filter(|_| !self.rootless),
            ..limits.clone()
        };
        if self.unit.is_some() {
            self.start_unit(&limits)
        } else if self.rootless {
            self.make_where_allowed(&limits)
        } else {
            self.group.create()?;
            Ok(self.group.apply(&limits)?)
        }
    }

    fn start_unit(&mut self, limits: &Limits) -> Result<(), CreateError> {
        let Some(unit) = &mut self.unit else { return Ok(()) };
        let release = unit.manager.version();
        let told = self.group.told(limits, release)?;
        let version = self.group.version();
        let mut properties =
            systemd::start_properties(&unit.scope, &unit.description, version, &unit.annotated);
        properties.extend(systemd::oom_policy(limits, release));
        properties.extend(told.properties);
        let holder = hold()?;
        if let Some(child) = &holder.0 {
            unit.manager.start(&unit.scope, child.pid(), properties)?;
        }
        self.is_ours = true;
        self.holder = Some(holder);
        // systemd makes only what it has words for.
        self.group.create()?;
        Ok(self.group.apply(&told.limits)?)
    }

    /// Goes without a group where none may be made and none is needed.
    fn make_where_allowed(&mut self, limits: &Limits) -> Result<(), CreateError> {
        let (group, refusal) = self.group.create_where_allowed()?;
        let refusal = match refusal {
            Some(refusal) if group.is_none() || self.is_named => Some(refusal),
            _ => self.try_out(&group)?,
        };
        let Some(refusal) = refusal else {
            self.group = group;
            return Ok(self.group.apply(limits)?);
        };
        if self.is_ours {
            group.delete().ok(); // The refusal is what there is to report.
        }
        let needs = limits.needs();
        if self.is_named && needs.is_empty() {
            return Err(refusal.into());
        }
        if !needs.is_empty() {
            return Err(CgroupError::Unprivileged { needs, source: Box::new(refusal) }.into());
        }
        self.group = Group::none();
        Ok(())
    }

    /// A group may be made where nobody may be moved to.
    fn try_out(&self, group: &Group) -> Result<Option<CgroupError>, CreateError> {
        let holder = hold()?;
        let Some(child) = &holder.0 else { return Ok(None) };
        match group.add(child.pid()) {
            Ok(()) => Ok(None),
            Err(error) if error.is_refusal() => Ok(Some(error)),
            Err(error) => Err(error.into()),
        }
    }

    /// Sees to it that a process is in the group.
    pub(crate) fn take_in(&mut self, pid: Pid) -> Result<(), CgroupError> {
        take_in(&self.group, self.unit().as_ref(), pid)?;
        self.holder = None;
        Ok(())
    }

    /// Takes it away again; the error that led here is the one to report.
    pub(crate) fn undo(&mut self) {
        self.holder = None;
        if !self.is_ours {
            return;
        }
        self.group.kill_all().ok();
        if let Some(unit) = &mut self.unit {
            unit.manager.stop(&unit.scope.name).ok();
        }
        self.group.delete().ok();
    }
}

/// Our own group has processes in it and so cannot hand controllers down: the group is
/// beside it.
fn beside(own: &Path, path: &Path) -> PathBuf {
    let parent = own.parent().unwrap_or(Path::new(""));
    parent.join(path.strip_prefix("/").unwrap_or(path))
}

fn hold() -> Result<Holder, CreateError> {
    let attempt = "starting a process to hold the control group".to_owned();
    process::start_waiting()
        .map(|child| Holder(Some(child)))
        .map_err(|source| CreateError::Host { attempt, source })
}

fn connect(unit: &RecordedUnit) -> Result<Manager, CgroupError> {
    Manager::connect(&unit.bus.clone().map_or(Bus::System, Bus::User))
}

/// Sees to it that a process is in a group. On version 2 it was born there, unless we had
/// not the right to that; systemd then has.
pub(crate) fn take_in(
    group: &Group,
    unit: Option<&RecordedUnit>,
    pid: Pid,
) -> Result<(), CgroupError> {
    match (group.version(), unit) {
        (Version::One, _) => group.add(pid),
        (Version::Two, Some(unit)) if unit.bus.is_some() && !group.processes()?.contains(&pid) => {
            connect(unit)?.attach(&unit.name, pid)
        }
        (Version::Two, _) => Ok(()),
    }
}

/// Changes limits, for systemd too.
pub(crate) fn limit(
    group: &Group,
    unit: Option<&RecordedUnit>,
    limits: &Limits,
) -> Result<(), CgroupError> {
    let Some(unit) = unit else {
        let needs = limits.needs();
        if group.is_none() && !needs.is_empty() {
            let source = Box::new(CgroupError::NoGroup);
            return Err(CgroupError::Unprivileged { needs, source });
        }
        return group.apply(limits);
    };
    let mut manager = connect(unit)?;
    let told = group.told(limits, manager.version())?;
    // On version 1 systemd closes all devices before it opens those allowed.
    let still =
        limits.devices.is_some() && group.version() == Version::One && !group.is_frozen()?;
    if still {
        group.freeze()?;
    }
    let set = manager.set(&unit.name, told.properties).and_then(|()| group.apply(&told.limits));
    if still {
        group.thaw()?;
    }
    set
}

/// Removes a group that nobody is in any more, and its unit.
pub(crate) fn remove(group: &Group, unit: Option<&RecordedUnit>) -> Result<(), CgroupError> {
    let stopped = match unit {
        Some(unit) => connect(unit).and_then(|mut manager| manager.stop(&unit.name)),
        None => Ok(()),
    };
    if group.exists() {
        group.delete()?;
    }
    match stopped {
        // An empty scope goes by itself, and one whose systemd is gone has gone with it.
        Err(CgroupError::NoSystemd { .. }) => Ok(()),
        stopped => stopped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_without_privilege_is_beside_our_own() {
        for (own, path, expected) in [
            ("user.slice/app.slice/term.scope", "/carrack/box", "user.slice/app.slice/carrack/box"),
            ("", "/carrack/box", "carrack/box"),
        ] {
            assert_eq!(beside(Path::new(own), Path::new(path)), Path::new(expected));
        }
    }
}

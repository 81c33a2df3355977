//! A configuration, checked and worked out: nothing left to choose.
//!
//! Pure: the same configuration gives the same plan or the same list of problems. What
//! we do not do is refused here, by its place in `config.json`; nothing is ignored that
//! the specification says has an effect.

mod devices;
mod limits;
mod mounts;
mod namespaces;
mod process;
mod schedule;
mod seccomp;
mod sysctl;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};

use carrack_linux::cgroup::Limits;
use carrack_linux::mount::{Attributes, Propagation};
use carrack_linux::namespace::Kinds;
use carrack_linux::schedule::Numbers;
use carrack_oci::runtime as oci;

use crate::CreateExtras;
use crate::error::{Problem, SpecError};

pub(crate) use devices::DevicePlan;
pub(crate) use mounts::{IdMap, MountPlan, MountSource, OPTION_NAMES};
pub(crate) use namespaces::Namespaces;
pub(crate) use process::{ProcessPlan, Rlimit};

/// Everything there is to do.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) namespaces: Namespaces,
    pub(crate) uid_map: String,
    pub(crate) gid_map: String,
    pub(crate) rootfs: PathBuf,
    pub(crate) rootfs_readonly: bool,
    pub(crate) propagation: Option<(Propagation, bool)>,
    pub(crate) mounts: Vec<MountPlan>,
    /// Whether `/dev` is ours to fill.
    pub(crate) own_dev: bool,
    pub(crate) devices: Vec<DevicePlan>,
    pub(crate) masked: Vec<PathBuf>,
    pub(crate) readonly: Vec<PathBuf>,
    pub(crate) hostname: Option<String>,
    pub(crate) domainname: Option<String>,
    pub(crate) sysctls: BTreeMap<String, String>,
    pub(crate) process: Option<ProcessPlan>,
    pub(crate) cgroup: PathBuf,
    pub(crate) limits: Limits,
    pub(crate) personality: Option<u32>,
    pub(crate) memory_policy: Option<(i32, Numbers)>,
    /// Interfaces of the host to move into the container, and their names there.
    pub(crate) net_devices: Vec<(String, String)>,
    pub(crate) annotations: BTreeMap<String, String>,
    /// What is done otherwise than asked, as others do it too.
    pub(crate) warnings: Vec<Problem>,
    /// Whether the program gets a session keyring of its own.
    pub(crate) new_keyring: bool,
}

impl Plan {
    /// Whether the container's root is somebody else on the host.
    pub(crate) fn has_user_namespace(&self) -> bool {
        self.namespaces.own().contains(Kinds::USER)
    }
}

impl Plan {
    /// What a caller wants besides; `notify` is the directory for its socket.
    pub(crate) fn add(&mut self, extras: &CreateExtras, notify: &Path) -> Result<(), SpecError> {
        let mut problems = Problems::default();
        self.new_keyring = !extras.keep_keyring;
        if extras.notify {
            self.mounts.push(MountPlan::shown(notify, Path::new("/run/notify")));
        }
        if let Some(process) = &mut self.process {
            process.plain_newlines = extras.plain_newlines;
            for variable in &extras.environment {
                match CString::new(variable.as_bytes()) {
                    Ok(variable) => process.env.push(variable),
                    Err(_) => problems.add("process.env", "contains a NUL byte"),
                }
            }
        }
        self.warnings.extend(problems.finish()?);
        Ok(())
    }

    /// Who is to own the container's group: its user, by the number on the host, where it
    /// can write to a tree of groups of its own.
    pub(crate) fn cgroup_owner(&self) -> Option<u32> {
        let writable = self.mounts.iter().any(|mount| {
            mount.source == MountSource::Cgroup && !mount.change.set.contains(Attributes::READ_ONLY)
        });
        let user = self.process.as_ref()?.uid;
        let new = self.namespaces.new;
        if !writable || !new.contains(Kinds::CGROUP) {
            return None;
        }
        if new.contains(Kinds::USER) { mapped(&self.uid_map, user) } else { Some(user) }
    }
}

/// Whose users a container has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum UserNamespace {
    Callers,
    New,
    Joined,
}

impl UserNamespace {
    fn of(namespaces: &Namespaces) -> Self {
        if namespaces.new.contains(Kinds::USER) {
            Self::New
        } else if namespaces.path_of(Kinds::USER).is_some() {
            Self::Joined
        } else {
            Self::Callers
        }
    }
}

/// The host's number for `id`, by the lines of a map: `INSIDE OUTSIDE COUNT`.
fn mapped(map: &str, id: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let numbers: Vec<u32> =
            line.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect();
        let [inside, outside, count] = *numbers.as_slice() else { return None };
        let offset = id.checked_sub(inside).filter(|&offset| offset < count)?;
        outside.checked_add(offset)
    })
}

/// Collects what is wrong.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    found: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Problems {
    pub(crate) fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.found.push(Problem { field: field.into(), message: message.into() });
    }

    /// Something that is left out, with a word to the caller: refusing it would keep
    /// configurations from running that run everywhere else.
    pub(crate) fn warn(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.warnings.push(Problem { field: field.into(), message: message.into() });
    }

    /// The warnings, unless there are problems.
    fn finish(self) -> Result<Vec<Problem>, SpecError> {
        if self.found.is_empty() { Ok(self.warnings) } else { Err(SpecError::Refused(self.found)) }
    }
}

/// Works out what `spec`, of the bundle at `bundle`, asks for.
pub(crate) fn plan(spec: &oci::Spec, bundle: &Path, id: &str) -> Result<Plan, SpecError> {
    let mut problems = Problems::default();
    let empty = oci::Linux::default();
    let linux = spec.linux.as_ref().unwrap_or_else(|| {
        problems.add("linux", "is missing; this runtime makes Linux containers only");
        &empty
    });
    check_version(spec, &mut problems);
    refuse_unsupported(spec, linux, &mut problems);
    let namespaces = namespaces::plan(linux, &mut problems);
    let own = namespaces.own();
    let (rootfs, rootfs_readonly) = root(spec, bundle, &mut problems);
    let mounts = mounts::plan(&spec.mounts, own, &linux.mount_label, &mut problems);
    let own_dev =
        !mounts.iter().any(|mount| mount.is_bind() && mount.destination == Path::new("/dev"));
    let process = match &spec.process {
        None => None,
        Some(process) => process::plan(process, linux.seccomp.as_ref(), &mut problems)?,
    };
    let user = UserNamespace::of(&namespaces);
    let mut plan = Plan {
        rootfs,
        rootfs_readonly,
        propagation: propagation(linux, &mut problems),
        mounts,
        own_dev,
        devices: devices::plan(linux, &mut problems),
        masked: absolute_paths(&linux.masked_paths, "linux.maskedPaths", &mut problems),
        readonly: absolute_paths(&linux.readonly_paths, "linux.readonlyPaths", &mut problems),
        uid_map: id_map(&linux.uid_mappings, user, "linux.uidMappings", &mut problems),
        gid_map: id_map(&linux.gid_mappings, user, "linux.gidMappings", &mut problems),
        hostname: name_in_uts(&spec.hostname, "hostname", own, &mut problems),
        domainname: name_in_uts(&spec.domainname, "domainname", own, &mut problems),
        sysctls: sysctl::plan(&linux.sysctl, own, &mut problems),
        net_devices: net_devices(linux, own, &mut problems),
        memory_policy: schedule::memory_policy(linux, &mut problems),
        namespaces,
        process,
        cgroup: cgroup_path(linux, id),
        limits: limits::of_container(linux, &mut problems),
        personality: personality(linux, &mut problems),
        annotations: spec.annotations.clone(),
        warnings: Vec::new(),
        new_keyring: true,
    };
    plan.warnings = problems.finish()?;
    Ok(plan)
}

/// A process for a container that exists.
pub(crate) fn plan_process(
    process: &oci::Process,
    seccomp: Option<&oci::LinuxSeccomp>,
) -> Result<Option<ProcessPlan>, SpecError> {
    let mut problems = Problems::default();
    let plan = process::plan(process, seccomp, &mut problems)?;
    problems.finish()?;
    Ok(plan)
}

/// What holds for every program of a container.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) personality: Option<u32>,
    pub(crate) memory_policy: Option<(i32, Numbers)>,
}

/// What holds for a program that joins the container made from `spec`.
pub(crate) fn settings(spec: &oci::Spec) -> Result<Settings, SpecError> {
    let mut problems = Problems::default();
    let linux = spec.linux.as_ref();
    let settings = Settings {
        personality: linux.and_then(|linux| personality(linux, &mut problems)),
        memory_policy: linux.and_then(|linux| schedule::memory_policy(linux, &mut problems)),
    };
    problems.finish()?;
    Ok(settings)
}

/// New limits for a container that exists, and what of them has no effect.
pub(crate) fn plan_limits(
    resources: &oci::LinuxResources,
) -> Result<(Limits, Vec<Problem>), SpecError> {
    let mut problems = Problems::default();
    let limits = limits::limits(resources, &mut problems);
    Ok((limits, problems.finish()?))
}

fn check_version(spec: &oci::Spec, problems: &mut Problems) {
    let version = &spec.version;
    let major = version.split('.').next().unwrap_or_default();
    if major != "1" || version.split('.').count() < 3 {
        problems.add("ociVersion", format!("{version:?} is not 1.x.y, which this runtime speaks"));
    }
}

fn refuse_unsupported(spec: &oci::Spec, linux: &oci::Linux, problems: &mut Problems) {
    let mut refuse = |present: bool, field: &str| {
        if present {
            problems.add(field, "is not supported; remove it");
        }
    };
    refuse(spec.solaris.is_some(), "solaris");
    refuse(spec.windows.is_some(), "windows");
    refuse(spec.vm.is_some(), "vm");
    refuse(spec.zos.is_some(), "zos");
    refuse(spec.freebsd.is_some(), "freebsd");
    refuse(linux.intel_rdt.is_some(), "linux.intelRdt");
}

fn root(spec: &oci::Spec, bundle: &Path, problems: &mut Problems) -> (PathBuf, bool) {
    match &spec.root {
        Some(root) => (bundle.join(&root.path), root.readonly),
        None => {
            problems
                .add("root", "is missing; name the directory of the root file system in root.path");
            (PathBuf::new(), false)
        }
    }
}

fn propagation(linux: &oci::Linux, problems: &mut Problems) -> Option<(Propagation, bool)> {
    let text = Some(linux.rootfs_propagation.as_str()).filter(|text| !text.is_empty())?;
    let found = mounts::propagation(text);
    if found.is_none() {
        problems.add(
            "linux.rootfsPropagation",
            format!("{text:?} is none of [r]private, [r]slave, [r]shared, [r]unbindable"),
        );
    }
    found
}

fn absolute_paths(paths: &[PathBuf], field: &str, problems: &mut Problems) -> Vec<PathBuf> {
    for path in paths.iter().filter(|path| !path.is_absolute()) {
        problems.add(field, format!("{} is not absolute", path.display()));
    }
    paths.to_owned()
}

fn id_map(
    mappings: &[oci::LinuxIdMapping],
    user: UserNamespace,
    field: &str,
    problems: &mut Problems,
) -> String {
    match (user, mappings.is_empty()) {
        (UserNamespace::New, true) => {
            problems.add(field, "is empty, and a new user namespace needs at least one range");
        }
        (UserNamespace::Callers, false) => {
            problems.add(field, "needs a user namespace in linux.namespaces");
        }
        // One that is joined has ranges of its own.
        (UserNamespace::New, false)
        | (UserNamespace::Callers, true)
        | (UserNamespace::Joined, _) => {}
    }
    map_lines(mappings)
}

/// Lines of a map: `INSIDE OUTSIDE COUNT`.
fn map_lines(mappings: &[oci::LinuxIdMapping]) -> String {
    mappings
        .iter()
        .map(|range| format!("{} {} {}\n", range.container_id, range.host_id, range.size))
        .collect()
}

fn name_in_uts(name: &str, field: &str, own: Kinds, problems: &mut Problems) -> Option<String> {
    let name = Some(name.to_owned()).filter(|name| !name.is_empty())?;
    if !own.contains(Kinds::UTS) {
        problems.add(field, "needs a uts namespace, or it would rename the host");
    }
    Some(name)
}

/// A relative path counts from our own place, and so does none at all.
fn cgroup_path(linux: &oci::Linux, id: &str) -> PathBuf {
    let path = if linux.cgroups_path.is_empty() { id } else { &linux.cgroups_path };
    // An absolute path replaces what it is joined to.
    Path::new("/carrack").join(path)
}

/// Interfaces to move, each with the name it gets.
fn net_devices(linux: &oci::Linux, own: Kinds, problems: &mut Problems) -> Vec<(String, String)> {
    /// The longest name of an interface.
    const MAX_NAME: usize = 15;
    let mut found: Vec<(String, String)> = Vec::new();
    if !linux.net_devices.is_empty() && !own.contains(Kinds::NETWORK) {
        problems.add("linux.netDevices", "needs a network namespace that is not the host's");
    }
    for (name, device) in &linux.net_devices {
        let field = format!("linux.netDevices.{name}");
        let inside = if device.name.is_empty() { name } else { &device.name };
        for name in [name, inside] {
            let odd = |byte: u8| byte == b'/' || byte == b':' || byte.is_ascii_whitespace();
            let wrong = name.is_empty() || name.len() > MAX_NAME || name == "." || name == "..";
            if wrong || name.bytes().any(odd) {
                problems.add(&field, format!("{name:?} is no name of an interface"));
            }
        }
        if found.iter().any(|(_, other)| other == inside) {
            problems.add(&field, format!("{inside:?} is the name of two interfaces"));
        }
        found.push((name.clone(), inside.clone()));
    }
    found
}

fn personality(linux: &oci::Linux, problems: &mut Problems) -> Option<u32> {
    let personality = linux.personality.as_ref()?;
    if !personality.flags.is_empty() {
        problems.add("linux.personality.flags", "is not supported; remove it");
    }
    Some(match personality.domain {
        oci::LinuxPersonalityDomain::Linux => 0,
        oci::LinuxPersonalityDomain::Linux32 => 8,
    })
}

#[cfg(test)]
mod tests;

//! A configuration, checked and worked out: nothing left to choose.
//!
//! Pure: the same configuration gives the same plan or the same list of problems. What
//! we do not do is refused here, by its place in `config.json`; nothing is ignored that
//! the specification says has an effect.

mod limits;
mod mounts;
mod process;
mod seccomp;
mod sysctl;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use carrack_linux::cgroup::Limits;
use carrack_linux::mount::{Attributes, Propagation};
use carrack_linux::namespace::Kinds;
use carrack_oci::runtime as oci;

use crate::error::{Problem, SpecError};

pub(crate) use mounts::{MountPlan, MountSource, OPTION_NAMES};
pub(crate) use process::{ProcessPlan, Rlimit};

/// Everything there is to do.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Namespaces to make.
    pub(crate) new: Kinds,
    /// Namespaces to join, by their files.
    pub(crate) joined: Vec<(Kinds, PathBuf)>,
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
    /// What has no effect.
    pub(crate) warnings: Vec<String>,
    pub(crate) personality: Option<u32>,
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Plan {
    /// Whether the container's root is somebody else on the host.
    pub(crate) fn has_user_namespace(&self) -> bool {
        self.new.contains(Kinds::USER) || self.joined.iter().any(|(kind, _)| *kind == Kinds::USER)
    }
}

impl Plan {
    /// Who is to own the container's group: its user, by the number on the host, where it
    /// can write to a tree of groups of its own.
    pub(crate) fn cgroup_owner(&self) -> Option<u32> {
        let writable = self.mounts.iter().any(|mount| {
            mount.source == MountSource::Cgroup && !mount.change.set.contains(Attributes::READ_ONLY)
        });
        let user = self.process.as_ref()?.uid;
        if !writable || !self.new.contains(Kinds::CGROUP) {
            return None;
        }
        if self.new.contains(Kinds::USER) { mapped(&self.uid_map, user) } else { Some(user) }
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

/// A device node, or a pipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DevicePlan {
    pub(crate) path: PathBuf,
    pub(crate) kind: rustix::fs::FileType,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Collects what is wrong.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    pub(crate) fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { field: field.into(), message: message.into() });
    }

    fn finish(self) -> Result<(), SpecError> {
        if self.0.is_empty() { Ok(()) } else { Err(SpecError::Refused(self.0)) }
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
    let (new, joined) = namespaces(linux, &mut problems);
    let (rootfs, rootfs_readonly) = root(spec, bundle, &mut problems);
    let mounts = mounts::plan(&spec.mounts, &mut problems);
    let own_dev =
        !mounts.iter().any(|mount| mount.is_bind() && mount.destination == Path::new("/dev"));
    let process = match &spec.process {
        None => None,
        Some(process) => process::plan(process, linux.seccomp.as_ref(), &mut problems)?,
    };
    let user = new.contains(Kinds::USER);
    let plan = Plan {
        new,
        rootfs,
        rootfs_readonly,
        propagation: propagation(linux, &mut problems),
        mounts,
        own_dev,
        devices: devices(linux, &mut problems),
        masked: absolute_paths(&linux.masked_paths, "linux.maskedPaths", &mut problems),
        readonly: absolute_paths(&linux.readonly_paths, "linux.readonlyPaths", &mut problems),
        uid_map: id_map(&linux.uid_mappings, user, "linux.uidMappings", &mut problems),
        gid_map: id_map(&linux.gid_mappings, user, "linux.gidMappings", &mut problems),
        hostname: name_in_uts(&spec.hostname, "hostname", new, &joined, &mut problems),
        domainname: name_in_uts(&spec.domainname, "domainname", new, &joined, &mut problems),
        sysctls: sysctl::plan(&linux.sysctl, new, &joined, &mut problems),
        joined,
        process,
        cgroup: cgroup_path(linux, id),
        limits: limits::of_container(linux, &mut problems),
        warnings: linux.resources.as_ref().map(limits::warnings).unwrap_or_default(),
        personality: personality(linux, &mut problems),
        annotations: spec.annotations.clone(),
    };
    problems.finish()?;
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

/// New limits for a container that exists, and what of them has no effect.
pub(crate) fn plan_limits(
    resources: &oci::LinuxResources,
) -> Result<(Limits, Vec<String>), SpecError> {
    let mut problems = Problems::default();
    let limits = limits::limits(resources, &mut problems);
    problems.finish()?;
    Ok((limits, limits::warnings(resources)))
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
    refuse(linux.memory_policy.is_some(), "linux.memoryPolicy");
    refuse(!linux.time_offsets.is_empty(), "linux.timeOffsets");
    refuse(!linux.net_devices.is_empty(), "linux.netDevices");
    refuse(!linux.mount_label.is_empty(), "linux.mountLabel");
}

fn kind_of(kind: oci::LinuxNamespaceType) -> Option<Kinds> {
    use oci::LinuxNamespaceType as Type;
    Some(match kind {
        Type::Mount => Kinds::MOUNT,
        Type::Cgroup => Kinds::CGROUP,
        Type::Uts => Kinds::UTS,
        Type::Ipc => Kinds::IPC,
        Type::User => Kinds::USER,
        Type::Pid => Kinds::PID,
        Type::Network => Kinds::NETWORK,
        Type::Time => return None,
    })
}

fn namespaces(linux: &oci::Linux, problems: &mut Problems) -> (Kinds, Vec<(Kinds, PathBuf)>) {
    let mut new = Kinds::empty();
    let mut joined = Vec::new();
    let mut seen = Kinds::empty();
    for namespace in &linux.namespaces {
        let Some(kind) = kind_of(namespace.kind) else {
            problems.add("linux.namespaces", "time namespaces are not supported; remove it");
            continue;
        };
        if seen.contains(kind) {
            problems.add("linux.namespaces", format!("{} is listed twice", namespace.kind));
        }
        seen |= kind;
        let path = &namespace.path;
        if path.as_os_str().is_empty() {
            new |= kind;
            continue;
        }
        if !path.is_absolute() {
            problems.add("linux.namespaces", format!("{} is not absolute", path.display()));
        }
        joined.push((kind, path.clone()));
    }
    if !new.contains(Kinds::MOUNT) {
        problems
            .add("linux.namespaces", "a new mount namespace is required; add one without a path");
    }
    if joined.iter().any(|(kind, _)| *kind == Kinds::USER) {
        problems.add(
            "linux.namespaces",
            "joining a user namespace by path is not supported; map a new one",
        );
    }
    (new, joined)
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
    user: bool,
    field: &str,
    problems: &mut Problems,
) -> String {
    match (user, mappings.is_empty()) {
        (true, true) => {
            problems.add(field, "is empty, and a new user namespace needs at least one range")
        }
        (false, false) => problems.add(field, "needs a new user namespace in linux.namespaces"),
        (true, false) | (false, true) => {}
    }
    mappings
        .iter()
        .map(|range| format!("{} {} {}\n", range.container_id, range.host_id, range.size))
        .collect()
}

fn name_in_uts(
    name: &str,
    field: &str,
    new: Kinds,
    joined: &[(Kinds, PathBuf)],
    problems: &mut Problems,
) -> Option<String> {
    let name = Some(name.to_owned()).filter(|name| !name.is_empty())?;
    let own = new.contains(Kinds::UTS) || joined.iter().any(|(kind, _)| *kind == Kinds::UTS);
    if !own {
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

fn devices(linux: &oci::Linux, problems: &mut Problems) -> Vec<DevicePlan> {
    use rustix::fs::FileType;
    let mut devices = default_devices();
    for (index, device) in linux.devices.iter().enumerate() {
        let field = format!("linux.devices[{index}]");
        let kind = match device.kind.as_str() {
            "b" => FileType::BlockDevice,
            "c" | "u" => FileType::CharacterDevice,
            "p" => FileType::Fifo,
            other => {
                problems.add(field, format!("type {other:?} is none of b, c, u and p"));
                continue;
            }
        };
        let path = device.path.clone();
        if !path.is_absolute() {
            problems.add(&field, format!("{} is not absolute", path.display()));
        }
        let number = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
        devices.retain(|known| known.path != path);
        devices.push(DevicePlan {
            path,
            kind,
            major: number(device.major),
            minor: number(device.minor),
            mode: device.file_mode.unwrap_or(0o666) & 0o7777,
            uid: device.uid.unwrap_or(0),
            gid: device.gid.unwrap_or(0),
        });
    }
    devices
}

/// What the specification says is always there.
fn default_devices() -> Vec<DevicePlan> {
    [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ]
    .into_iter()
    .map(|(name, major, minor)| DevicePlan {
        path: Path::new("/dev").join(name),
        kind: rustix::fs::FileType::CharacterDevice,
        major,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    })
    .collect()
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

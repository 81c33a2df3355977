//! What a container gets when nobody asks for anything else.
//!
//! ```text
//! DefaultSpec (what was asked for) ──default_spec──▶ Spec (config.json, nothing left to choose)
//! ```
//!
//! Capabilities, mounts, devices, masked and read-only paths follow Docker, so that an image
//! that runs there runs here with the same rights. The engine and the builder both start from
//! this; whatever only one of them wants is added by that one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::seccomp::{self, Architecture};
use super::{
    Capabilities, Capability, Linux, LinuxCapabilities, LinuxCpu, LinuxDeviceCgroup, LinuxMemory,
    LinuxNamespace, LinuxNamespaceType, LinuxPids, LinuxResources, Mount, PosixRlimit, Process,
    Root, Spec, UnknownCapability, User, VERSION,
};

/// What is asked of a container; the rest is decided by [`default_spec`].
#[derive(Clone, Debug, Default)]
pub struct DefaultSpec {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Environment as `NAME=value`. [`DEFAULT_PATH`] is added when it names no `PATH`.
    pub env: Vec<String>,
    /// Working directory; empty means `/`.
    pub cwd: PathBuf,
    /// User id the program runs as.
    pub uid: u32,
    /// Group id the program runs as.
    pub gid: u32,
    /// Further groups of the program.
    pub additional_gids: Vec<u32>,
    /// Whether the program gets a terminal.
    pub terminal: bool,
    /// Host name inside; none keeps the kernel's.
    pub hostname: Option<String>,
    /// Cgroup, such as `/carrack/<id>`; none lets the runtime choose.
    pub cgroups_path: Option<PathBuf>,
    /// Root filesystem, absolute or relative to the bundle; empty means `rootfs`.
    pub rootfs: PathBuf,
    /// Whether the root filesystem cannot be written.
    pub readonly_rootfs: bool,
    /// Changes to the default capability set.
    pub capabilities: CapabilityChanges,
    /// Which system calls are allowed.
    pub seccomp: Seccomp,
    /// Whether set-user-id programs and file capabilities are without effect.
    pub no_new_privileges: bool,
    /// Where the network comes from.
    pub network: NetworkNamespace,
    /// Limits on what the container may use.
    pub limits: Limits,
    /// Mounts made after the default ones, in this order. One that has the destination of a
    /// default mount replaces it.
    pub mounts: Vec<Mount>,
    /// Kernel settings of the container's own namespaces.
    pub sysctl: BTreeMap<String, String>,
    /// Resource limits of the program.
    pub rlimits: Vec<PosixRlimit>,
    /// How ready the kernel is to kill it when memory runs out, -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Size of `/dev/shm` in bytes; none means 64 MiB.
    pub shm_bytes: Option<u64>,
    /// Notes kept with the container.
    pub annotations: BTreeMap<String, String>,
}

/// Which system calls a container may make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// Those of [`seccomp::default_profile`].
    #[default]
    Default,
    /// All of them.
    Unconfined,
}

/// Where a container's network comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NetworkNamespace {
    /// A new, empty one.
    #[default]
    New,
    /// The one found at this path.
    Path(PathBuf),
    /// The one the runtime itself is in.
    Host,
}

/// Limits on what a container may use. None means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Memory in bytes. Swap is held to the same figure, so it is the limit of both together.
    pub memory_bytes: Option<i64>,
    /// Memory in bytes kept for the container under pressure.
    pub memory_reservation_bytes: Option<i64>,
    /// Processors' worth of time, such as `0.5`.
    pub cpus: Option<f64>,
    /// Share of processor time against others, 1024 being the usual.
    pub cpu_shares: Option<u64>,
    /// Processes and threads.
    pub pids: Option<i64>,
}

/// Changes to the default capability set, in Docker's manner.
///
/// Dropping applies before adding one by one; adding all applies before dropping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapabilityChanges {
    /// Added to the default set.
    pub add: CapabilityList,
    /// Taken from it.
    pub drop: CapabilityList,
}

/// Some capabilities, or all there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CapabilityList {
    /// These.
    Some(Vec<Capability>),
    /// Every capability there is.
    All,
}

impl Default for CapabilityList {
    fn default() -> Self {
        Self::Some(Vec::new())
    }
}

impl CapabilityList {
    /// Reads capability names as people write them: any case, `CAP_` or not, `ALL` for all.
    ///
    /// # Errors
    ///
    /// [`UnknownCapability`] with the first word that names none.
    pub fn parse<S: AsRef<str>>(words: &[S]) -> Result<Self, UnknownCapability> {
        let mut list = Vec::new();
        for word in words {
            let upper = word.as_ref().to_ascii_uppercase();
            if upper == "ALL" {
                return Ok(Self::All);
            }
            list.push(word.as_ref().parse()?);
        }
        Ok(Self::Some(list))
    }
}

impl CapabilityChanges {
    /// The set a container ends up with.
    pub fn apply(&self) -> Capabilities {
        let start: &[Capability] = match (&self.add, &self.drop) {
            (CapabilityList::All, _) => Capability::ALL,
            (CapabilityList::Some(_), CapabilityList::All) => &[],
            (CapabilityList::Some(_), CapabilityList::Some(_)) => DEFAULT_CAPABILITIES,
        };
        let mut held: Capabilities = start.iter().copied().collect();
        if let CapabilityList::Some(drop) = &self.drop {
            for capability in drop {
                held.remove(capability);
            }
        }
        if let CapabilityList::Some(add) = &self.add {
            held.extend(add);
        }
        held
    }
}

/// Where programs are looked for when the environment does not say.
pub const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What Docker leaves a container of root's capabilities.
pub const DEFAULT_CAPABILITIES: &[Capability] = &[
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// Paths that read as empty, since they tell of the host or let it be disturbed.
pub const MASKED_PATHS: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths that cannot be written.
pub const READONLY_PATHS: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const SHM_BYTES: u64 = 64 << 20;
/// Length of the scheduler's period in microseconds, over which `cpus` is spread.
const CPU_PERIOD: u64 = 100_000;

/// Writes the `config.json` for what was asked.
pub fn default_spec(asked: &DefaultSpec) -> Spec {
    let held = asked.capabilities.apply();
    Spec {
        version: VERSION.to_owned(),
        process: Some(process(asked, &held)),
        root: Some(root(asked)),
        hostname: asked.hostname.clone().unwrap_or_default(),
        mounts: mounts(asked),
        annotations: asked.annotations.clone(),
        linux: Some(linux(asked, &held)),
        ..Spec::default()
    }
}

fn process(asked: &DefaultSpec, held: &Capabilities) -> Process {
    Process {
        terminal: asked.terminal,
        user: User {
            uid: asked.uid,
            gid: asked.gid,
            additional_gids: asked.additional_gids.clone(),
            ..User::default()
        },
        args: asked.args.clone(),
        env: environment(&asked.env),
        cwd: if asked.cwd.as_os_str().is_empty() { "/".into() } else { asked.cwd.clone() },
        capabilities: Some(capabilities(held)),
        rlimits: asked.rlimits.clone(),
        oom_score_adj: asked.oom_score_adj,
        no_new_privileges: asked.no_new_privileges,
        ..Process::default()
    }
}

fn environment(asked: &[String]) -> Vec<String> {
    let path = (!asked.iter().any(|entry| entry.starts_with("PATH="))).then_some(DEFAULT_PATH);
    path.map(str::to_owned).into_iter().chain(asked.iter().cloned()).collect()
}

/// The sets of a process that holds `held`. Nothing is inheritable or ambient, so that a program
/// started by another user than root gets none of it without a file that grants it.
pub fn capabilities(held: &Capabilities) -> LinuxCapabilities {
    let names: Vec<String> = held.iter().map(ToString::to_string).collect();
    LinuxCapabilities {
        bounding: names.clone(),
        effective: names.clone(),
        permitted: names,
        ..LinuxCapabilities::default()
    }
}

fn root(asked: &DefaultSpec) -> Root {
    let given = !asked.rootfs.as_os_str().is_empty();
    Root {
        path: if given { asked.rootfs.clone() } else { "rootfs".into() },
        readonly: asked.readonly_rootfs,
    }
}

fn mounts(asked: &DefaultSpec) -> Vec<Mount> {
    let shm = format!("size={}", asked.shm_bytes.unwrap_or(SHM_BYTES));
    let kept = [
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm]),
    ];
    let replaced =
        |default: &Mount| asked.mounts.iter().any(|other| other.destination == default.destination);
    let kept = kept.into_iter().filter(|default| !replaced(default));
    kept.chain(asked.mounts.iter().cloned()).collect()
}

/// Writes one entry of a mount table.
pub fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.into(),
        kind: kind.to_owned(),
        source: source.into(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    }
}

fn linux(asked: &DefaultSpec, held: &Capabilities) -> Linux {
    Linux {
        namespaces: namespaces(&asked.network),
        resources: Some(resources(&asked.limits)),
        cgroups_path: asked
            .cgroups_path
            .as_ref()
            .map(|path| path.display().to_string())
            .unwrap_or_default(),
        masked_paths: MASKED_PATHS.iter().map(PathBuf::from).collect(),
        readonly_paths: READONLY_PATHS.iter().map(PathBuf::from).collect(),
        sysctl: sysctl(asked),
        seccomp: match asked.seccomp {
            Seccomp::Default => Some(seccomp::default_profile(Architecture::native(), held)),
            Seccomp::Unconfined => None,
        },
        ..Linux::default()
    }
}

fn namespaces(network: &NetworkNamespace) -> Vec<LinuxNamespace> {
    use LinuxNamespaceType as Type;
    let own = [Type::Pid, Type::Mount, Type::Ipc, Type::Uts, Type::Cgroup];
    let mut list: Vec<_> = own.into_iter().map(LinuxNamespace::new).collect();
    match network {
        NetworkNamespace::New => list.push(LinuxNamespace::new(Type::Network)),
        NetworkNamespace::Path(path) => list.push(LinuxNamespace::joined(Type::Network, path)),
        NetworkNamespace::Host => {}
    }
    list
}

/// Docker lets a container with a network of its own bind low ports and send ping without
/// privileges. A network made elsewhere is set there.
fn sysctl(asked: &DefaultSpec) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    if asked.network == NetworkNamespace::New {
        settings.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        settings.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
    }
    settings.extend(asked.sysctl.iter().map(|(name, value)| (name.clone(), value.clone())));
    settings
}

fn resources(limits: &Limits) -> LinuxResources {
    let memory = limits.memory_bytes.is_some() || limits.memory_reservation_bytes.is_some();
    let cpu = limits.cpus.is_some() || limits.cpu_shares.is_some();
    LinuxResources {
        devices: devices(),
        memory: memory.then(|| LinuxMemory {
            limit: limits.memory_bytes,
            swap: limits.memory_bytes,
            reservation: limits.memory_reservation_bytes,
            ..LinuxMemory::default()
        }),
        cpu: cpu.then(|| LinuxCpu {
            quota: limits.cpus.map(quota),
            period: limits.cpus.map(|_| CPU_PERIOD),
            shares: limits.cpu_shares,
            ..LinuxCpu::default()
        }),
        pids: limits.pids.map(|limit| LinuxPids { limit: Some(limit) }),
        ..LinuxResources::default()
    }
}

/// Microseconds of processor time per period; the kernel takes no less than a thousand.
#[expect(clippy::cast_possible_truncation, reason = "clamped to what fits before the cast")]
fn quota(cpus: f64) -> i64 {
    (cpus * 100_000.0).round().clamp(1_000.0, 1.0e12) as i64
}

/// Which device nodes may be used: none but the harmless ones every program expects. Making
/// nodes is allowed, since the ability to open them is what is withheld.
fn devices() -> Vec<LinuxDeviceCgroup> {
    let device = |allow, kind: &str, major, minor, access: &str| LinuxDeviceCgroup {
        allow,
        kind: kind.to_owned(),
        major,
        minor,
        access: access.to_owned(),
    };
    let mut list = vec![
        device(false, "a", None, None, "rwm"),
        device(true, "c", None, None, "m"),
        device(true, "b", None, None, "m"),
    ];
    // null, zero, full, random, urandom; tty, console, ptmx.
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        list.push(device(true, "c", Some(major), Some(minor), "rwm"));
    }
    // Terminals of the container's own devpts.
    list.push(device(true, "c", Some(136), None, "rwm"));
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(add: &[&str], drop: &[&str]) -> Capabilities {
        let changes = CapabilityChanges {
            add: CapabilityList::parse(add).expect("capabilities to add parse"),
            drop: CapabilityList::parse(drop).expect("capabilities to drop parse"),
        };
        changes.apply()
    }

    #[test]
    fn nothing_asked_is_dockers_fourteen_capabilities() {
        assert_eq!(held(&[], &[]).len(), 14);
        assert!(!held(&[], &[]).contains(&Capability::SysAdmin));
    }

    #[test]
    fn dropping_all_and_adding_one_leaves_one() {
        assert_eq!(held(&["net_bind_service"], &["ALL"]), [Capability::NetBindService].into());
    }

    #[test]
    fn adding_all_and_dropping_one_leaves_the_rest() {
        let held = held(&["all"], &["CAP_SYS_ADMIN"]);
        assert_eq!(held.len(), Capability::ALL.len() - 1);
        assert!(!held.contains(&Capability::SysAdmin));
    }

    #[test]
    fn a_word_that_is_no_capability_is_named() {
        assert_eq!(
            CapabilityList::parse(&["CHOWN", "FLY"]),
            Err(UnknownCapability("FLY".to_owned()))
        );
    }

    #[test]
    fn every_listed_capability_is_read_by_its_name() {
        for capability in Capability::ALL {
            let name = capability.to_string().to_lowercase();
            let parsed = CapabilityList::parse(&[name.as_str()]);
            assert_eq!(parsed, Ok(CapabilityList::Some(vec![*capability])), "{name}");
        }
    }

    #[test]
    fn a_mount_with_the_place_of_a_default_one_replaces_it() {
        let asked = DefaultSpec {
            mounts: vec![mount("/dev/shm", "tmpfs", "shm", &["size=1m"])],
            ..DefaultSpec::default()
        };
        let spec = default_spec(&asked);
        let shm: Vec<_> =
            spec.mounts.iter().filter(|m| m.destination.as_os_str() == "/dev/shm").collect();
        assert_eq!(shm.len(), 1);
        assert_eq!(shm[0].options, ["size=1m"]);
    }

    #[test]
    fn half_a_processor_is_half_of_each_period() {
        let limits = Limits { cpus: Some(0.5), ..Limits::default() };
        let resources = resources(&limits);
        let cpu = resources.cpu.expect("a cpu limit is written");
        assert_eq!((cpu.quota, cpu.period), (Some(50_000), Some(100_000)));
    }

    #[test]
    fn a_path_given_is_kept_and_one_missing_is_added() {
        assert_eq!(environment(&["A=1".to_owned()]), [DEFAULT_PATH, "A=1"]);
        assert_eq!(environment(&["PATH=/x".to_owned()]), ["PATH=/x"]);
    }

    #[test]
    fn the_written_config_reads_back_the_same() {
        let spec = default_spec(&DefaultSpec {
            args: vec!["/bin/true".to_owned()],
            network: NetworkNamespace::Path("/run/netns/x".into()),
            ..DefaultSpec::default()
        });
        let text = serde_json::to_string(&spec).expect("a spec is JSON");
        assert_eq!(serde_json::from_str::<Spec>(&text).expect("and reads back"), spec);
    }
}

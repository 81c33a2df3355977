use std::collections::BTreeMap;
use std::path::PathBuf;

use super::field::{closed, words};
use super::{LinuxResources, LinuxSeccomp};

words! {
    /// What Linux needs to know of a container.
    #[derive(Default)]
    pub struct Linux {
        /// Users of a new user namespace.
        uid_mappings ("uidMappings"): Vec<LinuxIdMapping>,
        /// Groups of a new user namespace.
        gid_mappings ("gidMappings"): Vec<LinuxIdMapping>,
        /// Kernel settings, by dotted name.
        sysctl ("sysctl"): BTreeMap<String, String>,
        /// Limits.
        resources ("resources"): Option<LinuxResources>,
        /// The control group.
        cgroups_path ("cgroupsPath"): String,
        /// Namespaces to make or to join.
        namespaces ("namespaces"): Vec<LinuxNamespace>,
        /// Device nodes to make.
        devices ("devices"): Vec<LinuxDevice>,
        /// Interfaces of the host, by name, to move into the container.
        net_devices ("netDevices"): BTreeMap<String, LinuxNetDevice>,
        /// Which system calls may be made.
        seccomp ("seccomp"): Option<LinuxSeccomp>,
        /// `private`, `slave`, `shared` or `unbindable`, also with an `r` in front.
        rootfs_propagation ("rootfsPropagation"): String,
        /// Paths that read as empty.
        masked_paths ("maskedPaths"): Vec<PathBuf>,
        /// Paths that cannot be written.
        readonly_paths ("readonlyPaths"): Vec<PathBuf>,
        /// The SELinux label of mounts.
        mount_label ("mountLabel"): String,
        /// Cache and memory bandwidth, where the processor divides them.
        intel_rdt ("intelRdt"): Option<LinuxIntelRdt>,
        /// From which nodes memory comes.
        memory_policy ("memoryPolicy"): Option<LinuxMemoryPolicy>,
        /// The execution domain.
        personality ("personality"): Option<LinuxPersonality>,
        /// What a new time namespace adds to `monotonic` and `boottime`.
        time_offsets ("timeOffsets"): BTreeMap<String, LinuxTimeOffset>,
    }
}

words! {
    /// A range of ids.
    #[derive(Copy, Default)]
    pub struct LinuxIdMapping {
        /// The first inside.
        kept container_id ("containerID"): u32,
        /// The first outside.
        kept host_id ("hostID"): u32,
        /// How many.
        kept size ("size"): u32,
    }
}

words! {
    /// A namespace.
    pub struct LinuxNamespace {
        /// Its kind.
        named kind ("type"): LinuxNamespaceType,
        /// The one to join; without, a new one is made.
        path ("path"): PathBuf,
    }
}

impl LinuxNamespace {
    /// A new one.
    pub fn new(kind: LinuxNamespaceType) -> Self {
        Self { kind, path: PathBuf::new() }
    }

    /// The one at `path`.
    pub fn joined(kind: LinuxNamespaceType, path: impl Into<PathBuf>) -> Self {
        Self { kind, path: path.into() }
    }
}

closed! {
    /// Kinds of namespaces.
    pub enum LinuxNamespaceType {
        /// Process ids.
        Pid = "pid",
        /// Interfaces, addresses, routes.
        Network = "network",
        /// Mounts.
        Mount = "mount",
        /// System V and POSIX queues.
        Ipc = "ipc",
        /// Names of the host.
        Uts = "uts",
        /// Users and groups.
        User = "user",
        /// The root of the tree of control groups.
        Cgroup = "cgroup",
        /// Clocks.
        Time = "time",
    }
}

words! {
    /// A device node, or a pipe.
    #[derive(Default)]
    pub struct LinuxDevice {
        /// Where, inside the container.
        kept path ("path"): PathBuf,
        /// `b`, `c`, `u` or `p`.
        kept kind ("type"): String,
        /// Major number.
        major ("major"): i64,
        /// Minor number.
        minor ("minor"): i64,
        /// Permissions.
        file_mode ("fileMode"): Option<u32>,
        /// Owner.
        uid ("uid"): Option<u32>,
        /// Group.
        gid ("gid"): Option<u32>,
    }
}

words! {
    /// An interface to move into the container.
    #[derive(Default)]
    pub struct LinuxNetDevice {
        /// Its name there; without, it keeps the one it has.
        name ("name"): String,
    }
}

words! {
    /// The execution domain.
    pub struct LinuxPersonality {
        /// Which.
        named domain ("domain"): LinuxPersonalityDomain,
        /// Further flags, of which the specification defines none.
        flags ("flags"): Vec<String>,
    }
}

closed! {
    /// Execution domains.
    pub enum LinuxPersonalityDomain {
        /// Linux.
        Linux = "LINUX",
        /// Linux that says it runs on a 32-bit machine.
        Linux32 = "LINUX32",
    }
}

words! {
    /// What is added to a clock.
    #[derive(Copy, Default)]
    pub struct LinuxTimeOffset {
        /// Seconds.
        secs ("secs"): i64,
        /// Nanoseconds.
        nanosecs ("nanosecs"): u32,
    }
}

words! {
    /// Intel's resource director: cache and memory bandwidth.
    #[derive(Default)]
    pub struct LinuxIntelRdt {
        /// The class of service; without, the container's id names one.
        clos_id ("closID"): String,
        /// Lines of the class's schemata file.
        schemata ("schemata"): Vec<String>,
        /// Its cache, such as `L3:0=f0;1=f`.
        l3_cache_schema ("l3CacheSchema"): String,
        /// Its memory bandwidth, such as `MB:0=20;1=70`.
        mem_bw_schema ("memBwSchema"): String,
        /// Make a group to count by.
        enable_monitoring ("enableMonitoring"): bool,
        /// Count cache occupancy; of version 1.2.
        enable_cmt ("enableCMT"): bool,
        /// Count memory bandwidth; of version 1.2.
        enable_mbm ("enableMBM"): bool,
    }
}

words! {
    /// The arguments of `set_mempolicy`.
    pub struct LinuxMemoryPolicy {
        /// The policy.
        named mode ("mode"): MemoryPolicyMode,
        /// Nodes, as `0-1,3`.
        kept nodes ("nodes"): String,
        /// Flags.
        flags ("flags"): Vec<MemoryPolicyFlag>,
    }
}

closed! {
    /// Policies of memory.
    pub enum MemoryPolicyMode {
        /// That of whoever started it.
        Default = "MPOL_DEFAULT",
        /// From these nodes only.
        Bind = "MPOL_BIND",
        /// From these in turn.
        Interleave = "MPOL_INTERLEAVE",
        /// From these in turn, by weight.
        WeightedInterleave = "MPOL_WEIGHTED_INTERLEAVE",
        /// From this one first.
        Preferred = "MPOL_PREFERRED",
        /// From these first.
        PreferredMany = "MPOL_PREFERRED_MANY",
        /// From the nearest.
        Local = "MPOL_LOCAL",
    }
}

closed! {
    /// Flags of memory policies.
    pub enum MemoryPolicyFlag {
        /// Let the kernel move pages where they are used.
        NumaBalancing = "MPOL_F_NUMA_BALANCING",
        /// Nodes count from those that are allowed.
        RelativeNodes = "MPOL_F_RELATIVE_NODES",
        /// Nodes are meant as they are numbered.
        StaticNodes = "MPOL_F_STATIC_NODES",
    }
}

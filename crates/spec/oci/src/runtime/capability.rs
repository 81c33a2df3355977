use std::collections::BTreeSet;
use std::str::FromStr;

use super::field::closed;

closed! {
    /// The capabilities of Linux.
    pub enum Capability {
        /// Configure auditing.
        AuditControl = "CAP_AUDIT_CONTROL",
        /// Read the audit log.
        AuditRead = "CAP_AUDIT_READ",
        /// Write to the audit log.
        AuditWrite = "CAP_AUDIT_WRITE",
        /// Keep the machine awake.
        BlockSuspend = "CAP_BLOCK_SUSPEND",
        /// Load BPF programs.
        Bpf = "CAP_BPF",
        /// Save and restore processes.
        CheckpointRestore = "CAP_CHECKPOINT_RESTORE",
        /// Give files away.
        Chown = "CAP_CHOWN",
        /// Pass over permissions of files.
        DacOverride = "CAP_DAC_OVERRIDE",
        /// Read files and directories regardless of permissions.
        DacReadSearch = "CAP_DAC_READ_SEARCH",
        /// Act as the owner of any file.
        Fowner = "CAP_FOWNER",
        /// Keep set-id bits on changed files.
        Fsetid = "CAP_FSETID",
        /// Lock memory.
        IpcLock = "CAP_IPC_LOCK",
        /// Pass over permissions of System V queues.
        IpcOwner = "CAP_IPC_OWNER",
        /// Signal any process.
        Kill = "CAP_KILL",
        /// Take leases on files.
        Lease = "CAP_LEASE",
        /// Make files immutable.
        LinuxImmutable = "CAP_LINUX_IMMUTABLE",
        /// Configure mandatory access control.
        MacAdmin = "CAP_MAC_ADMIN",
        /// Pass over mandatory access control.
        MacOverride = "CAP_MAC_OVERRIDE",
        /// Make device nodes.
        Mknod = "CAP_MKNOD",
        /// Configure networks.
        NetAdmin = "CAP_NET_ADMIN",
        /// Listen on low ports.
        NetBindService = "CAP_NET_BIND_SERVICE",
        /// Send broadcasts.
        NetBroadcast = "CAP_NET_BROADCAST",
        /// Use raw sockets.
        NetRaw = "CAP_NET_RAW",
        /// Watch performance counters.
        Perfmon = "CAP_PERFMON",
        /// Give files capabilities.
        Setfcap = "CAP_SETFCAP",
        /// Become any group.
        Setgid = "CAP_SETGID",
        /// Change capabilities.
        Setpcap = "CAP_SETPCAP",
        /// Become any user.
        Setuid = "CAP_SETUID",
        /// Administer the system: mounts, namespaces and much else.
        SysAdmin = "CAP_SYS_ADMIN",
        /// Restart the machine.
        SysBoot = "CAP_SYS_BOOT",
        /// Change the root.
        SysChroot = "CAP_SYS_CHROOT",
        /// Load kernel modules.
        SysModule = "CAP_SYS_MODULE",
        /// Raise priorities.
        SysNice = "CAP_SYS_NICE",
        /// Turn accounting on.
        SysPacct = "CAP_SYS_PACCT",
        /// Trace any process.
        SysPtrace = "CAP_SYS_PTRACE",
        /// Use ports and raw devices.
        SysRawio = "CAP_SYS_RAWIO",
        /// Pass over limits.
        SysResource = "CAP_SYS_RESOURCE",
        /// Set the clock.
        SysTime = "CAP_SYS_TIME",
        /// Configure terminals.
        SysTtyConfig = "CAP_SYS_TTY_CONFIG",
        /// Read the kernel's log.
        Syslog = "CAP_SYSLOG",
        /// Wake the machine at a time.
        WakeAlarm = "CAP_WAKE_ALARM",
    }
}

/// Some capabilities.
pub type Capabilities = BTreeSet<Capability>;

/// A word that names no capability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no capability; they are called such as NET_ADMIN or CAP_NET_ADMIN, or ALL")]
pub struct UnknownCapability(pub String);

impl FromStr for Capability {
    type Err = UnknownCapability;

    /// As people write it: any case, with `CAP_` or without.
    fn from_str(text: &str) -> Result<Self, UnknownCapability> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        Self::ALL
            .iter()
            .copied()
            .find(|known| known.word().strip_prefix("CAP_") == Some(name))
            .ok_or_else(|| UnknownCapability(text.to_owned()))
    }
}

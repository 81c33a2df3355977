use std::path::PathBuf;

use super::field::{closed, words};

words! {
    /// A program to run, and as what.
    #[derive(Default)]
    pub struct Process {
        /// Whether it gets a terminal.
        terminal ("terminal"): bool,
        /// The terminal's size.
        console_size ("consoleSize"): Option<ConsoleSize>,
        /// Whom it runs as.
        kept user ("user"): User,
        /// The program and its arguments.
        args ("args"): Vec<String>,
        /// Its environment, `NAME=value`.
        env ("env"): Vec<String>,
        /// Its working directory, absolute inside the container.
        kept cwd ("cwd"): PathBuf,
        /// Its capabilities; none at all when absent.
        capabilities ("capabilities"): Option<LinuxCapabilities>,
        /// Limits of `setrlimit`.
        rlimits ("rlimits"): Vec<PosixRlimit>,
        /// Whether programs with more rights give it none.
        no_new_privileges ("noNewPrivileges"): bool,
        /// Its AppArmor profile.
        apparmor_profile ("apparmorProfile"): String,
        /// How ready the kernel is to kill it when memory runs out, -1000 to 1000.
        oom_score_adj ("oomScoreAdj"): Option<i32>,
        /// How its processor time is scheduled.
        scheduler ("scheduler"): Option<Scheduler>,
        /// Its SELinux label.
        selinux_label ("selinuxLabel"): String,
        /// Priority of its block device requests.
        io_priority ("ioPriority"): Option<LinuxIoPriority>,
        /// The processors it runs on, for a program that joins a container.
        exec_cpu_affinity ("execCPUAffinity"): Option<CpuAffinity>,
    }
}

words! {
    /// A terminal's size in characters.
    #[derive(Copy, Default)]
    pub struct ConsoleSize {
        /// Rows.
        kept height ("height"): u64,
        /// Columns.
        kept width ("width"): u64,
    }
}

words! {
    /// Whom a program runs as, by the numbers of its user namespace.
    #[derive(Default)]
    pub struct User {
        /// The user.
        kept uid ("uid"): u32,
        /// The group.
        kept gid ("gid"): u32,
        /// Bits that new files lack.
        umask ("umask"): Option<u32>,
        /// Further groups.
        additional_gids ("additionalGids"): Vec<u32>,
    }
}

words! {
    /// The capability sets of a process, by name (`CAP_CHOWN`).
    #[derive(Default)]
    pub struct LinuxCapabilities {
        /// What can ever be had.
        bounding ("bounding"): Vec<String>,
        /// What counts.
        effective ("effective"): Vec<String>,
        /// What passes to programs that ask for it.
        inheritable ("inheritable"): Vec<String>,
        /// What may count.
        permitted ("permitted"): Vec<String>,
        /// What passes to any program.
        ambient ("ambient"): Vec<String>,
    }
}

words! {
    /// A limit of `setrlimit`; all ones mean none.
    #[derive(Default)]
    pub struct PosixRlimit {
        /// Of what: `RLIMIT_NOFILE` and the like.
        kept kind ("type"): String,
        /// The most that can be asked for.
        kept hard ("hard"): u64,
        /// The limit in force.
        kept soft ("soft"): u64,
    }
}

words! {
    /// Priority of block device requests.
    #[derive(Copy)]
    pub struct LinuxIoPriority {
        /// The class.
        named class ("class"): IoPriorityClass,
        /// The level in it, 0 to 7.
        kept priority ("priority"): i32,
    }
}

closed! {
    /// Classes of block device requests.
    pub enum IoPriorityClass {
        /// Before all others.
        RealTime = "IOPRIO_CLASS_RT",
        /// In turn.
        BestEffort = "IOPRIO_CLASS_BE",
        /// When nobody else wants to.
        Idle = "IOPRIO_CLASS_IDLE",
    }
}

words! {
    /// Processors to run on, as `0-2,7`.
    #[derive(Default)]
    pub struct CpuAffinity {
        /// While joining the container's control group.
        initial ("initial"): String,
        /// From then on.
        r#final ("final"): String,
    }
}

words! {
    /// The arguments of `sched_setattr`.
    pub struct Scheduler {
        /// The policy.
        named policy ("policy"): SchedulerPolicy,
        /// Niceness, -20 to 19, for the policies that have it.
        nice ("nice"): i32,
        /// Static priority, for `SCHED_FIFO` and `SCHED_RR`.
        priority ("priority"): i32,
        /// Flags.
        flags ("flags"): Vec<SchedulerFlag>,
        /// Nanoseconds of each period, for `SCHED_DEADLINE`.
        runtime ("runtime"): u64,
        /// Nanoseconds by which they are had.
        deadline ("deadline"): u64,
        /// Nanoseconds of a period.
        period ("period"): u64,
    }
}

closed! {
    /// Scheduling policies.
    pub enum SchedulerPolicy {
        /// The usual one.
        Other = "SCHED_OTHER",
        /// First in, first out.
        Fifo = "SCHED_FIFO",
        /// In turn, before the usual.
        RoundRobin = "SCHED_RR",
        /// The usual, without regard for interaction.
        Batch = "SCHED_BATCH",
        /// A policy that Linux has never had.
        Iso = "SCHED_ISO",
        /// When nobody else wants to.
        Idle = "SCHED_IDLE",
        /// So much in each period.
        Deadline = "SCHED_DEADLINE",
    }
}

closed! {
    /// Flags of `sched_setattr`.
    pub enum SchedulerFlag {
        /// Children start with the usual policy.
        ResetOnFork = "SCHED_FLAG_RESET_ON_FORK",
        /// Take what others leave.
        Reclaim = "SCHED_FLAG_RECLAIM",
        /// Be told when the deadline is missed.
        DeadlineOverrun = "SCHED_FLAG_DL_OVERRUN",
        /// Leave the policy as it is.
        KeepPolicy = "SCHED_FLAG_KEEP_POLICY",
        /// Leave the parameters as they are.
        KeepParams = "SCHED_FLAG_KEEP_PARAMS",
        /// Clamp utilization from below.
        UtilizationMin = "SCHED_FLAG_UTIL_CLAMP_MIN",
        /// Clamp utilization from above.
        UtilizationMax = "SCHED_FLAG_UTIL_CLAMP_MAX",
    }
}

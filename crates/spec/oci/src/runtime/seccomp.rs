//! The system calls a container may make when nobody asks for anything else.
//!
//! What is allowed follows the profile Docker ships (moby's `default.json`, June 2026), so that
//! an image that works there works here: everything not named answers `EPERM`, `clone` may not
//! make namespaces, `clone3` answers `ENOSYS` so that libc falls back to `clone`, and groups of
//! privileged calls open with the capability that governs them. The table is sorted by what a
//! call touches; names an architecture does not have are left for the loader to skip.

use std::path::PathBuf;

use super::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg,
    LinuxSeccompOperator, LinuxSyscall,
};

/// A machine the profile is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// 64-bit x86, which also runs 32-bit x86 and x32 programs.
    X86_64,
    /// 64-bit Arm, which also runs 32-bit Arm programs.
    Aarch64,
}

impl Architecture {
    /// The architecture this program was built for.
    pub const fn native() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 }
    }
}

/// Writes the default profile for a container that holds `capabilities`.
///
/// The profile is a list of what is allowed: a call that no rule names answers `EPERM`.
pub fn default_profile(architecture: Architecture, capabilities: &Capabilities) -> LinuxSeccomp {
    let mut rules = vec![allow(&always())];
    rules.extend(by_argument());
    rules.extend(by_architecture(architecture));
    rules.extend(by_capability(capabilities));

    LinuxSeccomp {
        default_action: LinuxSeccompAction::Errno,
        default_errno_ret: Some(EPERM),
        architectures: match architecture {
            Architecture::X86_64 => vec![Arch::X86_64, Arch::X86, Arch::X32],
            Architecture::Aarch64 => vec![Arch::Aarch64, Arch::Arm],
        },
        flags: Vec::new(),
        listener_path: PathBuf::new(),
        listener_metadata: String::new(),
        syscalls: rules,
    }
}

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

fn always() -> Vec<&'static str> {
    [
        FILES, PROCESSES, IDENTITY, MEMORY, SIGNALS, TIME, SCHEDULING, IPC, SOCKETS, EVENTS, ASYNC,
        TRACING,
    ]
    .iter()
    .flat_map(|group| group.split_ascii_whitespace())
    .collect()
}

/// Calls allowed only with certain arguments.
fn by_argument() -> Vec<LinuxSyscall> {
    // Socket families: all but AF_ALG (38) and AF_VSOCK (40). The first is the kernel's crypto
    // interface, a wide and rarely needed surface; the second is not confined by any namespace.
    let socket = [
        (LinuxSeccompOperator::Less, 38),
        (LinuxSeccompOperator::Equal, 39),
        (LinuxSeccompOperator::Greater, 40),
    ];
    // Personalities: PER_LINUX, PER_LINUX32, UNAME26, PER_LINUX32 | UNAME26, and "only tell me".
    let personality = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
    let socket = socket.map(|(operator, value)| allow_when("socket", operator, value, None));
    let personality = personality
        .map(|value| allow_when("personality", LinuxSeccompOperator::Equal, value, None));
    socket.into_iter().chain(personality).collect()
}

fn by_architecture(architecture: Architecture) -> Vec<LinuxSyscall> {
    match architecture {
        Architecture::X86_64 => vec![allow(&["arch_prctl", "modify_ldt"])],
        Architecture::Aarch64 => vec![allow(&[
            "arm_fadvise64_64",
            "arm_sync_file_range",
            "breakpoint",
            "cacheflush",
            "set_tls",
            "sync_file_range2",
        ])],
    }
}

fn by_capability(held: &Capabilities) -> Vec<LinuxSyscall> {
    let mut rules: Vec<_> = PRIVILEGED
        .iter()
        .filter(|(capability, _)| held.contains(capability))
        .map(|(_, names)| allow(&names.split_ascii_whitespace().collect::<Vec<_>>()))
        .collect();
    if !held.contains(&Capability::SysAdmin) {
        rules.push(allow_when(
            "clone",
            LinuxSeccompOperator::MaskedEqual,
            NAMESPACE_FLAGS,
            Some(0),
        ));
        // `clone3` hides its flags behind a pointer, which a filter cannot follow.
        let refused = rule(&["clone3"], LinuxSeccompAction::Errno);
        rules.push(LinuxSyscall { errno_ret: Some(ENOSYS), ..refused });
    }
    rules
}

fn allow(names: &[&str]) -> LinuxSyscall {
    rule(names, LinuxSeccompAction::Allow)
}

fn rule(names: &[&str], action: LinuxSeccompAction) -> LinuxSyscall {
    LinuxSyscall {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        action,
        errno_ret: None,
        args: Vec::new(),
    }
}

/// Allows `name` when its first argument compares so with `value`.
///
/// For a masked comparison `value` is the mask and `masked` what must be left of the argument.
fn allow_when(
    name: &str,
    operator: LinuxSeccompOperator,
    value: u64,
    masked: Option<u64>,
) -> LinuxSyscall {
    let value_two = masked.unwrap_or_default();
    let argument = LinuxSeccompArg { index: 0, value, value_two, op: operator };
    LinuxSyscall { args: vec![argument], ..allow(&[name]) }
}

/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID` and `NEWNET` together.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// Calls that come with a capability.
const PRIVILEGED: &[(Capability, &str)] = &[
    (Capability::DacReadSearch, "open_by_handle_at"),
    (
        Capability::SysAdmin,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie \
         lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount \
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog \
         umount umount2 unshare",
    ),
    (Capability::SysBoot, "reboot"),
    (Capability::SysChroot, "chroot"),
    (Capability::SysModule, "delete_module finit_module init_module"),
    (Capability::SysPacct, "acct"),
    (
        Capability::SysPtrace,
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    (Capability::SysRawio, "ioperm iopl"),
    (Capability::SysTime, "clock_settime clock_settime64 settimeofday stime"),
    (Capability::SysTtyConfig, "vhangup"),
    (Capability::SysNice, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (Capability::Syslog, "syslog"),
    (Capability::Bpf, "bpf"),
    (Capability::Perfmon, "perf_event_open"),
];

/// Reading another process of the same container. Kernels before 4.8 could be tricked into
/// skipping the filter this way; Carrack needs a newer one anyway.
const TRACING: &str = "process_vm_readv process_vm_writev ptrace";

/// Who a process is: user, group and capability ids.
const IDENTITY: &str = "\
    capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 \
    getresgid getresgid32 getresuid getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid \
    setfsuid32 setgid setgid32 setgroups setgroups32 setregid setregid32 setresgid setresgid32 \
    setresuid setresuid32 setreuid setreuid32 setuid setuid32";

/// Clocks, timers and sleeping.
const TIME: &str = "\
    adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime \
    clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep \
    setitimer time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 \
    timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 \
    timerfd_settime timerfd_settime64 times";

/// Signals and the descriptors that carry them.
const SIGNALS: &str = "\
    kill pause pidfd_open pidfd_send_signal restart_syscall rt_sigaction rt_sigpending \
    rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait \
    rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack signalfd signalfd4 sigprocmask \
    sigreturn tgkill tkill";

/// Priorities, affinity and restartable sequences.
const SCHEDULING: &str = "\
    getcpu getpriority ioprio_get ioprio_set membarrier rseq sched_get_priority_max \
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler \
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr \
    sched_setparam sched_setscheduler sched_yield setpriority";

/// Mappings, protection keys and locking of memory.
const MEMORY: &str = "\
    brk cachestat madvise map_shadow_stack memfd_create memfd_secret mincore mlock mlock2 \
    mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc \
    pkey_free pkey_mprotect process_mrelease remap_file_pages";

/// System V and POSIX queues, semaphores, shared memory, futexes.
const IPC: &str = "\
    futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list ipc \
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend \
    mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop \
    semtimedop_time64 set_robust_list shmat shmctl shmdt shmget";

/// Sockets other than `socket` itself, which is judged by its family.
const SOCKETS: &str = "\
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg \
    recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall \
    socketpair";

/// Waiting for something to happen.
const EVENTS: &str = "\
    _newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 \
    epoll_wait epoll_wait_old eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init \
    inotify_init1 inotify_rm_watch poll ppoll ppoll_time64 pselect6 pselect6_time64 select";

/// Asynchronous input and output, without `io_uring`.
const ASYNC: &str = "\
    io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit";

/// Starting, ending, limiting and sandboxing processes.
const PROCESSES: &str = "\
    execve execveat exit exit_group fork get_thread_area getpgid getpgrp getpid getppid \
    getrandom getrlimit getrusage getsid gettid landlock_add_rule landlock_create_ruleset \
    landlock_restrict_self prctl prlimit64 riscv_hwprobe seccomp set_thread_area set_tid_address \
    setpgid setrlimit setsid sysinfo ugetrlimit umask uname uretprobe vfork wait4 waitid waitpid";

/// Files, directories, links, attributes and what is read from and written to them.
const FILES: &str = "\
    _llseek access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 \
    dup3 faccessat faccessat2 fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 \
    fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr \
    fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat \
    getcwd getdents getdents64 getxattr getxattrat ioctl lchown lchown32 lgetxattr link linkat \
    listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 mkdir \
    mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 pipe pipe2 pread64 \
    preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv \
    removexattr removexattrat rename renameat renameat2 rmdir sendfile sendfile64 setxattr \
    setxattrat splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync \
    sync_file_range syncfs tee truncate truncate64 unlink unlinkat utime utimensat \
    utimensat_time64 utimes vmsplice write writev";

#[cfg(test)]
mod tests {
    use super::*;

    fn named<'a>(profile: &'a LinuxSeccomp, name: &str) -> Vec<&'a LinuxSyscall> {
        profile
            .syscalls
            .iter()
            .filter(|rule| rule.names.iter().any(|other| other == name))
            .collect()
    }

    fn unprivileged() -> LinuxSeccomp {
        default_profile(Architecture::X86_64, &Capabilities::new())
    }

    #[test]
    fn what_no_rule_names_is_not_permitted() {
        let profile = unprivileged();
        assert_eq!(profile.default_action, LinuxSeccompAction::Errno);
        assert_eq!(profile.default_errno_ret, Some(EPERM));
        for name in ["mount", "unshare", "bpf", "keyctl", "add_key", "io_uring_setup", "kexec_load"]
        {
            assert!(named(&profile, name).is_empty(), "{name} is allowed");
        }
    }

    #[test]
    fn no_call_is_listed_twice() {
        let mut names = always();
        names.sort_unstable();
        let listed = names.len();
        names.dedup();
        assert_eq!(names.len(), listed);
        assert_eq!(listed, 364, "361 calls allowed outright and three for tracing");
    }

    #[test]
    fn clone_without_sys_admin_makes_no_namespace() {
        let profile = unprivileged();
        let rules = named(&profile, "clone");
        assert_eq!(rules.len(), 1);
        let argument = rules[0].args[0];
        assert_eq!(argument.op, LinuxSeccompOperator::MaskedEqual);
        assert_eq!((argument.value, argument.value_two), (NAMESPACE_FLAGS, 0));
        let clone3 = named(&profile, "clone3");
        assert_eq!(clone3[0].errno_ret, Some(ENOSYS));
    }

    #[test]
    fn sys_admin_opens_mounts_and_every_clone() {
        let held = Capabilities::from([Capability::SysAdmin]);
        let profile = default_profile(Architecture::X86_64, &held);
        assert_eq!(named(&profile, "mount").len(), 1);
        let clone = named(&profile, "clone");
        assert!(clone.iter().all(|rule| rule.args.is_empty()));
        assert!(named(&profile, "clone3").iter().all(|rule| rule.errno_ret.is_none()));
    }

    #[test]
    fn a_capability_opens_its_own_calls_only() {
        let held = Capabilities::from([Capability::SysChroot]);
        let profile = default_profile(Architecture::X86_64, &held);
        assert_eq!(named(&profile, "chroot").len(), 1);
        assert!(named(&profile, "reboot").is_empty());
    }

    #[test]
    fn sockets_of_the_crypto_and_vsock_families_are_refused() {
        let profile = unprivileged();
        let rules = named(&profile, "socket");
        let allowed = |family: u64| {
            rules.iter().any(|rule| {
                let argument = rule.args[0];
                match argument.op {
                    LinuxSeccompOperator::Less => family < argument.value,
                    LinuxSeccompOperator::Equal => family == argument.value,
                    LinuxSeccompOperator::Greater => family > argument.value,
                    other => panic!("unexpected comparison {other:?}"),
                }
            })
        };
        let refused: Vec<u64> = (0..64).filter(|family| !allowed(*family)).collect();
        assert_eq!(refused, [38, 40]);
    }

    #[test]
    fn each_architecture_gets_its_own_extra_calls() {
        assert_eq!(named(&unprivileged(), "arch_prctl").len(), 1);
        let arm = default_profile(Architecture::Aarch64, &Capabilities::new());
        assert!(named(&arm, "arch_prctl").is_empty());
        assert_eq!(named(&arm, "set_tls").len(), 1);
    }
}

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use carrack_linux::capability::{self, Sets};
use carrack_linux::label::System;
use carrack_linux::schedule::Policy;
use carrack_linux::seccomp::Filter;
use carrack_oci::runtime as oci;

use super::schedule::{self, Affinity};
use super::{Problems, seccomp};
use crate::error::SpecError;

/// A program to run, and as what.
#[derive(Debug)]
pub(crate) struct ProcessPlan {
    pub(crate) args: Vec<CString>,
    pub(crate) env: Vec<CString>,
    pub(crate) cwd: PathBuf,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) umask: Option<u32>,
    /// Absent: none at all.
    pub(crate) capabilities: Sets,
    pub(crate) no_new_privileges: bool,
    pub(crate) seccomp: Option<Filter>,
    pub(crate) rlimits: Vec<Rlimit>,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) terminal: bool,
    pub(crate) console_size: Option<(u16, u16)>,
    /// Whether the terminal leaves newlines as they are, for another to complete.
    pub(crate) plain_newlines: bool,
    pub(crate) io_priority: Option<i32>,
    pub(crate) scheduler: Option<Policy>,
    /// For a program that joins a container.
    pub(crate) affinity: Affinity,
    pub(crate) labels: Vec<(System, String)>,
}

/// A limit of `setrlimit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rlimit {
    pub(crate) resource: rustix::process::Resource,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// Works out a process; `None` when it names no program.
pub(super) fn plan(
    process: &oci::Process,
    profile: Option<&oci::LinuxSeccomp>,
    problems: &mut Problems,
) -> Result<Option<ProcessPlan>, SpecError> {
    if process.args.is_empty() {
        problems.add("process.args", "is empty; name a program");
    }
    if !process.cwd.is_absolute() {
        problems.add("process.cwd", format!("{} is not absolute", process.cwd.display()));
    }
    let user = &process.user;
    let plan = ProcessPlan {
        args: strings(&process.args, "process.args", problems),
        env: strings(&process.env, "process.env", problems),
        cwd: process.cwd.clone(),
        uid: user.uid,
        gid: user.gid,
        groups: user.additional_gids.clone(),
        umask: user.umask,
        capabilities: sets(process.capabilities.as_ref(), problems),
        no_new_privileges: process.no_new_privileges,
        seccomp: match profile {
            Some(profile) => seccomp::compile(profile, problems)?,
            None => None,
        },
        rlimits: rlimits(process, problems),
        oom_score_adj: process.oom_score_adj,
        terminal: process.terminal,
        plain_newlines: false,
        console_size: process.console_size.map(|size| (side(size.width), side(size.height))),
        io_priority: process.io_priority.as_ref().map(io_priority),
        scheduler: process.scheduler.as_ref().map(|asked| schedule::policy(asked, problems)),
        affinity: schedule::affinity(process.exec_cpu_affinity.as_ref(), problems),
        labels: labels(process, problems),
    };
    if plan.cwd.as_os_str().as_bytes().contains(&0) {
        problems.add("process.cwd", "contains a NUL byte");
    }
    Ok(Some(plan))
}

/// Labels that the program is to carry.
fn labels(process: &oci::Process, problems: &mut Problems) -> Vec<(System, String)> {
    let asked = [
        (System::AppArmor, "process.apparmorProfile", &process.apparmor_profile),
        (System::Selinux, "process.selinuxLabel", &process.selinux_label),
    ];
    let mut found = Vec::new();
    for (system, field, label) in asked {
        if label.contains('\0') {
            problems.add(field, "contains a NUL byte");
        }
        if !label.is_empty() {
            found.push((system, label.clone()));
        }
    }
    found
}

fn side(length: u64) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

fn strings(texts: &[String], field: &str, problems: &mut Problems) -> Vec<CString> {
    let mut found = Vec::new();
    for text in texts {
        match CString::new(text.as_bytes()) {
            Ok(text) => found.push(text),
            Err(_) => problems.add(field, "contains a NUL byte"),
        }
    }
    found
}

fn sets(capabilities: Option<&oci::LinuxCapabilities>, problems: &mut Problems) -> Sets {
    let Some(capabilities) = capabilities else { return Sets::default() };
    let mut set = |names: &[String]| {
        let mut all = capability::Set::empty();
        for name in names {
            match capability::parse(name) {
                Some(one) => all |= one,
                // Written for a newer kernel, or an older one; nobody can have it here.
                None => problems
                    .warn("process.capabilities", format!("{name} is not known, and left out")),
            }
        }
        all
    };
    Sets {
        bounding: set(&capabilities.bounding),
        effective: set(&capabilities.effective),
        permitted: set(&capabilities.permitted),
        inheritable: set(&capabilities.inheritable),
        ambient: set(&capabilities.ambient),
    }
}

fn rlimits(process: &oci::Process, problems: &mut Problems) -> Vec<Rlimit> {
    let mut found: Vec<Rlimit> = Vec::new();
    for limit in &process.rlimits {
        let Some(resource) = resource(&limit.kind) else {
            problems.add("process.rlimits", format!("{:?} is no limit of Linux", limit.kind));
            continue;
        };
        if found.iter().any(|known| known.resource == resource) {
            problems.add("process.rlimits", format!("{} is listed twice", limit.kind));
        }
        if limit.soft > limit.hard {
            problems.add("process.rlimits", format!("{}: soft is above hard", limit.kind));
        }
        found.push(Rlimit { resource, soft: limit.soft, hard: limit.hard });
    }
    found
}

fn resource(kind: &str) -> Option<rustix::process::Resource> {
    use rustix::process::Resource;
    Some(match kind {
        "RLIMIT_CPU" => Resource::Cpu,
        "RLIMIT_FSIZE" => Resource::Fsize,
        "RLIMIT_DATA" => Resource::Data,
        "RLIMIT_STACK" => Resource::Stack,
        "RLIMIT_CORE" => Resource::Core,
        "RLIMIT_RSS" => Resource::Rss,
        "RLIMIT_NPROC" => Resource::Nproc,
        "RLIMIT_NOFILE" => Resource::Nofile,
        "RLIMIT_MEMLOCK" => Resource::Memlock,
        "RLIMIT_AS" => Resource::As,
        "RLIMIT_LOCKS" => Resource::Locks,
        "RLIMIT_SIGPENDING" => Resource::Sigpending,
        "RLIMIT_MSGQUEUE" => Resource::Msgqueue,
        "RLIMIT_NICE" => Resource::Nice,
        "RLIMIT_RTPRIO" => Resource::Rtprio,
        "RLIMIT_RTTIME" => Resource::Rttime,
        _ => return None,
    })
}

/// Class and level in the one number `ioprio_set` takes.
fn io_priority(priority: &oci::LinuxIoPriority) -> i32 {
    let class = match priority.class {
        oci::IoPriorityClass::RealTime => 1,
        oci::IoPriorityClass::BestEffort => 2,
        oci::IoPriorityClass::Idle => 3,
    };
    (class << 13) | priority.priority.clamp(0, 7)
}

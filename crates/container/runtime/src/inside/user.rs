use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use carrack_linux::capability;
use carrack_linux::process;
use carrack_linux::procfs::Proc;
use carrack_linux::rooted::RootedDir;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use crate::diagnose;
use crate::failure::{Attempt, Failure};
use crate::plan::{ProcessPlan, Rlimit};

/// Becomes the container's root, now that it is mapped to somebody.
pub(super) fn become_mapped_root() -> Result<(), Failure> {
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid)
        .attempt(|| "becoming group 0 of the user namespace".into())?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
        .attempt(|| "becoming user 0 of the user namespace".into())?;
    set_groups(&[]).attempt(|| "leaving the caller's groups".into())?;
    // A change of user makes a process visible again.
    process::set_undumpable().attempt(|| "hiding from other processes".into())
}

/// Where a user namespace was mapped without privilege groups cannot be changed; then there
/// must be none to add.
fn set_groups(groups: &[Gid]) -> Result<(), Errno> {
    match rustix::thread::set_thread_groups(groups) {
        Err(Errno::PERM) if groups.is_empty() => Ok(()),
        answer => answer,
    }
}

/// Keys of the caller's session are not the container's.
pub(super) fn new_session_keyring() -> Result<(), Failure> {
    match process::new_session_keyring() {
        // A kernel without keys has none to leave behind; a filter around us may forbid it.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(()),
        answer => answer.attempt(|| "making a session keyring".into()),
    }
}

/// Writes kernel settings through a `/proc` of our own, which no mount can redirect
/// (CVE-2025-52881).
pub(super) fn write_sysctls(sysctls: &BTreeMap<String, String>) -> Result<(), Failure> {
    if sysctls.is_empty() {
        return Ok(());
    }
    let proc = Proc::private().attempt(|| "mounting a /proc for settings".into())?;
    sysctls.iter().try_for_each(|(path, value)| {
        proc.write(&format!("sys/{path}"), value).attempt(|| format!("setting {path} to {value:?}"))
    })
}

pub(super) fn set_rlimits(limits: &[Rlimit]) -> Result<(), Failure> {
    for limit in limits {
        let value = rlimit(limit);
        rustix::process::setrlimit(limit.resource, value).attempt(|| {
            format!("limiting {:?} to {} and {}", limit.resource, limit.soft, limit.hard)
        })?;
    }
    Ok(())
}

/// All ones mean no limit.
pub(crate) fn rlimit(limit: &Rlimit) -> rustix::process::Rlimit {
    let bound = |value: u64| (value != u64::MAX).then_some(value);
    rustix::process::Rlimit { current: bound(limit.soft), maximum: bound(limit.hard) }
}

pub(super) fn set_personality(personality: u32) -> Result<(), Failure> {
    process::set_personality(personality).attempt(|| "setting the personality".into())
}

pub(super) fn set_io_priority(priority: i32) -> Result<(), Failure> {
    process::set_io_priority(priority).attempt(|| "setting the I/O priority".into())
}

/// Lets the user open `/dev/stdout` and its like by name: pipes and terminals become its own.
fn give_streams(uid: u32) -> Result<(), Failure> {
    use rustix::fs::FileType;
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let Ok(stat) = rustix::fs::fstat(stream) else { continue }; // It is closed.
        let pipe = FileType::from_raw_mode(stat.st_mode) == FileType::Fifo;
        if stat.st_uid == uid || !(pipe || rustix::termios::isatty(stream)) {
            continue;
        }
        match rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), None) {
            Ok(()) | Err(Errno::PERM | Errno::ROFS | Errno::INVAL) => {}
            Err(error) => {
                return Err(Failure::new("giving the standard streams to the user", &error.into()));
            }
        }
    }
    Ok(())
}

/// Becomes the program's user, in its directory. Capabilities are kept for now.
pub(super) fn switch(process: &ProcessPlan) -> Result<(), Failure> {
    let early = change_directory(&process.cwd);
    give_streams(process.uid)?;
    capability::limit_bounding(process.capabilities.bounding)
        .attempt(|| "limiting the capabilities to be had".into())?;
    capability::keep_across_user_change().attempt(|| "keeping capabilities".into())?;
    let groups: Vec<Gid> = process.groups.iter().map(|&group| Gid::from_raw(group)).collect();
    set_groups(&groups).attempt(|| "setting additional groups".into())?;
    let (uid, gid) = (Uid::from_raw(process.uid), Gid::from_raw(process.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid)
        .attempt(|| format!("becoming group {}", process.gid))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
        .attempt(|| format!("becoming user {}", process.uid))?;
    // The directory may be the user's alone, or root's alone; either will do.
    change_directory(&process.cwd).or(early)?;
    if let Some(mask) = process.umask {
        rustix::process::umask(Mode::from_raw_mode(mask));
    } else {
        rustix::process::umask(Mode::from_raw_mode(0o022));
    }
    Ok(())
}

/// Makes all that may count, count: a change of user turned it off.
pub(super) fn raise_permitted() -> Result<(), Failure> {
    let attempt = || "raising capabilities".to_owned();
    let current = capability::current().attempt(attempt)?;
    let sets = capability::Sets {
        effective: current.permitted,
        permitted: current.permitted,
        inheritable: current.inheritable,
        ..capability::Sets::default()
    };
    capability::apply(&sets).attempt(attempt)
}

/// Goes down to the program's capabilities.
pub(super) fn set_capabilities(process: &ProcessPlan) -> Result<(), Failure> {
    capability::apply(&process.capabilities).attempt(|| "setting capabilities".into()).map_err(
        |failure| {
            // Asked only now: the filter need not allow the question.
            let had = capability::current().map_or(capability::Set::empty(), |sets| sets.permitted);
            let missing = capability::names(process.capabilities.permitted - had);
            failure.hint(format!("the caller does not have {}", missing.join(", ")))
        },
    )
}

/// Never through a link of `/proc`, which could lead out (CVE-2024-21626).
fn change_directory(path: &Path) -> Result<(), Failure> {
    let root = RootedDir::open(Path::new("/")).attempt(|| "opening the root".into())?;
    root.open_with(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
        .and_then(|directory| Ok(rustix::process::fchdir(directory)?))
        .map_err(|error| {
            let failure = super::working_directory_failure(path, &error);
            match diagnose::walk(&root, Path::new("/"), path) {
                Err(stop) if failure.hint.is_empty() => failure.hint(stop.to_string()),
                Ok(found) if error.kind() == io::ErrorKind::PermissionDenied => {
                    failure.hint(diagnose::Stop::closed(path, found.stat).to_string())
                }
                Err(_) | Ok(_) => failure,
            }
        })
}

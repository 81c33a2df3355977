//! The kernel: version, calls, namespaces, file systems.

use carrack_linux::host::{Call, Host, Trial, answer};

use super::{Finding, Status};

/// The first with all that a container is made with: mount_setattr.
const OLDEST: (u32, u32) = (5, 12);

pub(super) fn findings(host: &Host) -> Vec<Finding> {
    let mut all = vec![version(host)];
    all.extend(calls(host));
    all.push(seccomp(host));
    all.extend(namespaces(host));
    all.extend([mounts(host), overlay(host), erofs(host), fuse(host)]);
    all
}

fn number(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(['.', '-', '+', '_']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn version(host: &Host) -> Finding {
    let enough = number(&host.kernel).is_some_and(|version| version >= OLDEST);
    let (major, minor) = OLDEST;
    Finding::ok("kernel", &host.kernel, "everything").unless(
        enough,
        Status::Missing,
        format!("update the kernel to {major}.{minor} or later"),
    )
}

fn calls(host: &Host) -> Vec<Finding> {
    let since_5_7 = number(&host.kernel).is_none_or(|version| version >= (5, 7));
    let known = |call| host.calls.get(&call).copied().unwrap_or(false);
    let call = |name: &str, call, needed_for: &str, since: &str| {
        let there = known(call);
        let found = if there { "there" } else { "refused with ENOSYS" };
        Finding::ok(name, found, needed_for).unless(
            there,
            Status::Missing,
            format!("update the kernel to {since} or later, or allow {name} in the seccomp profile around this host"),
        )
    };
    let into_group = known(Call::Clone3) && since_5_7;
    let clone3 = Finding::ok(
        "clone3",
        match (known(Call::Clone3), into_group) {
            (false, _) => "refused with ENOSYS",
            (true, true) => "there, with CLONE_INTO_CGROUP",
            (true, false) => "there, without CLONE_INTO_CGROUP",
        },
        "starting a process in its control group",
    );
    vec![
        call("openat2", Call::Openat2, "paths that cannot leave a root file system", "5.6"),
        clone3.unless(
            into_group || !host.unified,
            Status::Missing,
            "update the kernel to 5.7 or later, or allow clone3 in the seccomp profile around this host",
        ),
        call("pidfd_open", Call::PidfdOpen, "signals that reach the right process", "5.3"),
        call("fsopen", Call::Fsopen, "mounts by descriptor", "5.2"),
        call("mount_setattr", Call::MountSetattr, "mount options, and mounts with mapped ids", "5.12"),
        call("close_range", Call::CloseRange, "keeping descriptors out of containers", "5.9"),
    ]
}

fn seccomp(host: &Host) -> Finding {
    let known = host.calls.get(&Call::Seccomp).copied().unwrap_or(false);
    let notify = host.seccomp.iter().any(|action| action == "user_notif");
    let needed_for = "the default filter of system calls";
    match (known, notify) {
        (false, _) => Finding::ok("seccomp", "not in this kernel", needed_for)
            .but(Status::Missing, "use a kernel with CONFIG_SECCOMP_FILTER"),
        (true, false) => Finding::ok("seccomp", "without notification", needed_for)
            .but(Status::Warning, "update the kernel to 5.0 or later for profiles with a listener"),
        (true, true) => Finding::ok("seccomp", "with notification", needed_for),
    }
}

fn namespaces(host: &Host) -> Vec<Finding> {
    let needed = ["mnt", "pid", "net", "ipc", "uts", "cgroup"];
    let missing: Vec<&str> =
        needed.into_iter().filter(|name| !host.namespaces.contains(*name)).collect();
    let found = if missing.is_empty() {
        needed.join(", ")
    } else {
        format!("without {}", missing.join(", "))
    };
    let basic = Finding::ok("namespaces", found, "everything").unless(
        missing.is_empty(),
        Status::Missing,
        "use a kernel with these namespaces compiled in",
    );
    let time = host.namespaces.contains("time");
    let time = Finding::ok(
        "time namespace",
        if time { "there" } else { "not in this kernel" },
        "linux.timeOffsets",
    )
    .unless(time, Status::Warning, "update the kernel to 5.6 or later");
    vec![basic, time, user_namespace(host)]
}

/// Whether one can be made, and the setting that forbids it if not.
fn user_namespace(host: &Host) -> Finding {
    let needed_for = "containers with users of their own, and containers without root";
    let setting = |name: &str| host.settings.get(name).map(String::as_str);
    let failed = match host.trials.get(&Trial::UserNamespace) {
        Some(Ok(())) => None,
        Some(Err(errno)) => Some(answer(*errno)),
        None => Some("it was not tried".to_owned()),
    };
    let Some(failed) = failed else {
        return Finding::ok("user namespace", "can be made", needed_for);
    };
    let remedy = if !host.namespaces.contains("user") {
        "use a kernel with CONFIG_USER_NS".to_owned()
    } else if setting("user/max_user_namespaces") == Some("0") {
        "sysctl -w user.max_user_namespaces=10000".to_owned()
    } else if setting("kernel/unprivileged_userns_clone") == Some("0") && host.uid != 0 {
        "sysctl -w kernel.unprivileged_userns_clone=1".to_owned()
    } else if setting("kernel/apparmor_restrict_unprivileged_userns") == Some("1") && host.uid != 0
    {
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or load an AppArmor profile \
         with `userns,` for this program"
            .to_owned()
    } else {
        "allow it in the seccomp or AppArmor profile around this host".to_owned()
    };
    let status = if host.uid == 0 { Status::Warning } else { Status::Missing };
    Finding::ok("user namespace", failed, needed_for).but(status, remedy)
}

/// A profile around us may forbid what the capability allows.
fn mounts(host: &Host) -> Finding {
    let needed_for = "everything";
    let trial = if host.administers { Trial::Mount } else { Trial::UserOverlay };
    let errno = match host.trials.get(&trial) {
        Some(Ok(())) => return Finding::ok("mounting", "allowed", needed_for),
        Some(Err(errno)) => *errno,
        None => libc::ENOSYS,
    };
    let profile = host.apparmor.as_deref().filter(|profile| *profile != "unconfined");
    let found = Finding::ok("mounting", answer(errno), needed_for);
    let remedy = match (profile, host.administers) {
        (Some(profile), _) => format!(
            "the AppArmor profile {profile} denies mounts: allow them in it, or, where this host is \
             itself a container (LXC, Proxmox, Incus), turn nesting on and set its profile to unconfined"
        ),
        (None, true) => "the seccomp or SELinux policy around this host denies mounts; \
                         where it is itself a container, turn nesting on"
            .to_owned(),
        (None, false) => "run as root, or make user namespaces work".to_owned(),
    };
    found.but(Status::Missing, remedy)
}

fn overlay(host: &Host) -> Finding {
    let needed_for = "root file systems from layers";
    let trial = if host.administers { Trial::Overlay } else { Trial::UserOverlay };
    match host.trials.get(&trial) {
        Some(Ok(())) => {
            let both = matches!(host.trials.get(&Trial::UserOverlay), Some(Ok(())));
            let found = if both { "works, in a user namespace too" } else { "works" };
            Finding::ok("overlayfs", found, needed_for)
        }
        _ if host.filesystems.contains("overlay") => {
            Finding::ok("overlayfs", "in the kernel, and cannot be mounted", needed_for).but(
                Status::Missing,
                "see `mounting`; without root, update the kernel to 5.11 or later",
            )
        }
        _ => Finding::ok("overlayfs", "not in the kernel", needed_for)
            .but(Status::Missing, "modprobe overlay"),
    }
}

fn erofs(host: &Host) -> Finding {
    let there = host.filesystems.contains("erofs");
    Finding::ok("erofs", if there { "there" } else { "not loaded" }, "images in that format")
        .unless(there, Status::Warning, "modprobe erofs")
}

fn fuse(host: &Host) -> Finding {
    let there = host.files.get("/dev/fuse").copied().unwrap_or(false);
    Finding::ok(
        "fuse",
        if there { "/dev/fuse" } else { "no /dev/fuse" },
        "file systems of programs",
    )
    .unless(there, Status::Warning, "modprobe fuse")
}

//! Who may what: users, control groups, security modules.

use carrack_linux::host::Host;

use super::{Finding, Status};

pub(super) fn findings(host: &Host) -> Vec<Finding> {
    let mut all = vec![privilege(host)];
    all.extend(subordinate(host));
    all.extend(groups(host));
    all.extend([apparmor(host), selinux(host), lockdown(host)]);
    all.extend(inside(host));
    all
}

fn privilege(host: &Host) -> Finding {
    let needed_for = "the daemon, networks, mounts";
    match (host.uid, host.administers) {
        (0, true) => Finding::ok("privilege", "root", needed_for),
        (0, false) => Finding::ok("privilege", "root without CAP_SYS_ADMIN", needed_for)
            .but(Status::Missing, "give the container or service around this host CAP_SYS_ADMIN"),
        (uid, _) => Finding::ok("privilege", format!("user {uid}"), needed_for)
            .but(Status::Missing, "run `carrack` as root"),
    }
}

/// Ranges, and the programs that map them for those who are not root.
fn subordinate(host: &Host) -> Vec<Finding> {
    let rootless = host.uid != 0;
    let user = host.user.clone().unwrap_or_else(|| host.uid.to_string());
    let (users, groups) = host.subordinate;
    let needed_for = "containers with users of their own, without root";
    let status = if rootless { Status::Missing } else { Status::Ok };
    let enough = users >= 65_536 && groups >= 65_536;
    let ranges = Finding::ok(
        "subuid, subgid",
        format!("{users} users, {groups} groups for {user}"),
        needed_for,
    );
    let ranges = if rootless {
        ranges.unless(
            enough,
            status,
            format!("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"),
        )
    } else {
        ranges
    };
    let mappers = ["newuidmap", "newgidmap"].map(|name| {
        let (found, privileged) = match host.programs.get(name) {
            None => ("not installed".to_owned(), false),
            Some((path, true)) => (path.display().to_string(), true),
            Some((path, false)) => (format!("{} without privilege", path.display()), false),
        };
        let finding = Finding::ok(name, found, needed_for);
        if rootless {
            finding.unless(
                privileged,
                status,
                format!("install the package uidmap (shadow-utils), or chmod u+s {name}"),
            )
        } else {
            finding
        }
    });
    [vec![ranges], mappers.to_vec()].concat()
}

fn groups(host: &Host) -> Vec<Finding> {
    let ones = host.controllers.values().any(|&version| version == 1);
    let kind = match (host.unified, ones) {
        (true, _) => "version 2",
        (false, true) => "version 1 or hybrid",
        (false, false) => "not mounted",
    };
    let mounted = host.unified || ones;
    let version = Finding::ok("control groups", kind, "everything").unless(
        mounted,
        Status::Missing,
        "mount -t cgroup2 none /sys/fs/cgroup",
    );
    let wanted: [(&str, &str, &[&str], Status); 7] = [
        ("memory", "--memory, out-of-memory events", &["memory"], Status::Missing),
        ("cpu", "--cpus", &["cpu"], Status::Missing),
        ("pids", "--pids-limit", &["pids"], Status::Missing),
        ("cpuset", "--cpuset-cpus", &["cpuset"], Status::Warning),
        ("io", "limits of block devices", &["io", "blkio"], Status::Warning),
        ("hugetlb", "limits of huge pages", &["hugetlb"], Status::Warning),
        ("rdma", "limits of RDMA", &["rdma"], Status::Warning),
    ];
    let controllers = wanted.map(|(name, needed_for, names, status)| {
        let found = names.iter().find_map(|name| host.controllers.get(*name));
        let text = found.map_or("not there".to_owned(), |version| format!("on version {version}"));
        let delegated = host.uid == 0 || names.iter().any(|name| host.delegated.contains(*name));
        let finding = Finding::ok(format!("cgroup {name}"), text, needed_for);
        match found {
            None => finding.but(status, remedy_of(name)),
            Some(2) if !delegated => finding.but(
                Status::Warning,
                format!(
                    "have it delegated: Delegate={name} in a drop-in of user@.service, then log in again"
                ),
            ),
            Some(_) => finding,
        }
    });
    let freezer = host.unified || host.controllers.contains_key("freezer");
    let freezer = Finding::ok(
        "freezer",
        if freezer { "there" } else { "not there" },
        "pause, and killing all of a container",
    )
    .unless(freezer, Status::Missing, "mount the freezer controller");
    let devices = host.unified || host.controllers.contains_key("devices");
    let devices = Finding::ok(
        "devices",
        match (host.unified, devices) {
            (true, _) => "by BPF programs",
            (false, true) => "on version 1",
            (false, false) => "not there",
        },
        "which devices a container may use",
    )
    .unless(devices, Status::Missing, "mount the devices controller");
    [vec![version], controllers.to_vec(), vec![freezer, devices]].concat()
}

fn remedy_of(controller: &str) -> String {
    match controller {
        "memory" => "add cgroup_enable=memory to the kernel's command line".to_owned(),
        "hugetlb" | "rdma" => {
            "nothing, unless a container needs it: use a kernel with it".to_owned()
        }
        other => format!("use a kernel with the {other} controller, or mount it"),
    }
}

fn apparmor(host: &Host) -> Finding {
    let needed_for = "process.apparmorProfile";
    match host.apparmor.as_deref() {
        None => Finding::ok("AppArmor", "not enabled", needed_for),
        Some(profile) => Finding::ok("AppArmor", format!("enabled; this is {profile}"), needed_for),
    }
}

fn selinux(host: &Host) -> Finding {
    let mode = match host.selinux {
        None => "not enabled",
        Some(true) => "enforcing",
        Some(false) => "permissive",
    };
    Finding::ok("SELinux", mode, "process.selinuxLabel")
}

fn lockdown(host: &Host) -> Finding {
    let mode = host.lockdown.as_deref().unwrap_or("none");
    Finding::ok("lockdown", mode, "BPF programs and tracing").unless(
        mode != "confidentiality",
        Status::Warning,
        "confidentiality mode forbids tracing of the kernel: boot with lockdown=integrity",
    )
}

fn inside(host: &Host) -> Option<Finding> {
    let name = host.inside.as_deref()?;
    let finding = Finding::ok("nested", format!("this host is itself inside {name}"), "nothing");
    Some(if name == "wsl" {
        finding.but(Status::Missing, "WSL 1 has no Linux kernel: wsl --set-version DISTRIBUTION 2")
    } else {
        finding
    })
}

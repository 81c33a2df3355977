use std::path::PathBuf;

use carrack_linux::host::{Call, Host, Trial};

use super::*;

/// A host that has all there is.
fn good() -> Host {
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    let calls = [
        Call::Openat2,
        Call::Clone3,
        Call::PidfdOpen,
        Call::Fsopen,
        Call::MountSetattr,
        Call::CloseRange,
        Call::Seccomp,
    ];
    let trials = [Trial::Mount, Trial::Overlay, Trial::UserNamespace, Trial::UserOverlay];
    let controllers = ["memory", "cpu", "pids", "cpuset", "io", "hugetlb", "rdma"];
    Host {
        kernel: "6.12.3-amd64".into(),
        administers: true,
        calls: calls.map(|call| (call, true)).into(),
        trials: trials.map(|trial| (trial, Ok(()))).into(),
        filesystems: names(&["overlay", "erofs"]),
        namespaces: names(&["mnt", "pid", "net", "ipc", "uts", "cgroup", "time", "user"]),
        settings: [
            ("net/ipv4/ip_forward", "1".to_owned()),
            ("fs/inotify/max_user_instances", "128".to_owned()),
            ("fs/inotify/max_user_watches", "65536".to_owned()),
        ]
        .into(),
        files: [("/dev/fuse", true), ("/sys/fs/bpf", true), ("/dev/kvm", true)].into(),
        unified: true,
        controllers: controllers.map(|name| (name.to_owned(), 2)).into(),
        seccomp: vec!["user_notif".into()],
        data: Some(("ext4".into(), 100 << 30)),
        ..Host::default()
    }
}

/// The same without root, and with all that needs.
fn rootless() -> Host {
    let mut host = Host {
        uid: 1000,
        user: Some("ann".into()),
        administers: false,
        subordinate: (65_536, 65_536),
        ..good()
    };
    for name in ["newuidmap", "newgidmap"] {
        host.programs.insert(name, (PathBuf::from("/usr/bin").join(name), true));
    }
    host.delegated = host.controllers.keys().cloned().collect();
    host
}

/// What is not well, and what is to be done.
fn complaints(host: &Host) -> Vec<(String, Status, String)> {
    let bad = findings(host).into_iter().filter(|finding| finding.status != Status::Ok);
    bad.map(|finding| (finding.name, finding.status, finding.remedy.unwrap_or_default())).collect()
}

#[track_caller]
fn check(mut host: Host, change: impl FnOnce(&mut Host), name: &str, status: Status, words: &str) {
    change(&mut host);
    let complaints = complaints(&host);
    let found = complaints.iter().find(|complaint| complaint.0 == name);
    let Some((_, found, remedy)) = found else { panic!("nothing of {name}: {complaints:?}") };
    assert_eq!(*found, status, "{name}: {remedy}");
    assert!(remedy.contains(words), "{words:?} is not in {remedy}");
}

#[test]
fn a_host_with_everything_has_nothing_to_complain_of() {
    assert_eq!(complaints(&good()), []);
    let only_root = [("privilege".to_owned(), Status::Missing, "run `carrack` as root".to_owned())];
    assert_eq!(complaints(&rootless()), only_root);
}

#[test]
fn an_old_or_filtered_kernel_is_named_by_what_it_lacks() {
    check(good(), |host| host.kernel = "5.4.0".into(), "kernel", Status::Missing, "5.12");
    check(good(), |host| host.kernel = "odd".into(), "kernel", Status::Missing, "5.12");
    for (call, name) in [
        (Call::Openat2, "openat2"),
        (Call::Clone3, "clone3"),
        (Call::PidfdOpen, "pidfd_open"),
        (Call::Fsopen, "fsopen"),
        (Call::MountSetattr, "mount_setattr"),
        (Call::CloseRange, "close_range"),
    ] {
        let without = |host: &mut Host| {
            host.calls.insert(call, false);
        };
        check(good(), without, name, Status::Missing, "seccomp profile around this host");
    }
    check(good(), |host| host.seccomp.clear(), "seccomp", Status::Warning, "listener");
    let no_time = |host: &mut Host| {
        host.namespaces.remove("time");
    };
    check(good(), no_time, "time namespace", Status::Warning, "5.6");
}

#[test]
fn what_forbids_user_namespaces_is_named() {
    let refuse = |name: &'static str, value: &str| {
        let value = value.to_owned();
        move |host: &mut Host| {
            host.trials.insert(Trial::UserNamespace, Err(libc::EPERM));
            host.settings.insert(name, value);
        }
    };
    let name = "user namespace";
    for (setting, value, words) in [
        ("user/max_user_namespaces", "0", "user.max_user_namespaces="),
        ("kernel/unprivileged_userns_clone", "0", "unprivileged_userns_clone=1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "restrict_unprivileged_userns=0"),
        ("net/ipv4/ip_forward", "1", "seccomp or AppArmor"),
    ] {
        check(rootless(), refuse(setting, value), name, Status::Missing, words);
    }
    let zero = refuse("user/max_user_namespaces", "0");
    check(good(), zero, name, Status::Warning, "user.max_user_namespaces=");
}

#[test]
fn a_profile_that_denies_mounts_is_named() {
    let denied = |profile: Option<&str>| {
        let profile = profile.map(ToOwned::to_owned);
        move |host: &mut Host| {
            host.trials.insert(Trial::Mount, Err(libc::EACCES));
            host.trials.insert(Trial::Overlay, Err(libc::EACCES));
            host.apparmor = profile;
        }
    };
    let lxc = "lxc-container-default-cgns (enforce)";
    check(good(), denied(Some(lxc)), "mounting", Status::Missing, lxc);
    check(good(), denied(None), "mounting", Status::Missing, "turn nesting on");
    check(good(), denied(Some("unconfined")), "mounting", Status::Missing, "SELinux");
    check(good(), denied(Some(lxc)), "overlayfs", Status::Missing, "mounting");
    let none = |host: &mut Host| {
        host.trials.insert(Trial::Overlay, Err(libc::ENODEV));
        host.filesystems.remove("overlay");
    };
    check(good(), none, "overlayfs", Status::Missing, "modprobe overlay");
}

#[test]
fn controllers_that_are_missing_or_not_delegated_are_named() {
    let without = |name: &'static str| {
        move |host: &mut Host| {
            host.controllers.remove(name);
        }
    };
    check(good(), without("memory"), "cgroup memory", Status::Missing, "cgroup_enable=memory");
    check(good(), without("cpuset"), "cgroup cpuset", Status::Warning, "cpuset");
    let kept = |host: &mut Host| {
        host.delegated.remove("cpu");
    };
    check(rootless(), kept, "cgroup cpu", Status::Warning, "Delegate=cpu");
    let nothing = |host: &mut Host| {
        host.unified = false;
        host.controllers.clear();
    };
    check(good(), nothing, "control groups", Status::Missing, "cgroup2");
    check(good(), nothing, "freezer", Status::Missing, "freezer");
    check(good(), nothing, "devices", Status::Missing, "devices");
}

#[test]
fn what_a_user_without_root_lacks_is_named_and_root_needs_none_of_it() {
    let few = |host: &mut Host| host.subordinate = (0, 65_536);
    check(rootless(), few, "subuid, subgid", Status::Missing, "usermod --add-subuids");
    let gone = |host: &mut Host| {
        host.programs.remove("newuidmap");
    };
    check(rootless(), gone, "newuidmap", Status::Missing, "uidmap");
    let plain = |host: &mut Host| host.programs.get_mut("newgidmap").unwrap().1 = false;
    check(rootless(), plain, "newgidmap", Status::Missing, "chmod u+s newgidmap");
}

#[test]
fn room_limits_and_where_we_are_are_judged() {
    let data = |kind: &'static str, free: u64| {
        move |host: &mut Host| host.data = Some((kind.to_owned(), free))
    };
    check(good(), data("ext4", 1 << 20), "data directory", Status::Missing, "free some space");
    check(good(), data("ext4", 1 << 30), "data directory", Status::Warning, "rmi");
    check(good(), data("nfs", 1 << 40), "data directory", Status::Missing, "local disk");
    check(good(), data("overlay", 1 << 40), "data directory", Status::Warning, "overlay");
    let few = |host: &mut Host| host.open_files = (Some(1024), Some(1024));
    check(good(), few, "open files", Status::Warning, "LimitNOFILE");
    let noexec = |host: &mut Host| {
        host.settings.insert("vm/memfd_noexec", "2".into());
    };
    check(good(), noexec, "programs in memory", Status::Missing, "memfd_noexec=0");
    let off = |host: &mut Host| {
        host.settings.insert("net/ipv4/ip_forward", "0".into());
    };
    check(good(), off, "IPv4 forwarding", Status::Warning, "ip_forward=1");
    let wsl = |host: &mut Host| host.inside = Some("wsl".into());
    check(good(), wsl, "nested", Status::Missing, "--set-version");
    let locked = |host: &mut Host| host.lockdown = Some("confidentiality".into());
    check(good(), locked, "lockdown", Status::Warning, "integrity");
    assert_eq!(complaints(&Host { inside: Some("wsl2".into()), ..good() }), []);
}

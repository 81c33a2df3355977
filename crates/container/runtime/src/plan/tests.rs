use std::path::Path;

use carrack_linux::cgroup::DeviceKind;
use serde_json::{Value, json};

use super::*;

fn minimal() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "root": { "path": "rootfs" },
        "process": { "cwd": "/", "args": ["sh"], "user": { "uid": 0, "gid": 0 } },
        "linux": { "namespaces": [{ "type": "mount" }, { "type": "pid" }] },
    })
}

fn plan_of(config: Value) -> Result<Plan, SpecError> {
    let spec = serde_json::from_value(config).unwrap();
    plan(&spec, Path::new("/bundle"), "name")
}

/// Sets what `pointer` leads to and tells the problems' fields.
#[track_caller]
fn problems(pointer: &str, value: Value) -> Vec<String> {
    let mut config = minimal();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    config.pointer_mut(parent).unwrap()[key] = value;
    match plan_of(config) {
        Err(SpecError::Refused(problems)) => {
            problems.into_iter().map(|problem| problem.field).collect()
        }
        other => panic!("for {pointer}: {other:?}"),
    }
}

#[test]
fn the_least_configuration_is_enough() {
    let plan = plan_of(minimal()).unwrap();
    assert_eq!(plan.namespaces.new, Kinds::MOUNT | Kinds::PID);
    assert_eq!(plan.rootfs, Path::new("/bundle/rootfs"));
    assert_eq!(plan.cgroup, Path::new("/carrack/name"));
    assert_eq!(plan.devices.len(), 6);
    assert!(plan.own_dev);
    let process = plan.process.unwrap();
    assert_eq!(process.capabilities, carrack_linux::capability::Sets::default());
}

#[test]
fn what_we_do_not_do_is_refused_by_its_place() {
    let cases = [
        (
            "/linux/timeOffsets",
            json!({ "monotonic": { "secs": 1 } }),
            "linux.timeOffsets.monotonic",
        ),
        ("/linux/netDevices", json!({ "eth0": {} }), "linux.netDevices"),
        (
            "/linux/memoryPolicy",
            json!({ "mode": "MPOL_BIND", "nodes": "" }),
            "linux.memoryPolicy.nodes",
        ),
        ("/process/scheduler", json!({ "policy": "SCHED_ISO" }), "process.scheduler"),
        ("/process/scheduler", json!({ "policy": "SCHED_OTHER", "nice": 20 }), "process.scheduler"),
        (
            "/process/execCPUAffinity",
            json!({ "initial": "0,x" }),
            "process.execCPUAffinity.initial",
        ),
        (
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_ALLOW",
                    "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }] }),
            "linux.seccomp.listenerPath",
        ),
        (
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x",
                    "syscalls": [{ "names": ["write"], "action": "SCMP_ACT_NOTIFY" }] }),
            "linux.seccomp.syscalls",
        ),
        (
            "/mounts",
            json!([{ "destination": "/a", "type": "tmpfs", "options": ["idmap"] }]),
            "mounts[0]",
        ),
        (
            "/mounts",
            json!([{ "destination": "/a", "source": "/a", "options": ["bind", "tmpcopyup"] }]),
            "mounts[0]",
        ),
        ("/linux/rootfsPropagation", json!("sideways"), "linux.rootfsPropagation"),
        ("/linux/maskedPaths", json!(["relative"]), "linux.maskedPaths"),
        (
            "/linux/namespaces",
            json!([{ "type": "mount" }, { "type": "mount" }]),
            "linux.namespaces",
        ),
        ("/linux/sysctl", json!({ "net.core.somaxconn": "1" }), "linux.sysctl.net.core.somaxconn"),
        ("/hostname", json!("box"), "hostname"),
        ("/ociVersion", json!("2.0.0"), "ociVersion"),
        ("/process/args", json!([]), "process.args"),
        ("/process/env", json!(["A=\u{0}"]), "process.env"),
        ("/mounts", json!([{ "destination": "/", "type": "tmpfs" }]), "mounts[0]"),
        ("/mounts", json!([{ "destination": "/a", "type": "bind" }]), "mounts[0]"),
        ("/mounts", json!([{ "destination": "/a" }]), "mounts[0]"),
    ];
    for (pointer, value, field) in cases {
        assert!(problems(pointer, value).iter().any(|found| found == field), "for {pointer}");
    }
}

#[test]
fn mount_options_become_attributes_plain_and_recursive() {
    use carrack_linux::mount::Attributes;
    let mut config = minimal();
    config["mounts"] = json!([
        { "destination": "/a", "type": "none", "source": "/s", "options": ["rbind", "ro", "rnosuid", "rslave", "rw"] },
        { "destination": "b", "type": "tmpfs", "source": "tmpfs", "options": ["size=1k", "nodev", "noswap"] },
    ]);
    let mounts = plan_of(config).unwrap().mounts;
    assert_eq!(mounts[0].source, MountSource::Bind { path: "/s".into(), recursive: true });
    // The last of two that contradict each other counts.
    assert_eq!(
        (mounts[0].change.set, mounts[0].change.clear),
        (Attributes::empty(), Attributes::READ_ONLY)
    );
    assert_eq!(mounts[0].recursive.set, Attributes::NO_SUID);
    assert_eq!(mounts[0].propagation, Some((Propagation::Slave, true)));
    assert_eq!(mounts[1].destination, Path::new("/b"));
    let options = vec![("size".to_owned(), Some("1k".to_owned())), ("noswap".to_owned(), None)];
    let (kind, source) = ("tmpfs".to_owned(), "tmpfs".to_owned());
    assert_eq!(mounts[1].source, MountSource::New { kind, source, options });
}

#[test]
fn device_rules_end_with_the_devices_every_container_has() {
    let mut config = minimal();
    config["linux"]["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    let rules = plan_of(config).unwrap().limits.devices.unwrap();
    assert_eq!((rules[0].allow, rules[0].kind), (false, DeviceKind::All));
    assert!(rules[1..].iter().all(|rule| rule.allow));
    assert!(rules.iter().any(|rule| (rule.major, rule.minor) == (Some(1), Some(3))));
    // Without rules of its own nothing is said, and nothing denied.
    assert_eq!(plan_of(minimal()).unwrap().limits.devices, None);
}

#[test]
fn a_bound_dev_is_not_filled() {
    let mut config = minimal();
    config["mounts"] = json!([{ "destination": "/dev/", "source": "/dev", "options": ["bind"] }]);
    assert!(!plan_of(config).unwrap().own_dev);
}

#[test]
fn a_writable_group_is_owned_by_the_containers_user() {
    let mut config = minimal();
    config["mounts"] =
        json!([{ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup" }]);
    config["process"]["user"]["uid"] = json!(7);
    config["linux"]["namespaces"] =
        json!([{ "type": "mount" }, { "type": "cgroup" }, { "type": "user" }]);
    let map = json!([{ "containerID": 0, "hostID": 1000, "size": 1 },
                     { "containerID": 5, "hostID": 100_000, "size": 10 }]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
    assert_eq!(plan_of(config.clone()).unwrap().cgroup_owner(), Some(100_002));
    config["mounts"][0]["options"] = json!(["ro"]);
    assert_eq!(plan_of(config).unwrap().cgroup_owner(), None);
}

#[test]
fn new_device_rules_keep_the_default_devices() {
    let resources = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    let limits = plan_limits(&serde_json::from_value(resources).unwrap()).unwrap();
    let null = |rule: &carrack_linux::cgroup::DeviceRule| {
        rule.allow && (rule.major, rule.minor) == (Some(1), Some(3))
    };
    assert!(limits.0.devices.unwrap().iter().any(null));
}

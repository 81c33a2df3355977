//! The runtime beside a real systemd, which makes its control groups: in a guest whose
//! process 1 is this machine's own.

use std::path::Path;

use serde_json::{Value, json};

use crate::bundles::limited;
use crate::machine::Guest;

const SYSTEMD: &str = "/usr/lib/systemd/systemd";

/// Starts the cases and nothing else.
const TARGET: &str = "[Unit]\nDescription=The cases\nWants=cases.service\n";
const SERVICE: &str = "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\n\
                       Delegate=no\nExecStart=/bin/busybox sh /init cases\nStandardOutput=null\n";

fn bundles() -> Vec<(String, Value)> {
    let idle = "exec sleep 1000";
    let megabyte = 1u64 << 20;
    let (name, mut limits) = limited(
        "limits",
        idle,
        &json!({
            "memory": {
                "limit": 32 * megabyte, "swap": 32 * megabyte, "reservation": 16 * megabyte,
            },
            "cpu": {
                "shares": 512, "quota": 5_001, "period": 100_000, "cpus": "1", "mems": "0",
            },
            "pids": { "limit": 20 },
            "unified": { "memory.high": "30003200", "memory.oom.group": "1" },
            "devices": [
                { "allow": false, "access": "rwm" },
                { "allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm" },
            ],
        }),
    );
    limits["linux"]["cgroupsPath"] = json!("cases-deep.slice:box:limits");
    limits["annotations"] = json!({ "org.systemd.property.TimeoutStopSec": "uint64 7" });
    let (_, mut legacy) = limited(
        "legacy",
        idle,
        &json!({
            "memory": { "limit": 32 * megabyte },
            "cpu": { "shares": 512, "quota": 5_001, "period": 100_000, "cpus": "1" },
            "pids": { "limit": 20 },
            "devices": [
                { "allow": false, "access": "rwm" },
                { "allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm" },
            ],
        }),
    );
    legacy["linux"]["cgroupsPath"] = json!("cases-deep.slice:box:legacy");
    let (_, mut plain) = limited("plain", idle, &json!({ "pids": { "limit": 9 } }));
    plain["linux"]["cgroupsPath"] = json!("");
    let (_, mut short) = limited("short", "exit 3", &json!({}));
    short["linux"]["cgroupsPath"] = json!(":box:short");
    let (_, mut bad) = limited("bad", idle, &json!({ "cpu": { "cpus": "77" } }));
    bad["linux"]["cgroupsPath"] = json!(":box:bad");
    let (_, path) = limited("path", idle, &json!({}));
    let (_, mut annotation) = limited("annotation", idle, &json!({}));
    annotation["linux"]["cgroupsPath"] = json!(":box:annotation");
    annotation["annotations"] = json!({ "org.systemd.property.NoSuchProperty": "true" });
    [(name, limits)]
        .into_iter()
        .chain(
            [
                ("legacy", legacy),
                ("plain", plain),
                ("short", short),
                ("bad", bad),
                ("path", path),
                ("annotation", annotation),
            ]
            .map(|(name, config)| (name.to_owned(), config)),
        )
        .collect()
}

#[track_caller]
fn check(options: &str, least: usize) {
    if !Path::new(SYSTEMD).exists() {
        eprintln!("skipped: {SYSTEMD} is missing; install systemd");
        return;
    }
    let executor = "/usr/lib/systemd/systemd-executor";
    let mut programs = vec![SYSTEMD, "/usr/bin/systemctl"];
    // Since 254 it is a program of its own that starts others.
    programs.extend(Path::new(executor).exists().then_some(executor));
    let guest = Guest {
        script: "systemd.sh",
        bundles: bundles(),
        peer: None,
        programs: &programs,
        files: &[
            ("/etc/systemd/system/default.target", TARGET),
            ("/etc/systemd/system/cases.service", SERVICE),
            ("/etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
            ("/etc/os-release", "ID=guest\n"),
            ("/etc/passwd", "root:x:0:0::/:/bin/sh\n"),
            ("/etc/group", "root:x:0:\n"),
        ],
        options,
    };
    crate::judge(&guest, least);
}

#[test]
fn systemd_makes_the_groups_and_keeps_the_limits() {
    check("systemd.unified_cgroup_hierarchy=1", 30);
}

#[test]
fn systemd_makes_the_groups_of_version_1_too() {
    check("systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1", 18);
}

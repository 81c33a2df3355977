use std::fs;

use serde_json::json;

use crate::support::Bundle;

/// A file of the container's group, on version 1 or 2.
fn setting(bundle: &Bundle, controller: &str, one: &str, two: &str) -> String {
    let one = format!("/sys/fs/cgroup/{controller}/carrack-test-{}/{one}", bundle.id);
    let two = format!("/sys/fs/cgroup/carrack-test-{}/{two}", bundle.id);
    fs::read_to_string(one).or_else(|_| fs::read_to_string(two)).unwrap().trim().to_owned()
}

#[test]
fn limits_are_written_and_updated() {
    let Some(mut bundle) = Bundle::program(&["/bin/sleep", "60"]) else { return };
    bundle.config["linux"]["resources"]["memory"] = json!({ "limit": 32 << 20 });
    bundle.config["linux"]["resources"]["pids"] = json!({ "limit": 20 });
    bundle.config["linux"]["resources"]["cpu"] =
        json!({ "quota": 50_000, "period": 100_000, "shares": 512 });
    bundle.started();
    let memory = || setting(&bundle, "memory", "memory.limit_in_bytes", "memory.max");
    assert_eq!(memory(), (32 << 20).to_string());
    assert_eq!(setting(&bundle, "pids", "pids.max", "pids.max"), "20");
    let quota = setting(&bundle, "cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(quota.starts_with("50000"), "{quota}");
    fs::write(
        bundle.path().join("resources"),
        json!({ "memory": { "limit": 48 << 20 } }).to_string(),
    )
    .unwrap();
    bundle.runtime(&["update", "--resources", "resources", &bundle.id]).ok();
    assert_eq!(memory(), (48 << 20).to_string());
}

#[test]
fn more_processes_than_allowed_are_refused() {
    let Some(mut bundle) = Bundle::script("for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; echo all")
    else {
        return;
    };
    bundle.config["linux"]["resources"]["pids"] = json!({ "limit": 4 });
    let said = bundle.run();
    assert!(!said.out.contains("all"), "{}", said.out);
    assert!(said.err.contains("fork"), "{}", said.err);
}

#[test]
fn memory_over_the_limit_is_killed() {
    let Some(mut bundle) =
        Bundle::script("dd if=/dev/zero of=/dev/null bs=64M count=1; echo $?; exit 7")
    else {
        return;
    };
    bundle.config["linux"]["resources"]["memory"] = json!({ "limit": 8 << 20, "swap": 8 << 20 });
    let said = bundle.run();
    // The kernel kills dd, or the shell with it.
    assert!(said.out.contains("137") || said.code == 137, "{said:?}");
}

#[test]
fn a_container_starts_in_very_little_memory() {
    let Some(mut bundle) = Bundle::program(&["/bin/true"]) else { return };
    bundle.config["linux"]["resources"]["memory"] = json!({ "limit": 1 << 20 });
    bundle.run().ok();
}

#[test]
fn the_processes_of_a_container_are_listed() {
    let Some(bundle) = Bundle::script("sleep 60 & sleep 60") else { return };
    bundle.started();
    let listed = bundle.runtime(&["ps", "--format", "json", &bundle.id]).ok();
    let pids: Vec<i32> = serde_json::from_str(&listed).unwrap();
    let first = i32::try_from(bundle.state()["pid"].as_i64().unwrap()).unwrap();
    assert!(pids.contains(&first), "{pids:?}");
}

#[test]
fn who_makes_groups_is_told_on_the_command_line() {
    let Some(mut bundle) = Bundle::program(&["/bin/true"]) else { return };
    let id = bundle.id.clone();
    bundle.config["linux"]["cgroupsPath"] = json!("");
    let run = |flags: &[&str]| bundle.runtime(&[flags, &["run", &id]].concat());
    run(&["--rootless", "maybe"]).fails_with(&["--rootless", "true, false and auto"]);
    run(&["--rootless", "false"]).ok();
    run(&["--rootless=true"]).ok();
    if std::path::Path::new("/run/systemd/system").exists() {
        eprintln!("skipped: a systemd answers here; the guests ask it");
        return;
    }
    run(&["--systemd-cgroup"]).fails_with(&["systemd", "none answers", "cgroupfs driver"]);
    bundle.runtime(&["state", &id]).fails_with(&["does not exist"]);
}

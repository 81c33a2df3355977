//! Control groups, capabilities and namespaces.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use carrack_conformance::Bundle;
use serde_json::json;

/// What the host's control groups would run when one empties.
fn release_agents() -> BTreeMap<PathBuf, String> {
    let entries = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().filter_map(Result::ok);
    let agents = entries.map(|entry| entry.path().join("release_agent"));
    agents.filter_map(|path| Some((path.clone(), fs::read_to_string(path).ok()?))).collect()
}

/// Says something only if it could have an agent run, or get the namespaces it takes.
const AGENT: &str = "for f in $(find /sys/fs/cgroup -name release_agent 2>/dev/null); do \
                     (echo /escape > $f) 2>/dev/null && echo WROTE $f; done; \
                     mkdir /tmp/c; for o in memory cpu pids none,name=escape; do \
                     mount -t cgroup -o $o none /tmp/c 2>/dev/null && echo MOUNTED $o; done; \
                     unshare -Urm true 2>/dev/null && echo UNSHARED; true";

#[test]
fn cve_2022_0492_a_container_cannot_name_a_release_agent() {
    let before = release_agents();
    for options in
        [json!(["nosuid", "noexec", "nodev", "ro"]), json!(["nosuid", "noexec", "nodev"])]
    {
        let Some(mut bundle) = Bundle::script(AGENT) else { return };
        for mount in bundle.mounts().iter_mut().filter(|mount| mount["type"] == "cgroup") {
            mount["options"] = options.clone();
        }
        assert_eq!(bundle.run().ok(), "", "with {options}");
    }
    assert_eq!(release_agents(), before, "a release agent of the host was changed");
}

#[test]
fn cve_2022_0492_nor_can_one_with_users_of_its_own() {
    let before = release_agents();
    let Some(mut bundle) = Bundle::script(AGENT) else { return };
    bundle.map_users();
    bundle.without_mounts_at("/sys");
    let said = bundle.run().ok();
    assert!(!said.contains("WROTE") && !said.contains("MOUNTED"), "{said}");
    assert_eq!(release_agents(), before, "a release agent of the host was changed");
}

#[test]
fn cve_2023_25809_control_groups_shown_read_only_cannot_be_written() {
    // A directory without groups, which on version 1 holds the hierarchies, is no one's.
    let script = "for p in $(find /sys/fs/cgroup -name cgroup.procs); do d=${p%/cgroup.procs}; \
                  mkdir $d/escape 2>/dev/null && echo MADE $d; \
                  for f in cgroup.procs notify_on_release; do \
                  (echo 1 > $d/$f) 2>/dev/null && echo WROTE $d/$f; done; done; true";
    for (own_groups, users) in [(true, false), (false, false), (false, true), (true, true)] {
        let Some(mut bundle) = Bundle::script(script) else { return };
        if users {
            bundle.map_users();
        }
        if !own_groups {
            let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "cgroup");
        }
        let said = bundle.run();
        let case = format!("own group namespace: {own_groups}, own users: {users}");
        // Not every runtime can mount these with users of its own; none may let them be written.
        assert!(!said.out.contains("MADE") && !said.out.contains("WROTE"), "{case}: {said:?}");
    }
}

#[test]
fn cve_2022_29162_no_capability_is_inheritable_unless_asked_for() {
    const SHOW: [&str; 3] = ["/bin/grep", "CapInh", "/proc/self/status"];
    const NONE: &str = "CapInh:\t0000000000000000\n";
    let Some(mut bundle) = Bundle::program(&SHOW) else { return };
    assert_eq!(bundle.run().ok(), NONE, "run");
    bundle.rename();
    bundle.config["process"]["args"] = json!(["/bin/sleep", "60"]);
    bundle.started();
    let exec = |options: &[&str]| {
        let words = [&["exec"], options, &[bundle.id.as_str()], &SHOW].concat();
        bundle.runtime(&words).ok()
    };
    assert_eq!(exec(&[]), NONE, "exec");
    assert_eq!(exec(&["--cap", "CAP_NET_RAW"]), NONE, "exec with a capability");
}

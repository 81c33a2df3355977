//! What a program may use of processors, memory nodes and disks, and what it is labelled.

use serde_json::json;

use crate::support::Bundle;

#[test]
fn policy_and_niceness_are_those_asked_for() {
    // Fields 19 and 41 of stat, counted behind the name.
    let script = "set -- $(cut -d')' -f2 /proc/self/stat); echo ${17} ${39}";
    let Some(mut bundle) = Bundle::script(script) else { return };
    bundle.config["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 7 });
    assert_eq!(bundle.run().ok(), "7 3\n");
}

#[test]
fn a_joining_program_runs_on_the_processors_it_is_given() {
    let Some(mut bundle) = Bundle::program(&["/bin/sleep", "60"]) else { return };
    let all = rustix::thread::sched_getaffinity(None).unwrap();
    let Some(last) = (0..1024).rfind(|&cpu| all.is_set(cpu)) else { return };
    bundle.started();
    bundle.config["process"]["execCPUAffinity"] =
        json!({ "initial": last.to_string(), "final": last.to_string() });
    bundle.config["process"]["args"] =
        json!(["/bin/grep", "Cpus_allowed_list", "/proc/self/status"]);
    let file = bundle.path().join("process.json");
    std::fs::write(&file, bundle.config["process"].to_string()).unwrap();
    let said = bundle.runtime(&["exec", "--process", file.to_str().unwrap(), &bundle.id]).ok();
    assert_eq!(said.trim(), format!("Cpus_allowed_list:\t{last}"));
}

#[test]
fn memory_comes_from_the_nodes_asked_for() {
    let Some(mut bundle) = Bundle::script("head -n1 /proc/self/numa_maps") else { return };
    bundle.config["linux"]["memoryPolicy"] =
        json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] });
    let said = bundle.run();
    if said.err.contains("numa_maps") || said.err.contains("not implemented") {
        eprintln!("skipped: this kernel has no memory policies ({})", said.err.trim());
        return;
    }
    assert!(said.out.contains("bind=static:0"), "{}{}", said.out, said.err);
    bundle.config["linux"]["memoryPolicy"]["nodes"] = json!("999");
    bundle.run().fails_with(&["taking memory"]);
}

#[test]
fn a_program_may_think_the_machine_has_32_bits() {
    let Some(mut bundle) = Bundle::program(&["/bin/busybox", "uname", "-m"]) else { return };
    bundle.config["linux"]["personality"] = json!({ "domain": "LINUX32" });
    assert_eq!(
        bundle.run().ok().trim(),
        if cfg!(target_arch = "x86_64") { "i686" } else { "armv8l" }
    );
}

#[test]
fn a_label_that_nobody_enforces_is_refused_by_its_name() {
    use carrack_linux::label::System;
    for (field, label, system) in [
        ("apparmorProfile", "no-such-profile", System::AppArmor),
        ("selinuxLabel", "system_u:system_r:no_such_t:s0", System::Selinux),
    ] {
        let Some(mut bundle) = Bundle::program(&["/bin/true"]) else { return };
        bundle.config["process"][field] = json!(label);
        bundle.run().fails_with(&[system.name(), label]);
    }
}

#[test]
fn a_capability_nobody_knows_is_left_out_with_a_word() {
    let Some(mut bundle) = Bundle::program(&["/bin/true"]) else { return };
    let sets = &mut bundle.config["process"]["capabilities"];
    sets["bounding"].as_array_mut().unwrap().push(json!("CAP_FLY"));
    let said = bundle.run();
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("CAP_FLY"), "{}", said.err);
}

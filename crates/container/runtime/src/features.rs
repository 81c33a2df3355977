//! What this runtime can do, for callers that ask.
//!
//! A list here says what [`plan`](crate::plan) takes; the tests below hold each entry, and
//! each name of the specification that is not an entry, against it.

/// The newest version of the specification that is spoken.
pub const SPEC_VERSION: &str = carrack_oci::runtime::VERSION;

/// The oldest.
pub const OLDEST_SPEC_VERSION: &str = "1.0.0";

/// Mount options with a meaning here.
pub const MOUNT_OPTIONS: &[&str] = crate::plan::OPTION_NAMES;

/// Moments at which hooks run.
pub const HOOKS: &[&str] =
    &["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Kinds of namespaces.
pub const NAMESPACES: &[&str] =
    &["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];

/// What can happen to a system call.
pub const SECCOMP_ACTIONS: &[&str] = &[
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

/// How an argument of a system call is compared.
pub const SECCOMP_OPERATORS: &[&str] = &[
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

/// Instruction sets a filter is compiled for.
pub const SECCOMP_ARCHITECTURES: &[&str] =
    &["SCMP_ARCH_AARCH64", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"];

/// Flags of a filter.
pub const SECCOMP_FLAGS: &[&str] = &[
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

/// Whether `process.apparmorProfile` is applied.
pub const APPARMOR: bool = true;

/// Whether `process.selinuxLabel` and `linux.mountLabel` are applied.
pub const SELINUX: bool = true;

/// Whether `linux.intelRdt` is applied.
pub const INTEL_RDT: bool = false;

/// Whether ids can be mapped on a mount.
pub const MAPPED_MOUNTS: bool = true;

/// Whether `linux.netDevices` is applied.
pub const NET_DEVICES: bool = true;

/// Modes of `linux.memoryPolicy`; none when it is refused.
pub const MEMORY_POLICY_MODES: &[&str] = &[
    "MPOL_BIND",
    "MPOL_DEFAULT",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

/// Flags of `linux.memoryPolicy`.
pub const MEMORY_POLICY_FLAGS: &[&str] =
    &["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;

    /// Whether a configuration with `value` at `place` can be planned.
    fn is_taken(place: &str, value: Value) -> bool {
        let mut config = json!({
            "ociVersion": SPEC_VERSION,
            "root": { "path": "rootfs" },
            "mounts": [],
            "process": { "user": { "uid": 0, "gid": 0 }, "args": ["sh"], "cwd": "/" },
            "linux": { "namespaces": [{ "type": "mount" }, { "type": "network" }], "seccomp": null },
        });
        if config.pointer(place).is_none() {
            let (parent, name) = place.rsplit_once('/').unwrap();
            config.pointer_mut(parent).unwrap()[name] = Value::Null;
        }
        *config.pointer_mut(place).unwrap() = value;
        let Ok(spec) = serde_json::from_value(config) else { return false };
        crate::plan::plan(&spec, Path::new("/bundle"), "id").is_ok()
    }

    #[track_caller]
    fn check(listed: &[&str], known: &[&str], taken: impl Fn(&str) -> bool) {
        for name in listed {
            assert!(known.contains(name), "{name} is none of the specification's");
        }
        for name in known {
            assert_eq!(listed.contains(name), taken(name), "for {name}");
        }
    }

    #[test]
    fn the_listed_namespaces_are_those_that_are_made() {
        let known = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];
        check(NAMESPACES, &known, |name| {
            let mappings = json!([{ "containerID": 0, "hostID": 1000, "size": 10 }]);
            let mut linux = json!({ "namespaces": [{ "type": "mount" }, { "type": name }] });
            if name == "mount" {
                linux["namespaces"] = json!([{ "type": "mount" }]);
            }
            if name == "user" {
                linux["uidMappings"] = mappings.clone();
                linux["gidMappings"] = mappings;
            }
            is_taken("/linux", linux)
        });
    }

    #[test]
    fn the_listed_actions_operators_and_flags_are_those_that_are_compiled() {
        let actions = [
            "SCMP_ACT_ALLOW",
            "SCMP_ACT_ERRNO",
            "SCMP_ACT_KILL",
            "SCMP_ACT_KILL_PROCESS",
            "SCMP_ACT_KILL_THREAD",
            "SCMP_ACT_LOG",
            "SCMP_ACT_NOTIFY",
            "SCMP_ACT_TRACE",
            "SCMP_ACT_TRAP",
        ];
        let profile = |action: &str, operator: &str, flags: Value| {
            let args = json!([{ "index": 0, "value": 1, "valueTwo": 1, "op": operator }]);
            let call = json!({ "names": ["ioctl"], "action": action, "args": args });
            let seccomp = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "flags": flags,
                "listenerPath": if action.ends_with("NOTIFY") { "/run/seccomp.sock" } else { "" },
                "syscalls": [call],
            });
            is_taken("/linux/seccomp", seccomp)
        };
        check(SECCOMP_ACTIONS, &actions, |name| profile(name, "SCMP_CMP_EQ", json!([])));
        check(SECCOMP_OPERATORS, SECCOMP_OPERATORS, |name| {
            profile("SCMP_ACT_ERRNO", name, json!([]))
        });
        let flags = [
            "SECCOMP_FILTER_FLAG_LOG",
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
            "SECCOMP_FILTER_FLAG_TSYNC",
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        ];
        check(SECCOMP_FLAGS, &flags, |name| {
            // Waiting for an answer takes somebody who gives it.
            let waits = name.ends_with("WAIT_KILLABLE_RECV");
            let action = if waits { "SCMP_ACT_NOTIFY" } else { "SCMP_ACT_ERRNO" };
            profile(action, "SCMP_CMP_EQ", json!([name]))
        });
    }

    #[test]
    fn what_is_said_of_labels_devices_and_policies_holds() {
        let cases = [
            ("/process/apparmorProfile", json!("carrack"), APPARMOR),
            ("/process/selinuxLabel", json!("a:b:c:s0"), SELINUX),
            ("/linux/mountLabel", json!("a:b:c:s0"), SELINUX),
            ("/linux/intelRdt", json!({ "closID": "a" }), INTEL_RDT),
            ("/linux/netDevices", json!({ "eth9": {} }), NET_DEVICES),
            (
                "/linux/memoryPolicy",
                json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": [] }),
                MEMORY_POLICY_MODES.contains(&"MPOL_BIND"),
            ),
        ];
        for (place, value, said) in cases {
            assert_eq!(is_taken(place, value), said, "for {place}");
        }
    }
}

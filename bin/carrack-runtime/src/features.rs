//! `features`: what this runtime can do, in the specification's words.

use carrack_container_runtime::features as own;
use serde_json::{Value, json};

/// The document (features.md of the runtime specification).
pub(crate) fn document() -> Value {
    let mut linux = json!({
        "namespaces": own::NAMESPACES,
        "capabilities": carrack_linux::capability::all_names(),
        "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true },
        "seccomp": {
            "enabled": true,
            "actions": own::SECCOMP_ACTIONS,
            "operators": own::SECCOMP_OPERATORS,
            "archs": own::SECCOMP_ARCHITECTURES,
            "knownFlags": own::SECCOMP_FLAGS,
            "supportedFlags": own::SECCOMP_FLAGS,
        },
        "apparmor": { "enabled": own::APPARMOR },
        "selinux": { "enabled": own::SELINUX },
        "intelRdt": { "enabled": own::INTEL_RDT },
        "mountExtensions": { "idmap": { "enabled": own::MAPPED_MOUNTS } },
        "netDevices": { "enabled": own::NET_DEVICES },
    });
    if !own::MEMORY_POLICY_MODES.is_empty() {
        linux["memoryPolicy"] =
            json!({ "modes": own::MEMORY_POLICY_MODES, "flags": own::MEMORY_POLICY_FLAGS });
    }
    json!({
        "ociVersionMin": own::OLDEST_SPEC_VERSION,
        "ociVersionMax": own::SPEC_VERSION,
        "hooks": own::HOOKS,
        "mountOptions": own::MOUNT_OPTIONS,
        "linux": linux,
        "annotations": {
            "io.carrack.version": env!("CARGO_PKG_VERSION"),
            "org.opencontainers.runc.checkpoint.enabled": "true",
        },
        // Configuration annotations that would change what is done, for callers to keep
        // from their users: criu reads the file it is pointed at.
        "potentiallyUnsafeConfigAnnotations": ["org.criu.config"],
    })
}

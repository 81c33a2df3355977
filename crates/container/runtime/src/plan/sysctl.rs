use std::collections::BTreeMap;

use carrack_linux::namespace::Kinds;

use super::Problems;

/// Kernel settings that each ipc namespace has for itself.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// The settings, as paths below `/proc/sys`; only those that stay in the container.
pub(super) fn plan(
    sysctls: &BTreeMap<String, String>,
    own: Kinds,
    problems: &mut Problems,
) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (name, value) in sysctls {
        let dotted = if name.contains('/') { name.replace('/', ".") } else { name.clone() };
        let field = format!("linux.sysctl.{name}");
        match namespace_of(&dotted) {
            None => problems.add(
                &field,
                "belongs to the whole machine, not to a container; set it on the host",
            ),
            Some(kind) if !own.contains(kind) => {
                problems.add(
                    &field,
                    format!("needs a {} namespace, or it would change the host", kind.name()),
                );
            }
            Some(_) => {
                let path = if name.contains('/') { name.clone() } else { name.replace('.', "/") };
                if path.split('/').any(|part| part.is_empty() || part == ".." || part == ".") {
                    problems.add(&field, "is not the name of a setting");
                }
                found.insert(path, value.clone());
            }
        }
    }
    found
}

fn namespace_of(name: &str) -> Option<Kinds> {
    if IPC.contains(&name) || name.starts_with("fs.mqueue.") {
        Some(Kinds::IPC)
    } else if name.starts_with("net.") {
        Some(Kinds::NETWORK)
    } else if name == "kernel.domainname" || name == "kernel.hostname" {
        Some(Kinds::UTS)
    } else {
        None
    }
}

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Value, json};

use super::{Command, Context, Failed};
use crate::options::{Arguments, Count, Flag, Usage};

pub(super) const SPEC: Command = Command {
    name: "spec",
    arguments: "",
    about: "write a config.json to start from",
    details: "It runs sh on a terminal in the directory rootfs, read-only.",
    flags: &[
        Flag::valued("bundle", "DIR", "write it there [default: the working directory]").short('b'),
        Flag::switch("rootless", "for a user without privileges, mapped to root inside"),
    ],
    words: Count::Exactly(0),
    run: spec,
};

fn spec(_: &Context, arguments: &mut Arguments) -> Result<ExitCode, Failed> {
    let path = arguments.path("bundle").unwrap_or_else(|| ".".into()).join("config.json");
    let mut config = example();
    if arguments.is_on("rootless") {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        make_rootless(&mut config, uid, gid);
    }
    let mut text = Vec::new();
    let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    config.serialize(&mut serde_json::Serializer::with_formatter(&mut text, tabs))?;
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o666).open(&path);
    match made {
        Ok(mut file) => file.write_all(&text)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let message = format!("File {} exists. Remove it first", path.display());
            return Err(Usage(message).into());
        }
        Err(error) => {
            let message = format!("writing {}: {error}", path.display());
            return Err(io::Error::new(error.kind(), message).into());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What runc's users start from, value for value.
fn example() -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mut namespaces = vec!["pid", "network", "ipc", "uts", "mount"];
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        namespaces.push("cgroup");
    }
    let namespaces: Vec<Value> = namespaces.iter().map(|kind| json!({ "type": kind })).collect();
    json!({
        "ociVersion": carrack_container_runtime::features::SPEC_VERSION,
        "process": {
            "terminal": true,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm",
            ],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "carrack",
        "mounts": mounts(),
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": namespaces,
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware",
                "/proc/scsi",
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
            ],
        },
    })
}

fn mounts() -> Vec<Value> {
    let cases: [(&str, &str, &str, &[&str]); 7] = [
        ("/proc", "proc", "proc", &[]),
        ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        (
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ];
    let mount = |(destination, kind, source, options): &(&str, &str, &str, &[&str])| {
        let mut mount = json!({ "destination": destination, "type": kind, "source": source });
        if !options.is_empty() {
            mount["options"] = json!(options);
        }
        mount
    };
    cases.iter().map(mount).collect()
}

/// Without what only root can have, and with the user as root inside.
fn make_rootless(config: &mut Value, uid: u32, gid: u32) {
    if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({ "type": "user" }));
    }
    let mapping = |id: u32| json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
    config["linux"]["uidMappings"] = mapping(uid);
    config["linux"]["gidMappings"] = mapping(gid);
    for mount in config["mounts"].as_array_mut().into_iter().flatten() {
        if mount["destination"] == "/sys" {
            // A new one belongs to whoever owns the network.
            *mount = json!({
                "destination": "/sys", "type": "none", "source": "/sys",
                "options": ["rbind", "nosuid", "noexec", "nodev", "ro"],
            });
        }
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| {
                let text = option.as_str().unwrap_or_default();
                !text.starts_with("gid=") && !text.starts_with("uid=")
            });
        }
    }
    if let Some(linux) = config["linux"].as_object_mut() {
        linux.remove("resources");
    }
}

//! The containers that the guest runs, by name.

use std::path::Path;

use carrack_oci::runtime::defaults::{DefaultSpec, default_spec};
use serde_json::{Value, json};

const MEGABYTE: u64 = 1 << 20;

/// A configuration whose program is this shell script.
pub(crate) fn script(name: &str, script: &str) -> Value {
    let spec = default_spec(&DefaultSpec {
        args: ["/bin/sh", "-c", script].map(ToString::to_string).to_vec(),
        hostname: Some("box".into()),
        cgroups_path: Some(Path::new("/cases").join(name)),
        ..DefaultSpec::default()
    });
    let mut config = serde_json::to_value(spec).unwrap();
    // Peers refuse versions that came after them.
    config["ociVersion"] = json!("1.0.2");
    config["root"] = json!({ "path": "/bundle/rootfs" });
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    if !namespaces.iter().any(|namespace| namespace["type"] == "cgroup") {
        namespaces.push(json!({ "type": "cgroup" }));
    }
    config
}

/// Such a configuration, with these limits.
pub(crate) fn limited(name: &str, program: &str, resources: &Value) -> (String, Value) {
    let mut config = script(name, program);
    for (kind, limit) in resources.as_object().unwrap() {
        config["linux"]["resources"][kind] = limit.clone();
    }
    (name.to_owned(), config)
}

pub(crate) fn all() -> Vec<(String, Value)> {
    let mut all = settings();
    all.extend(effects());
    all.push(devices());
    all.push(kill_all());
    all.push(nested("nested"));
    let (name, mut user) = nested("nested-user");
    map_ids(&mut user);
    all.push((name, user));
    let show = "cat /proc/self/cgroup /sys/fs/cgroup/pids.max; echo done; exec sleep 1000";
    let (name, mut user) = limited("user", show, &json!({ "pids": { "limit": 17 } }));
    map_ids(&mut user);
    all.push((name, user));
    all
}

/// What is only written.
fn settings() -> Vec<(String, Value)> {
    let idle = "exec sleep 1000";
    let memory = json!({
        "limit": 32 * MEGABYTE, "swap": 48 * MEGABYTE, "reservation": 16 * MEGABYTE,
    });
    let cpu = json!({
        "quota": 50_000, "period": 100_000, "shares": 512, "cpus": "1", "mems": "0",
    });
    let mut busy = limited("busy-parent", idle, &json!({ "memory": { "limit": MEGABYTE } }));
    busy.1["linux"]["cgroupsPath"] = json!("/busy/child");
    vec![
        limited(
            "limits",
            idle,
            &json!({
                "memory": memory, "cpu": cpu, "pids": { "limit": 20 },
                "unified": { "memory.high": "30003200" },
                "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 * MEGABYTE }],
            }),
        ),
        limited(
            "unlimited",
            idle,
            &json!({
                "memory": { "limit": -1, "swap": -1 }, "cpu": { "quota": -1 }, "pids": { "limit": -1 },
            }),
        ),
        limited("bad-cpuset", idle, &json!({ "cpu": { "cpus": "77" } })),
        limited("bad-unified", idle, &json!({ "unified": { "../../busy/pids.max": "5" } })),
        busy,
        limited("io-weight", idle, &json!({ "blockIO": { "weight": 500 } })),
    ]
}

/// What is done against the limit.
fn effects() -> Vec<(String, Value)> {
    let look = "cat /proc/self/cgroup /sys/fs/cgroup/pids.max; \
                mkdir /sys/fs/cgroup/own 2>/dev/null && echo made || echo refused; \
                echo done; exec sleep 1000";
    let exhaust = "dd if=/dev/zero of=/dev/null bs=64M count=1; echo code $?; exec sleep 1000";
    let spin = "while :; do :; done";
    let bomb = "(b() { b & b; }; b) 2>/dev/null & exec sleep 1000";
    let write = "now() { cut -d' ' -f1 /proc/uptime | tr -d .; }; start=$(now); \
                 dd if=/dev/zero of=/dev/loop0 bs=65536 count=48 oflag=direct; \
                 echo took $(($(now) - start)); exec sleep 1000";
    let mut io = limited(
        "io",
        write,
        &json!({
            "blockIO": {
                "throttleWriteBpsDevice": [{ "major": 7, "minor": 0, "rate": MEGABYTE }],
                "throttleWriteIOPSDevice": [{ "major": 7, "minor": 0, "rate": 500 }],
            },
        }),
    );
    node(&mut io.1, "loop0", "b", 7, 0, Some("rw"));
    let memory = json!({ "memory": { "limit": 8 * MEGABYTE, "swap": 8 * MEGABYTE } });
    vec![
        limited("namespace", look, &json!({ "pids": { "limit": 17 } })),
        limited("oom", exhaust, &memory),
        limited("spin", spin, &json!({ "cpu": { "quota": 10_000, "period": 100_000 } })),
        limited("bomb", bomb, &json!({ "pids": { "limit": 12 } })),
        limited("freeze", spin, &json!({})),
        io,
    ]
}

/// Adds a device's node, and permission to use it as `access` says.
fn node(config: &mut Value, name: &str, kind: &str, major: i64, minor: i64, access: Option<&str>) {
    let linux = &mut config["linux"];
    if linux["devices"].is_null() {
        linux["devices"] = json!([]);
    }
    linux["devices"].as_array_mut().unwrap().push(json!({
        "path": format!("/dev/{name}"), "type": kind, "major": major, "minor": minor,
        "fileMode": 0o666, "uid": 0, "gid": 0,
    }));
    if let Some(access) = access {
        linux["resources"]["devices"].as_array_mut().unwrap().push(json!({
            "allow": true, "type": kind, "major": major, "minor": minor, "access": access,
        }));
    }
}

fn devices() -> (String, Value) {
    // What is permitted may still fail, for want of such a device.
    let program = r#"
        try() {
            case "$( (eval "$2") 2>&1)" in
                *"not permitted"*) echo "$1 refused" ;;
                *) echo "$1 ok" ;;
            esac
        }
        for loop in loop0 loop1 loop2; do
            try $loop-read ": < /dev/$loop"
            try $loop-write ": >> /dev/$loop"
        done
        try ttyS1 ': < /dev/ttyS1'
        try ttyS2 ': < /dev/ttyS2'
        try null ': > /dev/null'
        try zero 'head -c 1 /dev/zero'
        try tty-made 'mknod /tmp/tty-made c 4 67'
        try tty-opened ': < /tmp/tty-made'
        echo done
        exec sleep 1000"#;
    let (name, mut config) = limited("devices", program, &json!({}));
    config["linux"]["resources"]["devices"] = json!([{ "allow": false, "access": "rwm" }]);
    node(&mut config, "loop0", "b", 7, 0, Some("rwm"));
    node(&mut config, "loop1", "b", 7, 1, Some("r"));
    node(&mut config, "loop2", "b", 7, 2, None);
    node(&mut config, "ttyS1", "c", 4, 65, Some("rw"));
    node(&mut config, "ttyS2", "c", 4, 66, None);
    (name, config)
}

/// In the host's namespace of process ids, where nothing dies with the first process.
fn kill_all() -> (String, Value) {
    let program = "trap : TERM; for i in 1 2 3 4; do setsid sleep 1000 & done; \
                   while :; do wait; read line < /proc/self/comm; done";
    let (name, mut config) = limited("kill-all", program, &json!({}));
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    (name, config)
}

/// Makes groups below its own, and leaves its own for one of them.
fn nested(name: &str) -> (String, Value) {
    let program = "cd /sys/fs/cgroup; mkdir inner && echo made; \
                   echo $$ > inner/cgroup.procs && echo moved; \
                   echo '+pids +memory' > cgroup.subtree_control && echo handed-down; \
                   (echo 99 > pids.max) 2>/dev/null || echo kept; echo done; exec sleep 1000";
    let (name, mut config) = limited(name, program, &json!({ "pids": { "limit": 17 } }));
    for mount in config["mounts"].as_array_mut().unwrap() {
        if mount["type"] == "cgroup" {
            mount["options"] = json!(["rw", "nosuid", "noexec", "nodev"]);
        }
    }
    (name, config)
}

fn map_ids(config: &mut Value) {
    config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
    // A namespace of users does not have all the groups that this setting names.
    config["linux"]["sysctl"] = json!({});
}

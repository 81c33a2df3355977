use std::path::PathBuf;

use carrack_shim::{Client, Log, ShimConfig};
use serde_json::json;

use crate::support::RUNTIME;

/// Runs a script under the init in a container whose root is the host's programs; its
/// output and code.
fn run(script: &str, uid: u32) -> Option<(Vec<String>, i32)> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: making containers needs root");
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let bundle = directory.path().join("bundle");
    let root = bundle.join("rootfs");
    for name in ["proc", "dev", "sys", "bin"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    let Some(busybox) = ["/bin/busybox", "/usr/bin/busybox"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.exists())
    else {
        eprintln!("skipped: install busybox-static");
        return None;
    };
    std::fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for name in ["sh", "cat", "readlink", "ps", "tr", "id"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    let id = format!("init-test-{}-{uid}", std::process::id());
    let spec = carrack_oci::runtime::defaults::default_spec(
        &carrack_oci::runtime::defaults::DefaultSpec {
            args: ["sh", "-c", script].map(String::from).to_vec(),
            ..Default::default()
        },
    );
    let mut spec = serde_json::to_value(spec).unwrap();
    spec["linux"]["cgroupsPath"] = json!(format!("/carrack-test-{id}"));
    spec["process"]["user"] = json!({ "uid": uid, "gid": uid });
    std::fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
    let log = directory.path().join("log");
    let config = ShimConfig {
        id,
        bundle,
        runtime_root: directory.path().join("state"),
        terminal: false,
        open_stdin: false,
        log: Log::Lines { path: log.clone(), max_bytes: 1 << 20, max_files: 1 },
        init: true,
    };
    let client = Client::spawn(RUNTIME.as_ref(), &directory.path().join("shim"), &config).unwrap();
    client.start().unwrap();
    let exit = client.wait().unwrap();
    let said = std::fs::read_to_string(log).unwrap();
    client.delete(true).unwrap();
    let words = said.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned());
    Some((words.collect(), exit.code))
}

#[test]
fn in_a_container_process_1_is_the_small_program_and_nothing_of_the_runtime_is_mapped() {
    let script = "cat /proc/1/comm; tr '\\0' ' ' < /proc/1/cmdline; echo; echo $$; \
                  cat /proc/1/maps; readlink /proc/1/exe; exit 3";
    let Some((lines, code)) = run(script, 0) else { return };
    assert_eq!(code, 3, "{lines:?}");
    assert_eq!(lines[0], "carrack-init");
    assert!(lines[1].starts_with("carrack-init /bin/sh sh -c"), "{lines:?}");
    assert_eq!(lines[2], "2", "the program is the first after it");
    assert!(lines.iter().any(|line| line.contains("memfd:carrack-init")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("carrack-runtime")), "{lines:?}");
}

#[test]
fn a_user_without_privilege_runs_under_it_too() {
    let Some((lines, code)) = run("id -u; exit 4", 1000) else { return };
    assert_eq!((lines, code), (vec!["1000".to_owned()], 4));
}

use std::fs;
use std::os::unix::fs::chown;

use serde_json::{Value, json};

use crate::support::Bundle;

fn with_user_namespace(script: &str) -> Option<Bundle> {
    let mut bundle = Bundle::script(script)?;
    let linux = &mut bundle.config["linux"];
    linux["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 200_000, "size": 1000 }]);
    linux["uidMappings"] = map.clone();
    linux["gidMappings"] = map;
    // It names groups that are not mapped here.
    linux.as_object_mut().unwrap().remove("sysctl");
    let mut directories = vec![bundle.root()];
    while let Some(directory) = directories.pop() {
        chown(&directory, Some(200_000), Some(200_000)).unwrap();
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            }
        }
    }
    Some(bundle)
}

#[test]
fn root_in_a_user_namespace_is_somebody_else_outside() {
    let script = "id -u; cat /proc/self/uid_map; touch /made; head -c1 /dev/zero | wc -c; hostname; ls /proc/1/fd > /dev/null && echo own";
    let Some(bundle) = with_user_namespace(script) else { return };
    let said = bundle.run();
    assert_eq!(said.code, 0, "{}", said.err);
    let fields: Vec<&str> = said.out.split_ascii_whitespace().collect();
    assert_eq!(fields, ["0", "0", "200000", "1000", "1", "box", "own"]);
    let made = fs::metadata(bundle.root().join("made")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), 200_000);
}

#[test]
fn a_program_joins_a_container_with_a_user_namespace() {
    let Some(bundle) = with_user_namespace("sleep 60") else { return };
    bundle.started();
    let out = bundle
        .runtime(&["exec", &bundle.id, "/bin/sh", "-c", "id -u; cat /proc/self/uid_map; echo $$"])
        .ok();
    let fields: Vec<&str> = out.split_ascii_whitespace().collect();
    assert_eq!(fields[..4], ["0", "0", "200000", "1000"]);
}

#[test]
fn mappings_and_namespace_need_each_other() {
    let Some(mut bundle) = Bundle::program(&["/bin/true"]) else { return };
    bundle.config["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 1, "size": 1 }]);
    bundle.run().fails_with(&["linux.uidMappings", "needs a user namespace"]);
    bundle.config["linux"]["uidMappings"] = Value::Null;
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    bundle.run().fails_with(&["linux.uidMappings: is empty", "linux.gidMappings: is empty"]);
}

#[test]
fn root_of_a_user_namespace_makes_containers_and_joins_them() {
    let Some(mut bundle) = Bundle::program(&["/bin/sleep", "60"]) else { return };
    // One id is mapped, and nobody may change groups: as `podman unshare` without ranges.
    let linux = bundle.config["linux"].as_object_mut().unwrap();
    for key in ["sysctl", "resources", "cgroupsPath"] {
        linux.remove(key);
    }
    for mount in bundle.mounts() {
        mount["options"].as_array_mut().unwrap().retain(|option| option != "gid=5");
    }
    bundle.mounts().retain(|mount| mount["destination"] != "/sys/fs/cgroup");
    let call = |words: &[&str]| {
        let plain = bundle.command(words);
        let mut text = format!("'{}'", plain.get_program().display());
        for word in plain.get_args() {
            text.push_str(&format!(" '{}'", word.display()));
        }
        text
    };
    let script = format!(
        "set -e; {}; {}; {}; {}",
        call(&["create", &bundle.id]),
        call(&["start", &bundle.id]),
        call(&["exec", &bundle.id, "/bin/sh", "-c", "id -u; cat /proc/1/comm"]),
        call(&["delete", "--force", &bundle.id]),
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["-Urm", "sh", "-c", &script]).current_dir(bundle.path());
    // Through files: the container keeps its streams open.
    let [out, err] = ["out", "err"].map(|name| bundle.path().join(name));
    command.stdin(std::process::Stdio::null());
    command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
    let status = command.status().unwrap();
    let [out, err] = [out, err].map(|path| fs::read_to_string(path).unwrap());
    assert!(status.success(), "{out}{err}");
    assert_eq!(out, "0\nsleep\n", "{err}");
}

#[test]
fn somebody_who_is_not_root_runs_a_container_as_root_inside() {
    const NOBODY: u32 = 65534;
    let Some(bundle) = Bundle::program(&["/bin/true"]) else { return };
    let at = |name: &str| bundle.path().join(name);
    fs::copy(crate::support::RUNTIME, at("runtime")).unwrap();
    fs::create_dir(at("run")).unwrap();
    let mut given = vec![bundle.path().to_owned(), at("run"), bundle.root()];
    while let Some(path) = given.pop() {
        chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        if path != bundle.path() {
            given.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .flatten()
                    .map(|entry| entry.path())
                    .filter(|path| path.is_dir() && !path.is_symlink()),
            );
        }
    }
    let as_nobody = |words: &[&str]| {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(at("runtime")).args(words).current_dir(bundle.path());
        command.env("XDG_RUNTIME_DIR", at("run")).stdin(std::process::Stdio::null());
        command.output().unwrap()
    };
    let said = as_nobody(&["spec", "--rootless"]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let mut config: Value = serde_json::from_slice(&fs::read(at("config.json")).unwrap()).unwrap();
    config["process"]["terminal"] = json!(false);
    config["root"]["readonly"] = json!(false);
    let script = "id -u; cat /proc/self/uid_map; touch /made; hostname";
    config["process"]["args"] = json!(["/bin/sh", "-c", script]);
    fs::write(at("config.json"), config.to_string()).unwrap();
    let said = as_nobody(&["run", "without-root"]);
    let out = String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success(), "{out}{}", String::from_utf8_lossy(&said.stderr));
    let fields: Vec<&str> = out.split_ascii_whitespace().collect();
    assert_eq!(fields[..4], ["0", "0", "65534", "1"], "{out}");
    let made = fs::metadata(bundle.root().join("made")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), NOBODY);
}

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

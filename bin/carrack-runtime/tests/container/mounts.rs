//! Mounts beyond the plain: owners mapped, contents copied up, options changed later.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use serde_json::{Value, json};

use crate::support::Bundle;

fn push(bundle: &mut Bundle, mount: Value) {
    bundle.mounts().push(mount);
}

#[test]
fn owners_of_a_mapped_mount_are_others_inside_and_outside() {
    let script = "stat -c %u:%g /vol/file /vol/sub/file; touch /vol/made; stat -c %u /vol/made";
    let Some(mut bundle) = Bundle::script(script) else { return };
    let source = bundle.path().join("vol");
    fs::create_dir_all(source.join("sub")).unwrap();
    for name in ["file", "sub/file"] {
        fs::write(source.join(name), "").unwrap();
        chown(source.join(name), Some(1000), Some(2000)).unwrap();
    }
    chown(&source, Some(5), Some(5)).unwrap();
    let map = json!([{ "containerID": 1000, "hostID": 7, "size": 1 },
                     { "containerID": 2000, "hostID": 8, "size": 1 },
                     { "containerID": 5, "hostID": 0, "size": 1 }]);
    push(
        &mut bundle,
        json!({ "destination": "/vol", "source": source, "options": ["bind", "idmap"],
                "uidMappings": map, "gidMappings": map }),
    );
    let said = bundle.run();
    if said.err.contains("has to support it") {
        eprintln!("skipped: {}", said.err);
        return;
    }
    assert_eq!(said.ok(), "7:8\n7:8\n0\n");
    assert_eq!(fs::metadata(source.join("made")).unwrap().uid(), 5);
}

#[test]
fn a_mapped_mount_without_ranges_has_those_of_the_container() {
    let Some(mut bundle) = Bundle::script("stat -c %u:%g /vol; touch /vol/made") else { return };
    let map = json!([{ "containerID": 0, "hostID": 200_000, "size": 1000 }]);
    let linux = &mut bundle.config["linux"];
    linux["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    linux["uidMappings"] = map.clone();
    linux["gidMappings"] = map;
    linux.as_object_mut().unwrap().remove("sysctl");
    let source = bundle.path().join("vol");
    fs::create_dir(&source).unwrap();
    for directory in ["", "proc", "sys", "dev", "tmp", "etc", "bin"] {
        chown(bundle.root().join(directory), Some(200_000), Some(200_000)).unwrap();
    }
    push(
        &mut bundle,
        json!({ "destination": "/vol", "source": source, "options": ["rbind", "ridmap"] }),
    );
    let said = bundle.run();
    if said.err.contains("has to support it") {
        eprintln!("skipped: {}", said.err);
        return;
    }
    assert_eq!(said.ok(), "0:0\n");
    assert_eq!(fs::metadata(source.join("made")).unwrap().uid(), 0);
}

#[test]
fn a_tmpfs_with_tmpcopyup_starts_with_what_the_image_has_there() {
    let script = "cat /data/a /data/sub/b; stat -c '%a %u' /data /data/a; readlink /data/link; \
                  echo new > /data/a; cat /ro/a; echo x > /ro/a";
    let Some(mut bundle) = Bundle::script(script) else { return };
    for name in ["data", "ro"] {
        let directory = bundle.root().join(name);
        fs::create_dir_all(directory.join("sub")).unwrap();
        fs::write(directory.join("a"), "A").unwrap();
        fs::write(directory.join("sub/b"), "B").unwrap();
        fs::set_permissions(directory.join("a"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o711)).unwrap();
        chown(directory.join("a"), Some(33), Some(33)).unwrap();
        symlink("/no/where", directory.join("link")).unwrap();
    }
    push(
        &mut bundle,
        json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"] }),
    );
    push(
        &mut bundle,
        json!({ "destination": "/ro", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "tmpcopyup"] }),
    );
    let said = bundle.run();
    assert_eq!(said.out, "AB711 0\n640 33\n/no/where\nA", "{}", said.err);
    assert!(said.err.contains("Read-only"), "{}", said.err);
    assert_eq!(fs::read_to_string(bundle.root().join("data/a")).unwrap(), "A");
}

#[test]
fn a_later_mount_entry_changes_an_earlier_one() {
    let script = "touch /a/x; grep -E ' /(a|b) ' /proc/self/mounts | cut -d' ' -f2,4";
    let Some(mut bundle) = Bundle::script(script) else { return };
    let source = bundle.path().join("source");
    fs::create_dir(&source).unwrap();
    push(&mut bundle, json!({ "destination": "/a", "source": source, "options": ["bind"] }));
    push(
        &mut bundle,
        json!({ "destination": "/b", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"] }),
    );
    let again = json!({ "destination": "/a", "source": source, "options": ["bind", "remount", "ro", "noexec"] });
    push(&mut bundle, again);
    push(
        &mut bundle,
        json!({ "destination": "/b", "type": "tmpfs", "options": ["remount", "size=2m", "nodev"] }),
    );
    let said = bundle.run();
    assert!(said.err.contains("Read-only"), "{}", said.err);
    assert!(said.out.contains("/a ro,noexec"), "{}", said.out);
    assert!(said.out.contains("size=2048k") && said.out.contains("nodev"), "{}", said.out);
}

//! Mount points, and what an image puts in their place.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use carrack_conformance::{Bundle, Canaries};
use serde_json::json;

/// Links from `name` in the image to a place of the host, absolute, relative, and by way
/// of `/proc`.
fn ways_to(place: &Path) -> [String; 4] {
    let place = place.display();
    [
        format!("{place}"),
        format!("../../../../../../../../..{place}"),
        format!("/proc/self/root{place}"),
        format!("/proc/1/root{place}"),
    ]
}

fn put_link(bundle: &Bundle, name: &str, to: &str) {
    let link = bundle.root().join(name);
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    fs::remove_dir(&link).ok(); // There may be a directory.
    symlink(to, link).unwrap();
}

#[test]
fn cve_2019_18837_and_2021_30465_mount_points_through_links_are_made_inside() {
    let canaries = Canaries::new();
    let empty = canaries.path().join("empty");
    for way in ways_to(&empty) {
        let Some(mut bundle) = Bundle::program(&["/bin/true"]) else { return };
        let source = bundle.path().join("source");
        fs::create_dir(&source).unwrap();
        put_link(&bundle, "link", &way);
        put_link(&bundle, "deep/er/link", &way);
        put_link(&bundle, "file", &format!("{way}/made-file"));
        bundle.bind(&source, "/link/directory");
        bundle.bind(&source, "/deep/er/link");
        bundle.bind(&bundle.path().join("config.json"), "/file");
        bundle.bind(&bundle.path().join("config.json"), "/link/a-file");
        let tmpfs = json!({ "destination": "/link/tmpfs", "type": "tmpfs", "source": "tmpfs" });
        bundle.mounts().push(tmpfs);
        bundle.run();
        canaries.assert_untouched();
    }
}

#[test]
fn cve_2023_28642_and_2026_41579_what_an_image_links_in_place_of_proc_sys_and_dev_stays_inside() {
    let canaries = Canaries::new();
    let empty = canaries.path().join("empty");
    for name in ["proc", "sys", "dev", "dev/pts", "dev/shm", "dev/mqueue", "sys/fs/cgroup"] {
        for way in ways_to(&empty) {
            for below in [true, false] {
                let Some(mut bundle) = Bundle::script("true") else { return };
                put_link(&bundle, name, &way);
                if below {
                    // Only what lies below the link is mounted.
                    bundle.mounts().retain(|mount| mount["destination"] != format!("/{name}"));
                }
                bundle.run();
                canaries.assert_untouched();
            }
        }
    }
}

#[test]
fn a_working_directory_is_made_inside() {
    let canaries = Canaries::new();
    for way in ways_to(&canaries.path().join("empty")) {
        let Some(mut bundle) = Bundle::program(&["/bin/true"]) else { return };
        put_link(&bundle, "work", &way);
        bundle.config["process"]["cwd"] = json!("/work/made");
        bundle.run();
        canaries.assert_untouched();
    }
}

#[test]
fn cve_2026_133553_files_copied_up_to_a_tmpfs_stay_inside() {
    let canaries = Canaries::new();
    for way in ways_to(&canaries.path().join("empty")) {
        let Some(mut bundle) = Bundle::program(&["/bin/true"]) else { return };
        put_link(&bundle, "copied", &way);
        bundle.mounts().push(json!({
            "destination": "/copied", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"],
        }));
        bundle.run();
        canaries.assert_untouched();
    }
}

#[test]
fn cve_2024_23652_what_was_made_for_mounts_is_left_to_the_image_and_not_looked_for_on_the_host() {
    let canaries = Canaries::new();
    let place = canaries.path().display();
    // The container puts a link where its mount point was made; removal must not follow it.
    let script = format!("umount /made/here; rm -r /made; ln -s {place} /made; true");
    let Some(mut bundle) = Bundle::script(&script) else { return };
    bundle.give_everything();
    let source = bundle.path().join("source");
    fs::create_dir(&source).unwrap();
    bundle.bind(&source, "/made/here");
    bundle.run();
    canaries.assert_untouched();
}

#[test]
fn the_hosts_files_and_processes_are_out_of_sight() {
    let canaries = Canaries::new();
    let place = canaries.path().display();
    let script = format!(
        "cat {place}/secret /proc/1/root{place}/secret /../../..{place}/secret 2>/dev/null; \
         kill -0 2 2>/dev/null || echo alone"
    );
    let Some(bundle) = Bundle::script(&script) else { return };
    assert_eq!(bundle.run().ok(), "alone\n");
    canaries.assert_untouched();
}

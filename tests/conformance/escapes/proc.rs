//! `/proc`, and what an image or a volume puts in its place.

use std::fs;
use std::os::unix::fs::symlink;

use carrack_conformance::{Bundle, Canaries};
use serde_json::json;

/// Says something only where what must not be seen or written is.
const FORBIDDEN: &str = "for f in keys timer_list sched_debug; do head -c 9 /proc/$f; done 2>/dev/null; \
                         for f in sysrq-trigger bus irq fs sys/kernel/domainname; do \
                         test -w /proc/$f && (touch /proc/$f 2>/dev/null; mount | grep -q \" /proc/\") || true; \
                         done; (echo box > /proc/sys/kernel/domainname) 2>/dev/null && echo WRITABLE; true";

#[test]
fn cve_2023_27561_and_2019_19921_a_proc_that_is_a_link_leaves_nothing_unmasked() {
    for (link, to) in [("proc", "/volume/level1"), ("proc", "evil"), ("proc", "../proc2")] {
        let Some(mut bundle) = Bundle::script(FORBIDDEN) else { return };
        let volume = bundle.path().join("volume");
        fs::create_dir_all(volume.join("level1")).unwrap();
        for name in ["evil", "proc2"] {
            fs::create_dir(bundle.root().join(name)).unwrap();
        }
        fs::remove_dir(bundle.root().join(link)).unwrap();
        symlink(to, bundle.root().join(link)).unwrap();
        let mount = json!({
            "destination": "/volume", "type": "bind", "source": volume, "options": ["rbind"],
        });
        bundle.mounts().insert(0, mount);
        let said = bundle.run();
        assert!(said.code != 0 || said.out.is_empty(), "{to}: {said:?}");
    }
}

#[test]
fn cve_2019_16884_and_2025_52881_settings_are_not_written_to_a_volume_in_place_of_proc() {
    let canaries = Canaries::new();
    let Some(mut bundle) = Bundle::script("true") else { return };
    let volume = bundle.path().join("volume");
    fs::create_dir_all(volume.join("sys/kernel")).unwrap();
    fs::create_dir_all(volume.join("sys/net/ipv4")).unwrap();
    fs::create_dir_all(volume.join("self/attr")).unwrap();
    for name in ["sys/net/ipv4/ip_forward", "self/attr/exec", "self/oom_score_adj"] {
        fs::write(volume.join(name), "fake").unwrap();
    }
    symlink(canaries.path().join("secret"), volume.join("sys/kernel/domainname")).unwrap();
    bundle.without_mounts_at("/proc");
    let mount = json!({
        "destination": "/proc", "type": "bind", "source": volume, "options": ["rbind"],
    });
    bundle.mounts().insert(0, mount);
    bundle.config["linux"]["sysctl"] =
        json!({ "net.ipv4.ip_forward": "1", "kernel.domainname": "box" });
    bundle.run();
    canaries.assert_untouched();
    for name in ["sys/net/ipv4/ip_forward", "self/attr/exec", "self/oom_score_adj"] {
        let content = fs::read_to_string(volume.join(name)).unwrap();
        assert_eq!(content, "fake", "{name} of the volume was written to");
    }
}

#[test]
fn cve_2025_52881_settings_reach_the_kernel_whatever_is_mounted_over_them() {
    let script = "umount /proc/sys 2>/dev/null; sleep 0; true";
    for (kind, over) in
        [("tmpfs", "/proc/sys"), ("tmpfs", "/proc/sys/net"), ("bind", "/proc/sys/net")]
    {
        let Some(mut bundle) = Bundle::script(script) else { return };
        let volume = bundle.path().join("volume");
        fs::create_dir_all(volume.join("ipv4")).unwrap();
        fs::write(volume.join("ipv4/ip_forward"), "fake").unwrap();
        let mount = if kind == "bind" {
            json!({ "destination": over, "type": "bind", "source": volume, "options": ["rbind"] })
        } else {
            json!({ "destination": over, "type": "tmpfs", "source": "tmpfs" })
        };
        bundle.mounts().push(mount);
        bundle.config["linux"]["readonlyPaths"] = json!([]);
        bundle.config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
        bundle.config["process"]["args"] = json!(["/bin/sleep", "60"]);
        if bundle.runtime(&["create", &bundle.id]).code != 0 {
            continue; // Refused.
        }
        let pid = bundle.pid().to_string();
        let asked = ["-n", "-t", &pid, "cat", "/proc/sys/net/ipv4/ip_forward"];
        let said = std::process::Command::new("nsenter").args(asked).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout), "1\n", "{kind} over {over}");
        let fake = fs::read_to_string(volume.join("ipv4/ip_forward")).unwrap();
        assert_eq!(fake, "fake", "the volume was written to");
    }
}

#[test]
fn cve_2019_19921_a_volume_is_not_put_over_files_of_proc() {
    let Some(mut bundle) = Bundle::program(&["/bin/true"]) else { return };
    let source = bundle.path().join("source");
    fs::create_dir(&source).unwrap();
    symlink("/proc/self/attr", bundle.root().join("data")).unwrap();
    for destination in ["/proc/self/attr", "/proc/sys", "/proc/1", "/data"] {
        bundle.bind(&source, destination);
        bundle.rename();
        bundle.run().fails();
        bundle.mounts().pop();
    }
}

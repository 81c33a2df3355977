//! Devices and terminals, and what an image puts in their place.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use carrack_conformance::{Bundle, Canaries};
use serde_json::json;

/// A bundle whose `/dev` is the image's own directory.
fn with_the_images_dev(script: &str) -> Option<Bundle> {
    let mut bundle = Bundle::script(script)?;
    bundle.without_mounts_at("/dev");
    Some(bundle)
}

#[test]
fn cve_2025_31133_a_masked_file_is_not_hidden_behind_the_images_null_device() {
    // The link leads to a file that says something, and does no harm if it is opened.
    for led_to in ["/proc/version", "/etc/told"] {
        let Some(mut bundle) = with_the_images_dev("cat /masked; true") else { return };
        fs::write(bundle.root().join("masked"), "secret").unwrap();
        fs::write(bundle.root().join("etc/told"), "told").unwrap();
        symlink(led_to, bundle.root().join("dev/null")).unwrap();
        bundle.config["linux"]["maskedPaths"] = json!(["/masked"]);
        let said = bundle.run();
        assert!(said.code != 0 || said.out.is_empty(), "through {led_to}: {said:?}");
    }
}

#[test]
fn cve_2025_31133_a_masked_file_is_not_hidden_behind_a_volume_in_place_of_the_null_device() {
    let Some(mut bundle) = Bundle::script("cat /masked; true") else { return };
    fs::write(bundle.root().join("masked"), "secret").unwrap();
    let fake = bundle.path().join("fake");
    fs::write(&fake, "told").unwrap();
    bundle.bind(&fake, "/dev/null");
    bundle.config["linux"]["maskedPaths"] = json!(["/masked"]);
    let said = bundle.run();
    assert!(said.code != 0 || said.out.is_empty(), "{said:?}");
}

#[test]
fn cve_2025_31133_and_2026_88265_devices_an_image_links_to_the_host_touch_nothing_there() {
    let canaries = Canaries::new();
    let place = canaries.path().display().to_string();
    for name in ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "fd", "stdin", "core"]
    {
        for target in ["secret", "empty/made"] {
            let Some(mut bundle) = with_the_images_dev("true") else { return };
            symlink(format!("{place}/{target}"), bundle.root().join("dev").join(name)).unwrap();
            bundle.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
            bundle.run();
            canaries.assert_untouched();
        }
    }
}

#[test]
fn cve_2026_88265_a_host_file_bound_into_the_container_is_no_stream_of_its_program() {
    let Some(mut bundle) = with_the_images_dev("ls -l /proc/self/fd; true") else { return };
    let bound = bundle.path().join("bound");
    fs::write(&bound, "the host's").unwrap();
    bundle.bind(&bound, "/bound");
    symlink("/bound", bundle.root().join("dev/null")).unwrap();
    bundle.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let said = bundle.run();
    assert!(!said.out.contains("bound"), "{said:?}");
    let owner = fs::metadata(&bound).unwrap().uid();
    assert_eq!((owner, fs::read_to_string(bound).unwrap().as_str()), (0, "the host's"));
}

#[test]
fn the_hosts_null_device_is_not_given_to_a_containers_user() {
    let owner = || {
        let stat = fs::metadata("/dev/null").unwrap();
        (stat.uid(), stat.gid(), stat.mode())
    };
    let before = owner();
    for uid in [0, 1000] {
        let Some(mut bundle) = Bundle::program(&["/bin/true"]) else { return };
        bundle.config["process"]["user"] = json!({ "uid": uid, "gid": uid });
        let null = || fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
        let mut command = bundle.command(&["run", &bundle.id]);
        command.stdin(null()).stdout(null()).stderr(null()).status().unwrap();
    }
    assert_eq!(owner(), before, "owner, group and mode");
}

#[test]
fn cve_2026_88264_a_console_an_image_links_to_the_host_is_not_made_there() {
    let canaries = Canaries::new();
    let place = canaries.path().display();
    for way in [
        format!("{place}/empty/made"),
        format!("../../../../../../../../..{place}/empty/made"),
        format!("{place}/secret"),
    ] {
        let Some(mut bundle) = Bundle::program(&["/bin/true"]) else { return };
        bundle.mounts().retain(|mount| mount["destination"] != "/dev");
        symlink(&way, bundle.root().join("dev/console")).unwrap();
        bundle.config["process"]["terminal"] = json!(true);
        bundle.create_with_terminal().ok(); // It may be refused.
        bundle.remove();
        canaries.assert_untouched();
    }
}

#[test]
fn cve_2025_52565_a_console_does_not_cover_a_file_of_proc() {
    let Some(mut bundle) = Bundle::program(&["/bin/sleep", "60"]) else { return };
    bundle.mounts().retain(|mount| mount["destination"] != "/dev");
    symlink("/proc/version", bundle.root().join("dev/console")).unwrap();
    bundle.config["process"]["terminal"] = json!(true);
    let Ok(_terminal) = bundle.create_with_terminal() else { return };
    bundle.runtime(&["start", &bundle.id]).ok();
    let said =
        bundle.runtime(&["exec", &bundle.id, "/bin/timeout", "5", "/bin/cat", "/proc/version"]);
    assert!(said.out.starts_with("Linux version"), "the console lies over it: {said:?}");
}

#[test]
fn cve_2025_52565_a_terminal_comes_from_the_kernel_and_not_from_a_directory_of_the_image() {
    let canaries = Canaries::new();
    let place = canaries.path().display();
    for pts in ["/tmp/pts".to_owned(), format!("{place}")] {
        let Some(mut bundle) = Bundle::program(&["/bin/sleep", "60"]) else { return };
        bundle.without_mounts_at("/dev");
        let fake = bundle.root().join("tmp/pts");
        fs::create_dir(&fake).unwrap();
        symlink("/proc/version", fake.join("ptmx")).unwrap();
        for number in 0..4 {
            symlink("/proc/version", fake.join(number.to_string())).unwrap();
        }
        symlink(pts, bundle.root().join("dev/pts")).unwrap();
        bundle.config["process"]["terminal"] = json!(true);
        if let Ok(terminal) = bundle.create_with_terminal() {
            let kind = rustix::fs::fstatfs(&terminal).unwrap().f_type;
            assert_eq!(kind, 0x1cd1, "the terminal is not the kernel's");
            bundle.runtime(&["start", &bundle.id]);
            let console = "head -c 13 /dev/console 2>/dev/null; true";
            let exec = ["exec", &bundle.id, "/bin/timeout", "2", "/bin/sh", "-c", console];
            let said = bundle.runtime(&exec);
            assert!(!said.out.contains("Linux version"), "{said:?}");
        }
        bundle.remove();
        canaries.assert_untouched();
    }
}

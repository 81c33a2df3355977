//! Ways out that other runtimes once left open, each still closed.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::support::{Bundle, RUNTIME};

#[test]
fn the_runtimes_own_program_cannot_be_overwritten() {
    // CVE-2019-5736: the entrypoint is the runtime itself; a second process of the
    // container waits for it and writes to its program.
    let before = fs::read(RUNTIME).unwrap();
    let script = "exec 9</proc/1/exe; (echo broken > /proc/self/fd/9) 2>&1; (echo broken > /proc/1/exe) 2>&1; true";
    let Some(mut bundle) = Bundle::program(&["/proc/self/exe", "init-would-be-here"]) else {
        return;
    };
    bundle.config["linux"].as_object_mut().unwrap().remove("seccomp");
    let all: Vec<String> = carrack_linux::capability::all_names();
    for set in ["bounding", "effective", "permitted"] {
        bundle.config["process"]["capabilities"][set] = json!(all);
    }
    // Held between create and start the first process runs our program.
    bundle.runtime(&["create", &bundle.id]).ok();
    let said = bundle.runtime(&["exec", &bundle.id, "/bin/sh", "-c", script]);
    assert!(!said.out.contains("broken"), "{said:?}");
    // And while joining, an exec's process does.
    let script = "for i in 1 2 3 4 5 6 7 8 9; do for p in /proc/[0-9]*; do (echo broken > $p/exe) 2>/dev/null; done; done";
    bundle.config["process"]["args"] = json!(["/bin/sh", "-c", script]);
    bundle.runtime(&["start", &bundle.id]);
    bundle.runtime(&["exec", &bundle.id, "/bin/true"]);
    assert!(fs::read(RUNTIME).unwrap() == before, "the runtime's program was changed");
}

#[test]
fn a_script_whose_interpreter_is_the_runtime_cannot_overwrite_it() {
    let before = fs::read(RUNTIME).unwrap();
    let Some(mut bundle) = Bundle::program(&["/bin/evil"]) else { return };
    fs::write(bundle.root().join("bin/evil"), "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(
        bundle.root().join("bin/evil"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    bundle.run();
    // With every privilege, the file behind our own process is on a file system that takes
    // no writes, and cannot be made to.
    bundle.config["process"]["args"] = json!(["/bin/sleep", "60"]);
    bundle.runtime(&["create", &bundle.id]).ok();
    let pid = bundle.state()["pid"].as_i64().unwrap();
    let opened = fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/exe"));
    let refused =
        opened.and_then(|mut file| std::io::Write::write_all(&mut file, b"x")).unwrap_err();
    assert!(
        matches!(refused.raw_os_error(), Some(libc::EROFS | libc::EPERM | libc::ETXTBSY)),
        "{refused}"
    );
    assert!(fs::read(RUNTIME).unwrap() == before, "the runtime's program was changed");
}

#[test]
fn a_working_directory_through_a_leaked_descriptor_is_refused() {
    // CVE-2024-21626.
    let Some(mut bundle) = Bundle::script("pwd") else { return };
    for number in [3, 5, 7, 8, 9, 10] {
        bundle.config["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
        bundle.run().fails_with(&["/proc/self/fd"]);
    }
    bundle.config["process"]["cwd"] = json!("/");
    bundle.config["process"]["args"] = json!(["/bin/sleep", "60"]);
    bundle.started();
    bundle
        .runtime(&["exec", "--cwd", "/proc/self/fd/7", &bundle.id, "/bin/ls"])
        .fails_with(&["/proc/self/fd/7"]);
    // Through a link of the image, too.
    symlink("/proc/self/fd/7/../../..", bundle.root().join("way-out")).unwrap();
    bundle.runtime(&["exec", "--cwd", "/way-out", &bundle.id, "/bin/ls"]).fails_with(&["/way-out"]);
}

#[test]
fn a_masked_path_does_not_use_the_containers_own_null_device() {
    // CVE-2025-31133: the image brings a /dev/null that is a link to something precious.
    let script = "cat /proc/timer_list /masked; echo x > /masked; true";
    let Some(mut bundle) = Bundle::script(script) else { return };
    bundle.mounts().retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    let victim = bundle.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    fs::write(bundle.root().join("masked"), "secret").unwrap();
    symlink("/proc/sysrq-trigger", bundle.root().join("dev/null")).unwrap();
    bundle.config["linux"]["maskedPaths"] = json!(["/proc/timer_list", "/masked"]);
    let said = bundle.run();
    assert_eq!((said.code, said.out.as_str()), (0, ""), "{}", said.err);
    assert_eq!(fs::read_to_string(bundle.root().join("masked")).unwrap(), "secret");
    // What pretended to be the device is the device now.
    let kind = fs::symlink_metadata(bundle.root().join("dev/null")).unwrap();
    assert!(std::os::unix::fs::FileTypeExt::is_char_device(&kind.file_type()));
}

#[test]
fn mount_points_lead_nowhere_outside_the_root() {
    let Some(mut bundle) = Bundle::script("ls /link/volume /up") else { return };
    let outside = bundle.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, bundle.root().join("link")).unwrap();
    symlink("../../../../../../../../srv", bundle.root().join("up")).unwrap();
    let source = bundle.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("inside"), "").unwrap();
    for destination in ["/link/volume", "/up"] {
        let mount = json!({ "destination": destination, "type": "bind", "source": source, "options": ["rbind"] });
        bundle.mounts().push(mount);
    }
    assert_eq!(bundle.run().ok().matches("inside").count(), 2);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "a mount point was made on the host");
}

#[test]
fn a_volume_cannot_be_put_over_proc() {
    let Some(mut bundle) = Bundle::program(&["/bin/true"]) else { return };
    let source = bundle.path().join("source");
    fs::create_dir(&source).unwrap();
    symlink("/proc/self", bundle.root().join("data")).unwrap();
    for destination in ["/proc/self/attr", "/proc/sys"] {
        let mount = json!({ "destination": destination, "type": "bind", "source": source, "options": ["rbind"] });
        bundle.mounts().push(mount);
        bundle.run().fails_with(&[destination]);
        bundle.mounts().pop();
    }
}

#[test]
fn a_mount_point_exchanged_meanwhile_never_reaches_the_host() {
    // CVE-2021-30465: somebody swaps a directory for a link out while containers start.
    let Some(mut bundle) = Bundle::program(&["/bin/true"]) else { return };
    let outside = bundle.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let root = bundle.root();
    fs::create_dir(root.join("swap")).unwrap();
    symlink(&outside, root.join("other")).unwrap();
    let source = bundle.path().join("source");
    fs::create_dir(&source).unwrap();
    bundle.mounts().push(json!({
        "destination": "/swap/deep/point", "type": "bind", "source": source, "options": ["rbind"],
    }));
    let stop = Arc::new(AtomicBool::new(false));
    let swapping = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            let directory =
                rustix::fs::open(&root, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty())
                    .unwrap();
            while !stop.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(&directory, "swap", &directory, "other", flags).unwrap();
            }
        })
    };
    for _ in 0..50 {
        // It may fail, where the link points to nothing inside; it may not get out.
        bundle.run();
    }
    stop.store(true, Ordering::Relaxed);
    swapping.join().unwrap();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "a mount point was made on the host");
}

#[test]
fn the_hosts_files_and_processes_are_out_of_sight() {
    let script = "cat /proc/1/root/secret 2>/dev/null; ls /proc/1/root/; ls -d /../../../*; kill -0 2 2>/dev/null || echo alone";
    let Some(bundle) = Bundle::script(script) else { return };
    fs::write(bundle.path().join("secret"), "host secret").unwrap();
    let out = bundle.run().ok();
    assert!(!out.contains("secret"), "{out}");
    assert!(out.contains("alone"), "{out}");
}

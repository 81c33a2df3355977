//! Images that cannot run, and what a person is told: each names the cause.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use serde_json::json;

use crate::support::{Bundle, Said};

/// A bundle whose program is `/app`, or what `args` says, after `spoil` was at its root.
fn broken(args: &[&str], spoil: impl FnOnce(&Path)) -> Option<Bundle> {
    let bundle = Bundle::program(args)?;
    fs::create_dir_all(bundle.root().join("opt")).unwrap();
    spoil(&bundle.root());
    Some(bundle)
}

#[track_caller]
fn check(code: i32, words: &[&str], spoil: impl FnOnce(&Path)) {
    let Some(bundle) = broken(&["/app"], spoil) else { return };
    is(&bundle.run(), code, words);
}

#[track_caller]
fn is(said: &Said, code: i32, words: &[&str]) {
    assert_eq!(said.code, code, "{}{}", said.out, said.err);
    for word in words {
        assert!(said.err.contains(word), "{word:?} is not in: {}", said.err);
    }
}

/// Writes a program with these bytes.
fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

fn app(bytes: impl AsRef<[u8]>) -> impl FnOnce(&Path) {
    move |root| write(&root.join("app"), bytes)
}

/// The bytes of a static program.
fn program() -> Vec<u8> {
    let path =
        ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    path.map(|path| fs::read(path).unwrap()).unwrap_or_default()
}

fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = program();
    if !bytes.is_empty() {
        change(&mut bytes);
    }
    bytes
}

#[test]
fn a_missing_program_is_named_with_how_far_its_path_leads() {
    check(127, &["/app", "there is no /app in the image"], |_| {});
    check(127, &["/app is a link to /bin/gone", "no /bin/gone"], |root| {
        symlink("/bin/gone", root.join("app")).unwrap();
    });
    check(126, &["the link /app leads back to itself"], |root| {
        symlink("/other", root.join("app")).unwrap();
        symlink("/app", root.join("other")).unwrap();
    });
    let Some(bundle) = broken(&["/opt/no/such/app"], |_| {}) else { return };
    is(&bundle.run(), 127, &["there is no /opt/no in the image"]);
    let Some(bundle) = broken(&["no-such-app"], |_| {}) else { return };
    is(&bundle.run(), 127, &["no-such-app", "executable file not found in $PATH", "/usr/bin"]);
}

#[test]
fn what_is_no_program_says_what_it_is() {
    check(126, &["/app is a directory"], |root| fs::create_dir(root.join("app")).unwrap());
    check(126, &["the file /app is empty"], app(""));
    check(126, &["text that does not begin with #!"], app("echo hello\n"));
    check(126, &["a program for Windows"], app(b"MZ\x90\0\x03\0\0\0"));
    check(126, &["a program for macOS"], app([0xcf, 0xfa, 0xed, 0xfe, 7, 0, 0, 1]));
    check(126, &["neither a program nor a script"], app([1, 2, 0, 3]));
}

#[test]
fn a_program_without_permission_says_which_is_missing() {
    check(126, &["/app has no execute bit (mode 0644)", "chmod +x"], |root| {
        fs::write(root.join("app"), "#!/bin/sh\n").unwrap();
    });
    let user = |bundle: &mut Bundle| {
        bundle.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        bundle.config["process"]["capabilities"] = json!({});
    };
    let Some(mut bundle) = broken(&["/app"], app("#!/bin/sh\n")) else { return };
    fs::set_permissions(bundle.root().join("app"), Permissions::from_mode(0o700)).unwrap();
    user(&mut bundle);
    is(&bundle.run(), 126, &["user 1000 may not execute /app (mode 0700, user 0, group 0)"]);

    let Some(mut bundle) = broken(&["/opt/app"], |root| {
        write(&root.join("opt/app"), "#!/bin/sh\n");
        fs::set_permissions(root.join("opt"), Permissions::from_mode(0o700)).unwrap();
    }) else {
        return;
    };
    user(&mut bundle);
    is(&bundle.run(), 126, &["the directory /opt cannot be searched by this user (mode 0700"]);
}

#[test]
fn a_mount_that_forbids_programs_is_named() {
    let Some(mut bundle) = broken(&["/opt/app"], |_| {}) else { return };
    let outside = bundle.path().join("outside");
    fs::create_dir(&outside).unwrap();
    write(&outside.join("app"), program());
    bundle.mounts().push(json!({
        "destination": "/opt", "type": "bind", "source": outside, "options": ["bind", "noexec"],
    }));
    is(&bundle.run(), 126, &["/opt/app is on a mount with the option noexec"]);
}

#[test]
fn a_script_names_what_is_wrong_with_its_interpreter() {
    check(126, &["/app, #!/bin/sh, ends in a carriage return"], app("#!/bin/sh\r\necho\r\n"));
    check(126, &["interpreter /bin/zsh", "there is no /bin/zsh"], app("#!/bin/zsh\n"));
    check(126, &["names no interpreter"], app("#!\necho\n"));
    check(126, &["interpreter /inner", "interpreter /usr/bin/perl", "there is no"], |root| {
        write(&root.join("app"), "#!/inner\n");
        write(&root.join("inner"), "#!/usr/bin/perl\n");
    });
    check(126, &["interpreter /plain", "no execute bit"], |root| {
        write(&root.join("app"), "#!/plain\n");
        fs::write(root.join("plain"), "x").unwrap();
    });
    check(126, &["deeper than the kernel's 5 levels"], |root| {
        write(&root.join("app"), "#!/app\n");
    });
}

#[test]
fn a_script_whose_program_env_does_not_find_names_it() {
    check(127, &["line 1 of /app asks env for python3", "in no directory of PATH"], |root| {
        write(&root.join("app"), "#!/bin/env python3\n");
    });
    check(127, &["hands env the one word \"sh -e\"", "env -S sh -e"], |root| {
        write(&root.join("app"), "#!/bin/env sh -e\n");
    });
}

#[test]
fn a_program_for_another_machine_says_for_which() {
    let machine = |number: u8| changed(|bytes| bytes[18] = number);
    check(126, &["built for 64-bit ARM (aarch64)", "this machine is"], app(machine(183)));
    check(126, &["built for 32-bit ARM"], app(machine(40)));
    check(126, &["built for RISC-V"], app(machine(243)));
    check(126, &["64-bit PowerPC (ppc64le)"], app(machine(21)));
    // The processor alone is read where the byte order is another.
    let big = changed(|bytes| {
        *bytes = vec![0; 64 + 56];
        bytes[..20].copy_from_slice(b"\x7fELF\x02\x02\x01\0\0\0\0\0\0\0\0\0\0\x02\0\x16");
        bytes[39] = 64;
        bytes[55] = 56;
        bytes[57] = 1;
    });
    check(126, &["built for IBM Z (s390x) (big-endian)"], app(big));
}

#[test]
fn a_program_without_its_loader_names_the_loader_and_who_makes_it() {
    let narrow = {
        // A 32-bit program that asks for a loader and for nothing else.
        let loader = b"/lib/ld-linux.so.2\0";
        let mut bytes = vec![0; 84];
        bytes[..20].copy_from_slice(b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0");
        bytes[20] = 1;
        bytes[28] = 52;
        bytes[40] = 52;
        bytes[42] = 32;
        bytes[44] = 1;
        bytes[52] = 3;
        bytes[56] = 84;
        bytes[68] = u8::try_from(loader.len()).unwrap();
        bytes[72] = bytes[68];
        bytes[76] = 4;
        bytes.extend(loader);
        bytes
    };
    check(126, &["/lib/ld-linux.so.2, is missing", "32-bit C library"], app(narrow));
    check(
        126,
        &["the loader of /app, /lib64/ld-linux-x86-64.so.2, is missing", "built for glibc"],
        |root| {
            fs::copy("/usr/bin/env", root.join("app")).unwrap();
        },
    );
}

#[test]
fn a_program_cut_off_says_so() {
    check(126, &["/app is cut off: it ends before its headers do"], app(&program()[..100]));
    let half = changed(|bytes| bytes.truncate(bytes.len() / 2));
    let Some(bundle) = broken(&["/app"], app(half)) else { return };
    let said = bundle.run();
    assert!(said.err.contains("/app is cut off: it has"), "{} {}", said.code, said.err);
}

#[test]
fn a_program_open_for_writing_or_with_too_long_arguments_says_so() {
    let Some(bundle) = broken(&["/app"], app(program())) else { return };
    let writer = OpenOptions::new().append(true).open(bundle.root().join("app")).unwrap();
    is(&bundle.run(), 126, &["a process has it open for writing"]);
    drop(writer);
    let long = "x".repeat(200_000);
    let Some(bundle) = broken(&["/bin/echo", &long], |_| {}) else { return };
    is(&bundle.run(), 126, &["one of them has 200000 bytes", "131071 at most"]);
}

#[test]
fn a_working_directory_that_is_not_there_or_no_directory_is_named() {
    let Some(mut bundle) = broken(&["/bin/true"], app("x")) else { return };
    bundle.config["process"]["cwd"] = json!("/app");
    bundle.run().fails_with(&["working directory /app", "not a directory"]);
}

/// The host's own loader and a program of its that needs a library.
fn dynamic(root: &Path) {
    fs::copy("/usr/bin/env", root.join("app")).unwrap();
    fs::create_dir_all(root.join("lib64")).unwrap();
    fs::copy("/lib64/ld-linux-x86-64.so.2", root.join("lib64/ld-linux-x86-64.so.2")).unwrap();
    write(&root.join("quits"), "#!/bin/sh\nexit 127\n");
}

#[test]
fn a_missing_library_is_named_once_the_loader_has_given_up() {
    if !cfg!(target_arch = "x86_64") {
        eprintln!("skipped: the loader's path is that of x86_64");
        return;
    }
    check(127, &["code 127: /app needs the library libc.so.6", "LD_LIBRARY_PATH"], dynamic);
    let libc = "/lib/x86_64-linux-gnu/libc.so.6";
    if !Path::new(libc).exists() {
        eprintln!("skipped the rest: libc is elsewhere here");
        return;
    }
    let libraries = |root: &Path| {
        dynamic(root);
        fs::copy(libc, root.join("opt/libc.so.6")).unwrap();
    };
    check(127, &["needs the library libc.so.6"], libraries);
    // Where it is found by name nothing is wrong, and nothing is said.
    let Some(mut bundle) = broken(&["/app", "/quits"], libraries) else { return };
    bundle.config["process"]["env"] = json!(["LD_LIBRARY_PATH=/opt"]);
    is(&bundle.run(), 127, &[]);
    assert_eq!(bundle.run().err, "");
    // A mount that held it is gone when we look.
    let Some(mut bundle) = broken(&["/app", "/quits"], dynamic) else { return };
    let outside = bundle.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::copy(libc, outside.join("libc.so.6")).unwrap();
    bundle.mounts().push(json!({
        "destination": "/lib/x86_64-linux-gnu", "type": "bind", "source": outside, "options": ["bind"],
    }));
    let said = bundle.run();
    assert_eq!((said.code, said.err.as_str()), (127, ""));
}

#[test]
fn a_set_user_id_program_runs_without_new_privileges() {
    let Some(mut bundle) = broken(&["/app", "true"], app(program())) else { return };
    fs::rename(bundle.root().join("app"), bundle.root().join("busybox")).unwrap();
    fs::set_permissions(bundle.root().join("busybox"), Permissions::from_mode(0o4755)).unwrap();
    bundle.config["process"]["args"] = json!(["/busybox", "true"]);
    bundle.config["process"]["noNewPrivileges"] = json!(true);
    bundle.run().ok();
}

#[test]
fn exec_in_a_running_container_names_the_cause_too() {
    let Some(bundle) = broken(&["/bin/sleep", "60"], app("#!/bin/zsh\n")) else { return };
    bundle.started();
    let said = bundle.runtime(&["exec", &bundle.id, "/app"]);
    is(&said, 255, &["interpreter /bin/zsh", "there is no /bin/zsh"]);
}

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::support::Bundle;

#[test]
fn the_program_sees_its_own_namespaces() {
    let script = "echo $$; hostname; ps | wc -l; ls /sys/class/net; cat /proc/self/cgroup; ls /proc/self/ns | wc -l";
    let Some(bundle) = Bundle::script(script) else { return };
    let out = bundle.run().ok();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..2], ["1", "box"], "{out}");
    assert!(lines.contains(&"lo"), "{out}");
    assert!(!out.contains("carrack-test"), "the cgroup's path shows: {out}");
}

#[test]
fn the_program_has_dockers_capabilities_and_a_seccomp_filter() {
    let Some(bundle) = Bundle::script("grep -E '^(Cap|Seccomp:)' /proc/self/status") else {
        return;
    };
    let out = bundle.run().ok();
    for line in [
        "CapBnd:\t00000000a80425fb",
        "CapEff:\t00000000a80425fb",
        "CapAmb:\t0000000000000000",
        "Seccomp:\t2",
    ] {
        assert!(out.contains(line), "{line:?} is not in {out}");
    }
    let Some(mut bundle) = Bundle::script("grep -E '^(Cap|NoNewPrivs)' /proc/self/status") else {
        return;
    };
    bundle.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    bundle.config["process"]["noNewPrivileges"] = json!(true);
    let ambient = json!(["CAP_NET_BIND_SERVICE"]);
    bundle.config["process"]["capabilities"] = json!({
        "bounding": ambient, "effective": ambient, "permitted": ambient, "inheritable": ambient, "ambient": ambient,
    });
    let out = bundle.run().ok();
    for line in ["CapEff:\t0000000000000400", "CapAmb:\t0000000000000400", "NoNewPrivs:\t1"] {
        assert!(out.contains(line), "{line:?} is not in {out}");
    }
}

#[test]
fn a_call_the_profile_forbids_fails() {
    let Some(mut bundle) = Bundle::script("mkdir /tmp/x; echo $?; touch /tmp/y; echo $?") else {
        return;
    };
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 }],
    });
    let said = bundle.run();
    assert_eq!(said.out, "1\n0\n");
    assert!(said.err.contains("not supported"), "{}", said.err);
}

#[test]
fn masked_paths_are_empty_and_read_only_paths_refuse_writes() {
    let script = "cat /secret; ls /hidden; echo x > /secret; cat /secret; echo y > /fixed/f; touch /fixed/g; cat /fixed/f";
    let Some(mut bundle) = Bundle::script(script) else { return };
    let root = bundle.root();
    for directory in ["hidden", "fixed"] {
        fs::create_dir(root.join(directory)).unwrap();
        fs::write(root.join(directory).join("f"), "content\n").unwrap();
    }
    fs::write(root.join("secret"), "password\n").unwrap();
    bundle.config["linux"]["maskedPaths"] = json!(["/secret", "/hidden", "/not/there"]);
    bundle.config["linux"]["readonlyPaths"] = json!(["/fixed", "/nor/this"]);
    let said = bundle.run();
    assert_eq!(said.out, "content\n", "{}", said.err);
    assert_eq!(fs::read_to_string(root.join("secret")).unwrap(), "password\n");
}

#[test]
fn a_read_only_root_refuses_writes_and_its_mounts_do_not() {
    let Some(mut bundle) = Bundle::script("touch /x || echo refused; touch /tmp/x && echo written")
    else {
        return;
    };
    bundle.config["root"]["readonly"] = json!(true);
    bundle.mounts().push(json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=64k"] }));
    assert_eq!(bundle.run().ok(), "refused\nwritten\n");
}

#[test]
fn bind_mounts_have_their_options_recursively_where_asked() {
    let script = "touch /plain/x && echo plain; touch /ro/x || echo ro; touch /rro/inner/x || echo rro; cat /file";
    let Some(mut bundle) = Bundle::script(script) else { return };
    let source = bundle.path().join("source");
    fs::create_dir_all(source.join("inner")).unwrap();
    fs::write(bundle.path().join("one"), "a file\n").unwrap();
    let source = source.to_str().unwrap().to_owned();
    let file = bundle.path().join("one").to_str().unwrap().to_owned();
    let mount = |to: &str, from: &str, options: &[&str]| json!({ "destination": to, "type": "bind", "source": from, "options": options });
    let mounts = bundle.mounts();
    mounts.push(mount("/plain", &source, &["rbind", "rprivate"]));
    mounts.push(mount("/ro", &source, &["bind", "ro", "nosuid"]));
    mounts.push(mount("/rro", &source, &["rbind", "rro"]));
    mounts.push(mount("/file", &file, &["bind", "ro"]));
    assert_eq!(bundle.run().ok(), "plain\nro\nrro\na file\n");
}

#[test]
fn devices_are_there_and_work_and_others_are_refused() {
    let script =
        "for d in null zero full random urandom tty; do stat -c '%n %t:%T %a' /dev/$d; done
        head -c 3 /dev/zero | wc -c; readlink /dev/stdin; readlink /dev/ptmx
        mknod /tmp/vda b 254 0; head -c1 /tmp/vda > /dev/null 2>&1 || echo forbidden";
    let Some(mut bundle) = Bundle::script(script) else { return };
    bundle.config["linux"]["devices"] =
        json!([{ "path": "/dev/odd/pipe", "type": "p", "fileMode": 384, "uid": 7, "gid": 8 }]);
    bundle.config["process"]["args"][2] =
        json!(format!("{script}; stat -c '%F %a %u %g' /dev/odd/pipe"));
    let out = bundle.run().ok();
    assert_eq!(
        out.lines().collect::<Vec<_>>(),
        [
            "/dev/null 1:3 666",
            "/dev/zero 1:5 666",
            "/dev/full 1:7 666",
            "/dev/random 1:8 666",
            "/dev/urandom 1:9 666",
            "/dev/tty 5:0 666",
            "3",
            "/proc/self/fd/0",
            "pts/ptmx",
            "forbidden",
            "fifo 600 7 8",
        ]
    );
}

#[test]
fn a_network_namespace_made_by_others_is_joined() {
    let Some(mut bundle) = Bundle::script("readlink /proc/self/ns/net") else { return };
    let mut holder =
        std::process::Command::new("unshare").args(["-n", "sleep", "60"]).spawn().unwrap();
    let path = format!("/proc/{}/ns/net", holder.id());
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    // The holder is there when its namespace is not ours any more.
    let wanted = std::iter::repeat_with(|| {
        std::thread::yield_now();
        fs::read_link(&path).unwrap()
    })
    .find(|found| *found != own)
    .unwrap();
    for namespace in bundle.config["linux"]["namespaces"].as_array_mut().unwrap() {
        if namespace["type"] == "network" {
            namespace["path"] = json!(path);
        }
    }
    let out = bundle.run().ok();
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(out.trim(), wanted.to_str().unwrap());
}

#[test]
fn settings_of_the_kernel_stay_in_the_container() {
    let Some(mut bundle) =
        Bundle::script("cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/msgmax")
    else {
        return;
    };
    bundle.config["linux"]["sysctl"] =
        json!({ "net.ipv4.ip_default_ttl": "33", "kernel/msgmax": "4242" });
    assert_eq!(bundle.run().ok(), "33\n4242\n");
    assert_ne!(fs::read_to_string("/proc/sys/kernel/msgmax").unwrap(), "4242\n");
}

#[test]
fn user_groups_umask_directory_and_home_are_set() {
    let script = "id -u; id -g; id -G; umask; pwd; echo $HOME; ulimit -n";
    let Some(mut bundle) = Bundle::script(script) else { return };
    fs::write(
        bundle.root().join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv/web:/bin/sh\n",
    )
    .unwrap();
    bundle.config["process"]["user"] =
        json!({ "uid": 33, "gid": 33, "umask": 63, "additionalGids": [5, 6] });
    bundle.config["process"]["cwd"] = json!("/srv/not/there/yet");
    bundle.config["process"]["rlimits"] =
        json!([{ "type": "RLIMIT_NOFILE", "hard": 512, "soft": 256 }]);
    let out = bundle.run().ok();
    assert_eq!(
        out.lines().collect::<Vec<_>>(),
        ["33", "33", "33 5 6", "0077", "/srv/not/there/yet", "/srv/web", "256"]
    );
}

#[test]
fn what_is_wrong_with_a_program_is_said() {
    let Some(mut bundle) = Bundle::program(&["no-such-program"]) else { return };
    bundle.run().fails_with(&["no-such-program", "PATH"]);
    let bin = bundle.root().join("bin");
    let cases: [(&str, &[u8], &str); 5] = [
        ("crlf", b"#!/bin/sh\r\necho hi\r\n", "carriage return"),
        (
            "interpreter",
            b"#!/usr/bin/python9\n",
            "its interpreter /usr/bin/python9 (line 1 of /bin/interpreter): there is no /usr",
        ),
        ("empty", b"", "the file /bin/empty is empty"),
        ("text", b"hello", "text that does not begin with #!"),
        ("plain", b"#!/bin/sh\n", "permission denied"),
    ];
    for (name, content, words) in cases {
        fs::write(bin.join(name), content).unwrap();
        let mode = if name == "plain" { 0o644 } else { 0o755 };
        fs::set_permissions(bin.join(name), std::os::unix::fs::PermissionsExt::from_mode(mode))
            .unwrap();
        bundle.config["process"]["args"] = json!([format!("/bin/{name}")]);
        let said = bundle.run().fails_with(&[words]);
        assert!(matches!(said.code, 1 | 126), "for {name}: {}", said.code);
    }
    // A program of this host, whose loader and libraries the image lacks.
    fs::copy("/bin/ls", bin.join("dynamic")).unwrap();
    bundle.config["process"]["args"] = json!(["dynamic"]);
    bundle.run().fails_with(&["the loader of /bin/dynamic, /lib", "is missing"]);
}

#[test]
fn a_link_in_place_of_proc_is_refused() {
    let Some(bundle) = Bundle::program(&["/bin/true"]) else { return };
    fs::remove_dir(bundle.root().join("proc")).unwrap();
    symlink("/tmp", bundle.root().join("proc")).unwrap();
    bundle.run().fails_with(&["/proc", "something else than a directory"]);
}

#[test]
fn a_profile_that_allows_only_what_the_program_needs_is_enough() {
    for no_new_privileges in [false, true] {
        for uid in [0, 1000] {
            let Some(mut bundle) = Bundle::program(&["/bin/true"]) else { return };
            bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
            bundle.config["process"]["user"] = json!({ "uid": uid, "gid": uid });
            let needed = [
                "execve",
                "brk",
                "arch_prctl",
                "set_tid_address",
                "set_robust_list",
                "rseq",
                "prlimit64",
                "readlink",
                "readlinkat",
                "getrandom",
                "mprotect",
                "getuid",
                "exit_group",
                "capset",
                "prctl",
                "mmap",
                "uname",
            ];
            bundle.config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [{ "names": needed, "action": "SCMP_ACT_ALLOW" }],
            });
            bundle.run().ok();
        }
    }
}

//! What callers of runc rely on, with containers.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::Bundle;

fn wait_for(path: &Path) {
    while !path.exists() {
        std::thread::yield_now();
    }
}

#[test]
fn signals_are_taken_by_name_number_and_distance() {
    let script = "for s in USR1 USR2 37 64; do trap \"echo got $s > /tmp/part; mv /tmp/part /tmp/got\" $s; \
                  done; echo > /tmp/ready; while :; do sleep 0.1; done";
    let Some(bundle) = Bundle::script(script) else { return };
    std::os::unix::fs::symlink("busybox", bundle.root().join("bin/mv")).unwrap();
    bundle.started();
    wait_for(&bundle.root().join("tmp/ready"));
    let got = bundle.root().join("tmp/got");
    for (signal, heard) in [
        ("USR1", "USR1"),
        ("sigusr2", "USR2"),
        ("SIGRTMIN+3", "37"),
        ("RTMAX", "64"),
        ("10", "USR1"),
    ] {
        fs::remove_file(&got).ok();
        bundle.runtime(&["kill", &bundle.id, signal]).ok();
        wait_for(&got);
        assert_eq!(fs::read_to_string(&got).unwrap(), format!("got {heard}\n"), "for {signal}");
    }
}

#[test]
fn a_container_that_waits_for_its_start_ends_when_asked_to() {
    let Some(bundle) = Bundle::program(&["/bin/sleep", "60"]) else { return };
    bundle.runtime(&["create", &bundle.id]).ok();
    bundle.runtime(&["kill", &bundle.id]).ok();
    bundle.wait();
    assert_eq!(bundle.status(), "stopped");
}

/// Every key in a document, by its path; elements of lists are alike.
fn keys(value: &Value, path: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                into.insert(format!("{path}/{key}"));
                keys(value, &format!("{path}/{key}"), into);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| keys(value, path, into)),
        _ => {}
    }
}

fn keys_of(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    keys(&serde_json::from_str(text).unwrap(), "", &mut found);
    // Zeroes are left out, so whether these are there is chance.
    let chance =
        ["/data/memory/cache", "/data/blkio/", "/data/cpu/throttling/", "/data/pids/limit"];
    found.retain(|key| !chance.iter().any(|prefix| key.starts_with(prefix)));
    found
}

/// runc on the same bundle, in a state directory and a control group of its own.
struct Peer<'a>(&'a Bundle);

impl Peer<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("runc");
        command.arg("--root").arg(self.0.path().join("peer")).args(arguments);
        command.current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    /// Whether it is installed and runs the bundle.
    fn runs(&self) -> bool {
        let quiet =
            |mut command: Command| command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        quiet(self.command(&["run", "--detach", &self.0.id])).is_ok_and(|status| status.success())
    }

    fn says(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

#[test]
fn what_callers_parse_has_the_keys_and_columns_that_runc_prints() {
    let Some(mut bundle) = Bundle::program(&["/bin/sleep", "60"]) else { return };
    bundle.started();
    bundle.config["linux"]["cgroupsPath"] = json!(format!("/carrack-peer-{}", bundle.id));
    bundle.command(&[]);
    let peer = Peer(&bundle);
    if !peer.runs() {
        eprintln!("skipped: install runc");
        return;
    }
    let documents: [&[&str]; 3] =
        [&["list", "--format", "json"], &["state", &bundle.id], &["events", "--stats", &bundle.id]];
    for arguments in documents {
        let ours = keys_of(&bundle.runtime(arguments).ok());
        assert_eq!(ours, keys_of(&peer.says(arguments)), "for {arguments:?}");
    }
    let first = |text: &str| -> Vec<String> {
        let line = text.lines().next().unwrap_or_default();
        line.split_whitespace().map(str::to_owned).collect()
    };
    for arguments in [&["list"][..], &["ps", &bundle.id], &["ps", &bundle.id, "-aux"]] {
        let (ours, theirs) = (bundle.runtime(arguments).ok(), peer.says(arguments));
        assert_eq!(first(&ours), first(&theirs), "for {arguments:?}");
        assert_eq!(ours.lines().count(), theirs.lines().count(), "for {arguments:?}");
    }
    let pids: Value =
        serde_json::from_str(&bundle.runtime(&["ps", "-f", "json", &bundle.id]).ok()).unwrap();
    assert_eq!(pids, json!([bundle.state()["pid"]]));
    peer.says(&["delete", "--force", &bundle.id]);
}

#[test]
fn the_table_of_containers_is_aligned() {
    let Some(bundle) = Bundle::program(&["/bin/sleep", "60"]) else { return };
    bundle.started();
    let text = bundle.runtime(&["list"]).ok();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    for title in ["PID", "STATUS", "BUNDLE", "CREATED", "OWNER"] {
        let at = lines[0].find(title).unwrap();
        let row = lines[1].as_bytes();
        assert!(&row[at - 3..at] == b"   " && row[at] != b' ', "for {title}: {text}");
    }
    assert!(lines[1].ends_with("root"), "{text}");
}

#[test]
fn a_container_can_be_kept_or_left_behind() {
    let Some(bundle) = Bundle::script("exit 7") else { return };
    assert_eq!(bundle.runtime(&["run", "--keep", &bundle.id]).code, 7);
    assert_eq!(bundle.status(), "stopped");
    bundle.runtime(&["delete", &bundle.id]).ok();
    assert_eq!(bundle.runtime(&["run", "--detach", "--pid-file=pid", &bundle.id]).code, 0);
    assert!(fs::read_to_string(bundle.path().join("pid")).unwrap().parse::<i32>().is_ok());
    bundle.wait();
    bundle.runtime(&["delete", &bundle.id]).ok();
}

#[test]
fn a_signal_to_the_command_in_front_reaches_the_program() {
    let script = "trap 'exit 12' TERM; echo > /tmp/up; while :; do sleep 0.1; done";
    let Some(bundle) = Bundle::script(script) else { return };
    let mut child = bundle.command(&["run", &bundle.id]).spawn().unwrap();
    wait_for(&bundle.root().join("tmp/up"));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(12));
    bundle.runtime(&["state", &bundle.id]).fails_with(&["does not exist"]);
}

#[test]
fn a_paused_container_is_joined_only_when_asked() {
    let Some(bundle) = Bundle::program(&["/bin/sleep", "60"]) else { return };
    bundle.started();
    bundle.runtime(&["pause", &bundle.id]).ok();
    let said = bundle
        .runtime(&["exec", &bundle.id, "true"])
        .fails_with(&["cannot exec in a paused container (use --ignore-paused to override)"]);
    assert_eq!(said.code, 255);
    bundle.runtime(&["resume", &bundle.id]).ok();
    bundle.runtime(&["exec", "--ignore-paused", &bundle.id, "true"]).ok();
}

#[test]
fn a_joining_program_gets_what_the_options_say() {
    let Some(bundle) = Bundle::program(&["/bin/sleep", "60"]) else { return };
    bundle.started();
    let cases: &[(&[&str], &str, &str)] = &[
        (&["--env=A=1", "-e", "B=2"], "echo $A$B", "12\n"),
        (&["--cwd=/tmp"], "pwd", "/tmp\n"),
        (
            &["-u", "3:4", "-g", "7", "--additional-gids", "8"],
            "id -u; id -g; id -G",
            "3\n4\n4 7 8\n",
        ),
        (&["--no-new-privs"], "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1\n"),
        (&["--no-new-privs=false"], "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t0\n"),
        (
            &["--cap", "CAP_SYS_PTRACE"],
            "grep CapEff /proc/self/status",
            "CapEff:\t00000000a80c25fb\n",
        ),
    ];
    for (options, script, expected) in cases {
        let mut arguments = vec!["exec"];
        arguments.extend_from_slice(options);
        arguments.extend([bundle.id.as_str(), "/bin/sh", "-c", script]);
        assert_eq!(bundle.runtime(&arguments).ok(), *expected, "for {options:?}");
    }
    let said = bundle.runtime(&["exec", &bundle.id, "--", "echo", "--", "-x"]).ok();
    assert_eq!(said, "-- -x\n");
}

#[test]
fn a_joining_program_can_be_put_into_a_group_below() {
    let Some(bundle) = Bundle::program(&["/bin/sleep", "60"]) else { return };
    bundle.started();
    let group = format!("/sys/fs/cgroup/pids/carrack-test-{}/below", bundle.id);
    if fs::create_dir(&group).is_err() {
        eprintln!("skipped: the controller pids is not on version 1");
        return;
    }
    let script = "grep :pids: /proc/self/cgroup; grep :memory: /proc/self/cgroup";
    let arguments = ["exec", "--cgroup", "pids:below", &bundle.id, "/bin/sh", "-c", script];
    let said = bundle.runtime(&arguments).ok();
    let (pids, memory) = said.split_once('\n').unwrap();
    assert!(pids.ends_with("/below") && !memory.contains("/below"), "{said}");
    for (wrong, words) in [
        ("pids:..", "bad sub cgroup path"),
        ("pids:nowhere", "nowhere"),
        (":below", "empty <controller> prefix"),
        ("pids,pids:below", "specified multiple times"),
    ] {
        bundle.runtime(&["exec", "--cgroup", wrong, &bundle.id, "true"]).fails_with(&[words]);
    }
}

#[test]
fn limits_are_changed_by_flags_with_units_and_by_a_file() {
    let Some(bundle) = Bundle::program(&["/bin/sleep", "60"]) else { return };
    bundle.started();
    let group = |controller: &str, file: &str| {
        let path = format!("/sys/fs/cgroup/{controller}/carrack-test-{}/{file}", bundle.id);
        fs::read_to_string(path).unwrap_or_default().trim().to_owned()
    };
    if group("memory", "memory.limit_in_bytes").is_empty() {
        eprintln!("skipped: control groups are not on version 1");
        return;
    }
    let cases: &[(&[&str], &str, &str, &str)] = &[
        (&["--memory", "64m"], "memory", "memory.limit_in_bytes", "67108864"),
        (&["--memory=32MiB"], "memory", "memory.limit_in_bytes", "33554432"),
        (&["--memory", "1.5g"], "memory", "memory.limit_in_bytes", "1610612736"),
        (&["--memory-reservation", "20000k"], "memory", "memory.soft_limit_in_bytes", "20480000"),
        (&["--cpu-share", "200"], "cpu", "cpu.shares", "200"),
        (&["--cpu-period", "900000", "--cpu-quota", "600000"], "cpu", "cpu.cfs_quota_us", "600000"),
        (&["--cpuset-cpus", "0"], "cpuset", "cpuset.cpus", "0"),
        (&["--pids-limit", "20"], "pids", "pids.max", "20"),
        (&["--pids-limit", "-1"], "pids", "pids.max", "max"),
    ];
    for (flags, controller, file, value) in cases {
        let mut arguments = vec!["update", bundle.id.as_str()];
        arguments.extend_from_slice(flags);
        bundle.runtime(&arguments).ok();
        assert_eq!(group(controller, file), *value, "for {flags:?}");
    }
    let limits = json!({ "pids": { "limit": 33 }, "memory": { "kernel": 1 } }).to_string();
    fs::write(bundle.path().join("limits.json"), limits).unwrap();
    let said = bundle.runtime(&["update", "--resources", "limits.json", &bundle.id]);
    assert!(said.err.contains("Kernel memory settings are ignored"), "{}", said.err);
    said.ok();
    assert_eq!(group("pids", "pids.max"), "33");
}

#[test]
fn events_tell_of_memory_running_out_until_the_container_ends() {
    let Some(mut bundle) = Bundle::script("head -c 100m /dev/zero | tail; exit 0") else { return };
    bundle.config["linux"]["resources"]["memory"] = json!({ "limit": 20_000_000 });
    std::os::unix::fs::symlink("busybox", bundle.root().join("bin/tail")).unwrap();
    bundle.runtime(&["create", &bundle.id]).ok();
    let mut events = bundle.command(&["events", "--interval", "20ms", &bundle.id]);
    let mut events = events.stdout(Stdio::piped()).spawn().unwrap();
    // Its first line says that it watches.
    let output = std::io::BufReader::new(events.stdout.take().unwrap());
    let mut lines = std::io::BufRead::lines(output);
    let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!((&first["type"], &first["id"]), (&json!("stats"), &json!(bundle.id)));
    bundle.runtime(&["start", &bundle.id]).ok();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(events.wait().unwrap().success());
    let oom = format!("{{\"type\":\"oom\",\"id\":\"{}\"}}", bundle.id);
    assert!(rest.contains(&oom), "{rest:?}");
}

#[test]
fn a_service_managers_socket_is_stood_in_for_and_a_silent_program_holds_nobody_up() {
    let Some(bundle) = Bundle::script("echo $NOTIFY_SOCKET; ls -l /run/notify") else { return };
    fs::create_dir(bundle.root().join("run")).unwrap();
    let path = bundle.path().join("manager.sock");
    let _manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let mut command = bundle.command(&["run", &bundle.id]);
    let output = command.env("NOTIFY_SOCKET", &path).output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.starts_with("/run/notify/notify.sock\n") && out.contains("srwxrwxrwx"), "{out}");
}

#[test]
fn descriptors_to_pass_on_have_to_be_there() {
    let Some(bundle) = Bundle::script("true") else { return };
    bundle
        .runtime(&["run", "--preserve-fds", "40", &bundle.id])
        .fails_with(&["--preserve-fds 40", "is not open"]);
}

#[test]
fn a_service_manager_is_told_once_the_program_is_ready() {
    use std::os::unix::net::UnixDatagram;
    let Some(bundle) = Bundle::program(&["/bin/sleep", "60"]) else { return };
    fs::create_dir(bundle.root().join("run")).unwrap();
    let path = bundle.path().join("manager.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    let command = |arguments: &[&str]| {
        let mut command = bundle.command(arguments);
        command.env("NOTIFY_SOCKET", &path).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    assert!(command(&["create", &bundle.id]).status().unwrap().success());
    let pid = bundle.state()["pid"].clone();
    let mut start = command(&["start", &bundle.id]).spawn().unwrap();
    let inside = bundle.path().join("state").join(&bundle.id).join("notify/notify.sock");
    wait_for(&inside);
    let program = UnixDatagram::unbound().unwrap();
    program.send_to(b"STATUS=warm\nREADY=1", &inside).unwrap();
    let mut heard = Vec::new();
    for _ in 0..3 {
        let (mut buffer, mut barrier) = ([0; 64], Vec::new());
        let length = carrack_linux::socket::receive(&manager, &mut buffer, &mut barrier).unwrap();
        heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    assert_eq!(heard, ["READY=1\n".to_owned(), format!("MAINPID={pid}\n"), "BARRIER=1".to_owned()]);
    assert!(start.wait().unwrap().success());
}

#[test]
fn sockets_of_a_service_manager_and_descriptors_behind_them_are_passed_on() {
    let script = "echo $LISTEN_FDS $LISTEN_PID; cat <&3; cat <&4";
    let Some(bundle) = Bundle::script(script) else { return };
    fs::write(bundle.path().join("three"), "three\n").unwrap();
    fs::write(bundle.path().join("four"), "four\n").unwrap();
    bundle.command(&[]);
    let script = format!(
        "exec 3<three 4<four; export LISTEN_FDS=1; LISTEN_PID=$$ exec {} --root state run \
         --preserve-fds 1 {}",
        crate::support::RUNTIME,
        bundle.id
    );
    let output =
        Command::new("sh").args(["-c", &script]).current_dir(bundle.path()).output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert_eq!(out, "1 1\nthree\nfour\n", "{}", String::from_utf8_lossy(&output.stderr));
}

//! Namespaces of every kind: made, joined by path, or the caller's own.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::support::Bundle;

/// A process in namespaces of its own, whose files others may join.
struct Host(Child);

impl Host {
    /// Started by `unshare` with these options.
    fn new(options: &[&str]) -> Option<Self> {
        let mut command = Command::new("unshare");
        command.args(options).args(["sh", "-c", "echo ready; exec sleep 600"]);
        let mut child = match command.stdout(Stdio::piped()).spawn() {
            Ok(child) => child,
            Err(error) => {
                eprintln!("skipped: unshare: {error}");
                return None;
            }
        };
        let mut line = String::new();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        assert_eq!(line, "ready\n", "unshare {options:?} does not work here");
        Some(Self(child))
    }

    fn path(&self, name: &str) -> String {
        format!("/proc/{}/ns/{name}", self.0.id())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn namespace(bundle: &mut Bundle, value: serde_json::Value) {
    let list = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    list.retain(|known| known["type"] != value["type"]);
    list.push(value);
}

fn link(pid: i64, name: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap().display().to_string()
}

#[test]
fn clocks_of_a_time_namespace_are_set_off() {
    let script = "cat /proc/self/timens_offsets; cut -d' ' -f1 /proc/uptime";
    let Some(mut bundle) = Bundle::script(script) else { return };
    namespace(&mut bundle, json!({ "type": "time" }));
    bundle.config["linux"]["timeOffsets"] = json!({ "monotonic": { "secs": 7200, "nanosecs": 5 }, "boottime": { "secs": 100_000_000 } });
    let out = bundle.run().ok();
    let lines: Vec<Vec<&str>> =
        out.lines().map(|line| line.split_ascii_whitespace().collect()).collect();
    assert_eq!(lines[0], ["monotonic", "7200", "5"], "{out}");
    assert_eq!(lines[1], ["boottime", "100000000", "0"], "{out}");
    assert!(lines[2][0].parse::<f64>().unwrap() > 100_000_000.0, "{out}");
}

#[test]
fn a_time_namespace_is_the_programs_own_and_that_of_who_comes_later() {
    let Some(mut bundle) = Bundle::program(&["/bin/sleep", "60"]) else { return };
    namespace(&mut bundle, json!({ "type": "time" }));
    bundle.config["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 100_000_000 } });
    bundle.started();
    let pid = bundle.state()["pid"].as_i64().unwrap();
    let own = link(std::process::id().into(), "time");
    assert_ne!(link(pid, "time"), own);
    let out = bundle.runtime(&["exec", &bundle.id, "/bin/cat", "/proc/uptime"]).ok();
    assert!(out.split('.').next().unwrap().parse::<u64>().unwrap() > 100_000_000, "{out}");
}

#[test]
fn loopback_is_up_in_a_network_of_its_own() {
    let Some(bundle) = Bundle::script("cat /sys/class/net/lo/operstate /sys/class/net/lo/flags")
    else {
        return;
    };
    let out = bundle.run().ok();
    let flags = out.lines().last().unwrap().trim_start_matches("0x");
    assert_eq!(u32::from_str_radix(flags, 16).unwrap() & 1, 1, "{out}");
}

#[test]
fn every_kind_can_be_joined_by_path() {
    let options =
        ["--mount", "--uts", "--ipc", "--net", "--cgroup", "--time", "--propagation=private"];
    let Some(host) = Host::new(&options) else { return };
    for (kind, name) in [
        ("uts", "uts"),
        ("ipc", "ipc"),
        ("network", "net"),
        ("cgroup", "cgroup"),
        ("time", "time"),
        ("mount", "mnt"),
    ] {
        let Some(mut bundle) = Bundle::program(&["/bin/sleep", "60"]) else { return };
        namespace(&mut bundle, json!({ "type": kind, "path": host.path(name) }));
        let keeps = |key: &str| key != "hostname" && key != "domainname";
        bundle.config.as_object_mut().unwrap().retain(|key, _| keeps(key));
        bundle.config["linux"].as_object_mut().unwrap().remove("sysctl");
        bundle.started();
        let pid = bundle.state()["pid"].as_i64().unwrap();
        assert_eq!(link(pid, name), link(host.0.id().into(), name), "for {kind}");
        let said = bundle.runtime(&["exec", &bundle.id, "/bin/ls", "/bin/busybox"]).ok();
        assert_eq!(said.trim(), "/bin/busybox", "for {kind}");
    }
}

#[test]
fn a_user_namespace_is_joined_with_the_container_as_its_root() {
    let Some(host) = Host::new(&["--user", "--map-root-user", "--net"]) else { return };
    let script =
        "id -u; readlink /proc/self/ns/user; touch /made; ls /proc/1/fd >/dev/null && echo own";
    let Some(mut bundle) = Bundle::script(script) else { return };
    namespace(&mut bundle, json!({ "type": "user", "path": host.path("user") }));
    bundle.config["linux"].as_object_mut().unwrap().remove("sysctl");
    // The map has one id: terminals cannot belong to group 5.
    for mount in bundle.mounts() {
        mount["options"].as_array_mut().unwrap().retain(|option| option != "gid=5");
    }
    let said = bundle.run();
    assert_eq!(said.code, 0, "{}", said.err);
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(lines[0], "0");
    assert_eq!(lines[1], link(host.0.id().into(), "user"));
    assert_eq!(lines[2], "own");
}

#[test]
fn a_program_joins_a_container_whose_user_namespace_was_joined() {
    let Some(host) = Host::new(&["--user", "--map-root-user"]) else { return };
    let Some(mut bundle) = Bundle::program(&["/bin/sleep", "60"]) else { return };
    namespace(&mut bundle, json!({ "type": "user", "path": host.path("user") }));
    bundle.config["linux"].as_object_mut().unwrap().remove("sysctl");
    for mount in bundle.mounts() {
        mount["options"].as_array_mut().unwrap().retain(|option| option != "gid=5");
    }
    bundle.started();
    let script = "readlink /proc/self/ns/user; readlink /proc/1/ns/user";
    let out = bundle.runtime(&["exec", &bundle.id, "/bin/sh", "-c", script]).ok();
    let own = link(host.0.id().into(), "user");
    assert_eq!(out.lines().collect::<Vec<_>>(), [own.as_str(), own.as_str()]);
    bundle.runtime(&["delete", "--force", &bundle.id]).ok();
}

#[test]
fn without_a_mount_namespace_the_hosts_mounts_stay_as_they_are() {
    let Some(mut bundle) = Bundle::script("ls /; cat /proc/self/comm; echo x > /tmp/f; sleep 60")
    else {
        return;
    };
    let list = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    list.retain(|known| known["type"] != "mount");
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let said = bundle.runtime(&["create", &bundle.id]);
    if said.err.contains("Linux 6.15") {
        eprintln!("skipped: {}", said.err);
        return;
    }
    said.ok();
    bundle.runtime(&["start", &bundle.id]).ok();
    let pid = bundle.state()["pid"].as_i64().unwrap();
    assert_eq!(link(pid, "mnt"), link(std::process::id().into(), "mnt"));
    let out = bundle.runtime(&["exec", &bundle.id, "/bin/ls", "/", "/proc/self/fd"]).ok();
    assert!(out.contains("bin\n") && !out.contains("home"), "{out}");
    let ours = bundle.path().display().to_string();
    let lines = |text: &str| text.lines().filter(|line| line.contains(&ours)).count();
    assert_eq!(lines(&before), 0);
    assert_eq!(lines(&fs::read_to_string("/proc/self/mountinfo").unwrap()), 0);
    assert!(Path::new(&bundle.root()).join("tmp/f").exists());
}

#[test]
fn an_interface_of_the_host_moves_in_with_its_addresses() {
    let script =
        "cat /sys/class/net/inside0/flags; cat /proc/net/if_inet6; ip -4 addr show inside0";
    let Some(mut bundle) = Bundle::script(script) else { return };
    std::os::unix::fs::symlink("busybox", bundle.root().join("bin/ip")).unwrap();
    // A host of our own, so that the machine's interfaces are left alone.
    let Some(host) = Host::new(&["--net"]) else { return };
    let net = format!("--net={}", host.path("net"));
    let inside = |words: &[&str]| {
        let mut command = Command::new("nsenter");
        command.arg(&net).args(words);
        command.output().unwrap()
    };
    let made = inside(&["ip", "link", "add", "cktest0", "type", "veth", "peer", "name", "cktest1"]);
    if !made.status.success() {
        eprintln!("skipped: {}", String::from_utf8_lossy(&made.stderr));
        return;
    }
    inside(&["ip", "addr", "add", "192.0.2.7/24", "dev", "cktest0"]);
    inside(&["ip", "addr", "add", "2001:db8::7/64", "dev", "cktest0", "nodad"]);
    bundle.config["linux"]["netDevices"] = json!({ "cktest0": { "name": "inside0" } });
    let plain = bundle.command(&["run", &bundle.id]);
    let mut command = Command::new("nsenter");
    command.arg(&net).arg(plain.get_program()).args(plain.get_args());
    let output = command.current_dir(bundle.path()).output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(out.contains("192.0.2.7/24"), "{out}");
    assert!(out.contains("20010db8000000000000000000000007"), "{out}");
    let flags = out.lines().next().unwrap().trim_start_matches("0x");
    assert_eq!(u32::from_str_radix(flags, 16).unwrap() & 1, 1, "{out}");
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    let Some(mut bundle) = Bundle::program(&["/bin/true"]) else { return };
    bundle.config["linux"]["netDevices"] = json!({ "cknone9": {} });
    bundle.run().fails_with(&["cknone9", "linux.netDevices", "no interface of that name"]);
}

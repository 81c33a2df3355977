//! Looking at a bridge from outside: what crosses it, and who may join.

use std::io::Read as _;
use std::process::{Command, Output, Stdio};

/// Everything tcpdump sees on `bridge` while `traffic` flows.
pub(crate) fn capture(bridge: &str, traffic: impl FnOnce()) -> Vec<u8> {
    let mut child = Command::new("tcpdump")
        .args(["-i", bridge, "--immediate-mode", "-s", "0", "-U", "-w", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tcpdump starts");
    // It says on stderr when it listens.
    let mut said = Vec::new();
    let mut stderr = child.stderr.take().expect("a pipe");
    while !String::from_utf8_lossy(&said).contains("listening on") {
        let mut byte = [0];
        assert_eq!(
            stderr.read(&mut byte).expect("readable"),
            1,
            "{}",
            String::from_utf8_lossy(&said)
        );
        said.push(byte[0]);
    }
    let mut stdout = child.stdout.take().expect("a pipe");
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).map(|_| bytes)
    });
    traffic();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("tcpdump can be ended");
    child.wait().expect("tcpdump ends");
    reader.join().expect("no panic").expect("readable")
}

/// A host on the bridge that is no part of the mesh.
pub(crate) struct Outsider {
    namespace: String,
}

impl Outsider {
    /// Joins `bridge` with an address beside `neighbor`'s.
    pub(crate) fn join(bridge: &str, neighbor: &str) -> Self {
        let id = std::process::id();
        let namespace = format!("outsider-{id}");
        let (inner, outer) = (format!("oi{id}"), format!("oo{id}"));
        let network = neighbor.rsplit_once('.').expect("an IPv4 address").0;
        ip(&["netns", "add", &namespace]);
        ip(&["link", "add", &outer, "type", "veth", "peer", "name", &inner, "netns", &namespace]);
        ip(&["link", "set", &outer, "master", bridge, "up"]);
        ip(&["-n", &namespace, "addr", "add", &format!("{network}.250/24"), "dev", &inner]);
        ip(&["-n", &namespace, "link", "set", &inner, "up"]);
        Self { namespace }
    }

    /// Runs a program there.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, program]).args(arguments);
        command.stdin(Stdio::null()).output().expect("ip starts")
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        Command::new("ip").args(["netns", "del", &self.namespace]).status().ok(); // On the way out.
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("ip starts");
    assert!(
        output.status.success(),
        "ip {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

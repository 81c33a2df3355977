//! System calls that a seccomp filter leaves to somebody who listens.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use crate::support::Bundle;

/// A bundle that asks about `mkdir`, and who is asked.
fn asking(script: &str) -> Option<(Bundle, UnixListener)> {
    let mut bundle = Bundle::script(script)?;
    let path = bundle.path().join("agent.sock");
    let agent = UnixListener::bind(&path).unwrap();
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": path,
        "listenerMetadata": "for the agent",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }],
    });
    Some((bundle, agent))
}

/// Takes one message with its descriptor.
fn take(agent: &UnixListener) -> (Value, OwnedFd) {
    let (mut stream, _) = agent.accept().unwrap();
    let (mut bytes, mut passed) = (vec![0; 64 << 10], Vec::new());
    let length = carrack_linux::socket::receive(&stream, &mut bytes, &mut passed).unwrap();
    bytes.truncate(length);
    stream.read_to_end(&mut bytes).unwrap();
    (serde_json::from_slice(&bytes).unwrap(), passed.pop().unwrap())
}

#[test]
fn the_agent_gets_the_listener_with_the_state_and_decides() {
    let Some((bundle, agent)) = asking("mkdir /made; echo over; sleep 60") else { return };
    let told = std::thread::spawn(move || {
        let (state, listener) = take(&agent);
        // Nobody answers any more: the call does not exist.
        drop(listener);
        (state, agent)
    });
    bundle.runtime(&["create", &bundle.id]).ok();
    bundle.runtime(&["start", &bundle.id]).ok();
    let (state, agent) = told.join().unwrap();
    assert_eq!(state["fds"], json!(["seccompFd"]));
    assert_eq!(state["metadata"], "for the agent");
    assert_eq!(state["state"]["id"], bundle.id.as_str());
    assert_eq!(state["pid"], bundle.state()["pid"]);
    assert!(!bundle.root().join("made").exists());
    // A program that comes later has a filter, and a listener, of its own.
    let told = std::thread::spawn(move || take(&agent).0);
    bundle.runtime(&["exec", &bundle.id, "/bin/true"]).ok();
    assert_eq!(told.join().unwrap()["state"]["status"], "running");
}

#[test]
fn nobody_at_the_listeners_path_is_an_error_that_names_it() {
    let Some((bundle, agent)) = asking("echo > /ran; sleep 60") else { return };
    drop(agent);
    bundle.runtime(&["create", &bundle.id]).ok();
    bundle.runtime(&["start", &bundle.id]).fails_with(&["agent.sock", "listenerPath"]);
    bundle.wait();
    assert_eq!(bundle.status(), "stopped");
    assert!(!bundle.root().join("ran").exists(), "the program ran without a listener");
}

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use serde_json::json;

use crate::support::Bundle;

#[test]
fn another_program_runs_beside_the_first() {
    let Some(bundle) = Bundle::script("echo here > /tmp/file; sleep 60") else { return };
    bundle.started();
    let script = "ps | grep -c 'sleep 60'; hostname; grep CapEff /proc/self/status; grep Seccomp: /proc/self/status";
    let out = bundle.runtime(&["exec", &bundle.id, "/bin/sh", "-c", script]).ok();
    assert!(out.contains("box\nCapEff:\t00000000a80425fb\nSeccomp:\t2\n"), "{out}");
    assert_eq!(bundle.runtime(&["exec", &bundle.id, "/bin/sh", "-c", "exit 9"]).code, 9);
}

#[test]
fn user_directory_environment_and_process_file_are_taken() {
    let Some(bundle) = Bundle::program(&["/bin/sleep", "60"]) else { return };
    bundle.started();
    let arguments = [
        "exec",
        "--user",
        "12:34",
        "--cwd",
        "/tmp",
        "--env",
        "A=b",
        &bundle.id,
        "/bin/sh",
        "-c",
        "id -u; id -g; pwd; echo $A",
    ];
    assert_eq!(bundle.runtime(&arguments).ok(), "12\n34\n/tmp\nb\n");
    let process = json!({ "user": { "uid": 5, "gid": 6 }, "args": ["/bin/id", "-u"], "cwd": "/" });
    fs::write(bundle.path().join("process.json"), process.to_string()).unwrap();
    assert_eq!(bundle.runtime(&["exec", "--process", "process.json", &bundle.id]).ok(), "5\n");
}

#[test]
fn a_missing_program_and_a_stopped_container_are_told_apart() {
    let Some(bundle) = Bundle::program(&["/bin/sleep", "60"]) else { return };
    bundle.started();
    let said = bundle.runtime(&["exec", &bundle.id, "nothing"]).fails_with(&["nothing", "PATH"]);
    assert_eq!(said.code, 255);
    fs::write(bundle.root().join("bin/odd"), "odd").unwrap();
    fs::set_permissions(
        bundle.root().join("bin/odd"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let said = bundle
        .runtime(&["exec", &bundle.id, "odd"])
        .fails_with(&["text that does not begin with #!"]);
    assert_eq!(said.code, 255);
    bundle.runtime(&["kill", &bundle.id, "9"]).ok();
    bundle.wait();
    bundle.runtime(&["exec", &bundle.id, "/bin/true"]).fails_with(&["is stopped"]);
}

/// Receives the terminal a command hands over while it runs.
fn terminal_of(bundle: &Bundle, arguments: &[&str]) -> fs::File {
    let path = bundle.path().join("console.sock");
    fs::remove_file(&path).ok();
    let listener = UnixListener::bind(&path).unwrap();
    let mut child = bundle.command(arguments).spawn().unwrap();
    let (stream, _) = listener.accept().unwrap();
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    let mut name = [0; 64];
    carrack_linux::socket::receive(&stream, &mut name, &mut descriptors).unwrap();
    assert!(child.wait().unwrap().success());
    fs::File::from(descriptors.pop().unwrap())
}

/// Reads until `wanted` came by.
fn read_until(terminal: &mut fs::File, wanted: &str) -> String {
    let mut seen = String::new();
    let mut buffer = [0; 256];
    while !seen.contains(wanted) {
        let count = terminal.read(&mut buffer).unwrap();
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    seen
}

#[test]
fn a_terminal_is_the_containers_own_and_its_size_is_set() {
    let Some(mut bundle) = Bundle::script(
        "tty; stty size; test -c /dev/console && echo console; read line; echo got $line",
    ) else {
        return;
    };
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["process"]["consoleSize"] = json!({ "height": 30, "width": 100 });
    let mut terminal =
        terminal_of(&bundle, &["create", "--console-socket", "console.sock", &bundle.id]);
    bundle.runtime(&["start", &bundle.id]).ok();
    let seen = read_until(&mut terminal, "console\r\n");
    assert!(seen.contains("/dev/pts/0\r\n30 100\r\n"), "{seen}");
    terminal.write_all(b"hello\n").unwrap();
    read_until(&mut terminal, "got hello");
}

#[test]
fn a_terminal_that_nobody_takes_is_refused() {
    let Some(mut bundle) = Bundle::script("tty") else { return };
    bundle.config["process"]["terminal"] = json!(true);
    bundle.runtime(&["create", &bundle.id]).fails_with(&["process.terminal is set"]);
    bundle.config["process"]["terminal"] = json!(false);
    bundle
        .runtime(&["create", "--console-socket", "nowhere.sock", &bundle.id])
        .fails_with(&["process.terminal is not set"]);
}

#[test]
fn a_program_that_joins_gets_a_terminal_of_the_container() {
    let Some(bundle) = Bundle::program(&["/bin/sleep", "60"]) else { return };
    bundle.started();
    let arguments = [
        "exec",
        "--tty",
        "--detach",
        "--console-socket",
        "console.sock",
        &bundle.id,
        "/bin/sh",
        "-c",
        "tty; read x; echo got $x",
    ];
    let mut terminal = terminal_of(&bundle, &arguments);
    read_until(&mut terminal, "/dev/pts/0");
    terminal.write_all(b"word\n").unwrap();
    read_until(&mut terminal, "got word");
}

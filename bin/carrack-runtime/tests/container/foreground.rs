//! A command that stays in front of a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Child;

use rustix::pty::{OpenptFlags, openpt, unlockpt};
use rustix::termios::{self, LocalModes, Winsize};
use serde_json::json;

use crate::support::Bundle;

/// A terminal, and a command that has it as its streams.
struct Session {
    master: File,
    peer: OwnedFd,
    child: Child,
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Session {
    fn begin(bundle: &Bundle, arguments: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        unlockpt(&master).unwrap();
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let peer = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
        termios::tcsetwinsize(&peer, size(31, 101)).unwrap();
        let mut command = bundle.command(arguments);
        command.stdin(peer.try_clone().unwrap()).stdout(peer.try_clone().unwrap());
        let child = command.stderr(peer.try_clone().unwrap()).spawn().unwrap();
        Self { master: File::from(master), peer, child }
    }

    fn read_until(&mut self, wanted: &str) -> String {
        let mut seen = String::new();
        let mut buffer = [0; 256];
        while !seen.contains(wanted) {
            let count = self.master.read(&mut buffer).unwrap();
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        seen
    }

    fn echoes(&self) -> bool {
        termios::tcgetattr(&self.peer).unwrap().local_modes.contains(LocalModes::ECHO)
    }
}

/// Tells its size at the start, whenever that changes, and what was typed.
const SCRIPT: &str = "trap 'echo now $(stty size)' WINCH; tty; stty size; \
                      until read line; do :; done; echo heard $line; exit 5";

/// Goes through all that a terminal in front is for.
fn check(bundle: &Bundle, arguments: &[&str]) {
    let mut session = Session::begin(bundle, arguments);
    let seen = session.read_until("31 101\r\n");
    assert!(seen.contains("/dev/pts/0\r\n"), "{seen}");
    assert!(!session.echoes(), "the terminal is not raw");
    termios::tcsetwinsize(&session.peer, size(40, 120)).unwrap();
    let pid = rustix::process::Pid::from_child(&session.child);
    rustix::process::kill_process(pid, rustix::process::Signal::WINCH).unwrap();
    session.master.write_all(b"word\r").unwrap();
    session.read_until("heard word\r\n");
    assert_eq!(session.child.wait().unwrap().code(), Some(5));
    assert!(session.echoes(), "the terminal was not restored");
}

#[test]
fn a_terminal_in_front_is_lent_to_the_container_and_given_back() {
    let Some(mut bundle) = Bundle::script(SCRIPT) else { return };
    bundle.config["process"]["terminal"] = json!(true);
    check(&bundle, &["run", &bundle.id]);
}

#[test]
fn a_terminal_in_front_is_lent_to_a_program_that_joins() {
    let Some(bundle) = Bundle::program(&["/bin/sleep", "60"]) else { return };
    bundle.started();
    check(&bundle, &["exec", "--tty", &bundle.id, "/bin/sh", "-c", SCRIPT]);
}

#[test]
fn a_new_size_of_the_terminal_in_front_is_passed_on() {
    let script = "stty size; until test \"$(stty size)\" = '40 120'; do :; done; echo resized";
    let Some(mut bundle) = Bundle::script(script) else { return };
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["process"]["args"] =
        json!(["/bin/sh", "-c", script.replace("do :;", "do true;")]);
    let mut session = Session::begin(&bundle, &["run", &bundle.id]);
    session.read_until("31 101\r\n");
    termios::tcsetwinsize(&session.peer, size(40, 120)).unwrap();
    let pid = rustix::process::Pid::from_child(&session.child);
    rustix::process::kill_process(pid, rustix::process::Signal::WINCH).unwrap();
    session.read_until("resized\r\n");
    assert!(session.child.wait().unwrap().success());
}

#[test]
fn a_terminal_that_this_command_has_not_is_refused() {
    let Some(mut bundle) = Bundle::script("tty") else { return };
    bundle.config["process"]["terminal"] = json!(true);
    // In a session of its own there is no terminal to fall back to.
    let mut command = std::process::Command::new("setsid");
    command.arg("--wait").arg(crate::support::RUNTIME).arg("--root").arg(bundle.path());
    bundle.command(&[]);
    command.args(["run", &bundle.id]).current_dir(bundle.path());
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && err.contains("--console-socket"), "{err}");
}

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::support::Init;

/// An init as leader of a session that has a terminal.
struct Session {
    child: Child,
    screen: BufReader<std::fs::File>,
    _init: Init,
}

impl Session {
    fn script(script: &str) -> Option<Self> {
        if !Path::new("/usr/bin/setsid").exists() {
            eprintln!("skipped: install util-linux for setsid");
            return None;
        }
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let theirs = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let again = || Stdio::from(theirs.try_clone().unwrap());
        let init = Init::new();
        let child = Command::new("setsid")
            .args(["--ctty", "--wait"])
            .arg(init.path())
            .args(["--", "sh", "-c", script])
            .stdin(again())
            .stdout(again())
            .stderr(again())
            .spawn()
            .unwrap();
        Some(Self { child, screen: BufReader::new(ours.into_file()), _init: init })
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.screen.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn press(&mut self, keys: &[u8]) {
        self.screen.get_mut().write_all(keys).unwrap();
    }
}

trait IntoFile {
    fn into_file(self) -> std::fs::File;
}

impl IntoFile for OwnedFd {
    fn into_file(self) -> std::fs::File {
        self.into()
    }
}

#[test]
fn the_program_is_in_front_of_the_terminal_in_a_group_of_its_own() {
    let script = "read -r line < /proc/$$/stat; set -- ${line##*) }; echo $3 $6 $$; read -r word; echo $word";
    let Some(mut session) = Session::script(script) else { return };
    let line = session.line();
    let [group, front, own] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
    assert_eq!((group, front), (own, own), "group, foreground, program");
    // Reading would stop it with SIGTTIN were it in the background.
    session.press(b"typed\n");
    assert_eq!((session.line(), session.line()), ("typed".into(), "typed".into()));
    assert!(session.child.wait().unwrap().success());
}

#[test]
fn a_key_that_interrupts_reaches_the_program_once() {
    let script = "trap 'echo interrupted' INT; stty -echo; echo ready; \
                  while ! read -r word; do :; done; echo $word";
    let Some(mut session) = Session::script(script) else { return };
    assert_eq!(session.line(), "ready");
    session.press(b"\x03");
    assert_eq!(session.line(), "interrupted");
    session.press(b"end\n");
    assert_eq!(session.line(), "end");
    assert!(session.child.wait().unwrap().success());
}

#[test]
fn the_terminal_goes_back_to_whoever_had_it() {
    // The outer shell without job control reads on after the init has ended.
    let init = Init::new();
    let script = format!("stty -echo; {} -- true; read -r word; echo $word", init.path().display());
    let Some(mut session) = Session::script(&script) else { return };
    session.press(b"again\n");
    let mut heard = session.line();
    if heard == "again" {
        // The keys may have been echoed before `stty` came to it.
        session.press(b"\n");
    } else {
        heard = session.line();
    }
    assert_eq!(heard, "again");
    session.child.wait().unwrap();
}

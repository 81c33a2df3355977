use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Stdio};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::support::Init;

/// A running init whose program has said that it is ready.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
    _init: Init,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let init = Init::new();
        let mut child = init.command(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out, _init: init }
    }

    fn script(script: &str) -> Self {
        Self::start(&["--", "sh", "-c", script])
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn signal(&self, number: i32) {
        let pidfd = carrack_linux::process::open(Pid::from_child(&self.child)).unwrap();
        carrack_linux::process::signal(std::os::fd::AsFd::as_fd(&pidfd), number).unwrap();
    }

    fn code(mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap()
    }
}

#[test]
fn every_signal_that_can_be_passed_on_reaches_the_program() {
    // Not SIGKILL and SIGSTOP, which nobody can take; not SIGCHLD, SIGTTIN and SIGTTOU,
    // which are for the init itself; not those that a shell cannot trap.
    let passed = (1..=31).filter(|number| ![9, 11, 17, 19, 21, 22].contains(number));
    let passed: Vec<i32> = passed.chain([34, 40, 64]).collect();
    let list = passed.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    // Bash knows real-time signals by number, and runs a trap when the sleep is over.
    let script = format!(
        "for s in {list}; do trap \"echo got $s\" $s; done
         trap 'exit 7' USR1; echo ready; while :; do sleep 0.01; done"
    );
    let mut running = Running::start(&["--", "bash", "-c", &script]);
    assert_eq!(running.line(), "ready");
    for number in passed.into_iter().filter(|&number| number != libc::SIGUSR1) {
        running.signal(number);
        assert_eq!(running.line(), format!("got {number}"));
    }
    running.signal(libc::SIGUSR1);
    assert_eq!(running.code(), 7);
}

#[test]
fn a_signal_goes_to_the_program_alone_unless_its_group_is_asked_for() {
    // The inner shell is in the program's group. Both wait for what they are told.
    let script = "
        trap 'echo outer; kill -KILL $inner 2>/dev/null; wait $inner; exit 0' HUP
        sh -c 'trap \"echo inner; exit 0\" HUP; echo up; while :; do sleep 0.01; done' &
        inner=$!
        while :; do sleep 0.01; done";
    let mut alone = Running::script(script);
    assert_eq!(alone.line(), "up");
    alone.signal(libc::SIGHUP);
    assert_eq!((alone.line(), alone.line()), ("outer".into(), String::new()));
    assert_eq!(alone.code(), 0);

    let script = script.replace("kill -KILL $inner 2>/dev/null; ", "");
    let mut group = Running::start(&["-g", "--", "sh", "-c", &script]);
    assert_eq!(group.line(), "up");
    group.signal(libc::SIGHUP);
    let mut heard = [group.line(), group.line()];
    heard.sort();
    assert_eq!(heard, ["inner", "outer"]);
    assert_eq!(group.code(), 0);
}

/// Waits until the program below an init, whose id it said, is in `state`.
fn wait_for_state(program: &str, state: &str) {
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{program}/stat")).unwrap();
        if stat.rsplit_once(") ").unwrap().1.starts_with(state) {
            return;
        }
        assert!(std::time::Instant::now() < patience, "{stat}");
        std::thread::yield_now();
    }
}

#[test]
fn sigtstp_stops_the_program_and_sigcont_resumes_it_while_the_init_goes_on() {
    let mut running = Running::script("trap 'exit 9' TERM; echo $$; while :; do sleep 0.01; done");
    let program = running.line();
    running.signal(libc::SIGTSTP);
    wait_for_state(&program, "T");
    let init = Pid::from_child(&running.child);
    let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
    assert!(waitid(WaitId::Pid(init), options).unwrap().is_none(), "the init stopped too");
    // It is told of its end only once it runs again.
    running.signal(libc::SIGTERM);
    running.signal(libc::SIGCONT);
    assert_eq!(running.code(), 9);
}

#[test]
fn an_init_that_was_stopped_itself_misses_nothing() {
    let mut running = Running::script("trap 'exit 9' TERM; echo $$; while :; do sleep 0.01; done");
    running.line();
    let init = Pid::from_child(&running.child);
    kill_process(init, Signal::STOP).unwrap();
    waitid(WaitId::Pid(init), WaitIdOptions::STOPPED).unwrap();
    running.signal(libc::SIGTERM);
    kill_process(init, Signal::CONT).unwrap();
    assert_eq!(running.code(), 9);
}

#[test]
fn the_program_starts_with_no_signal_blocked_or_ignored() {
    // The shell in front ignores some; the init resets them.
    let init = Init::new();
    let path = init.path();
    let script = format!("trap '' INT PIPE USR2; exec {} -- cat /proc/self/status", path.display());
    let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    let status = String::from_utf8_lossy(&output.stdout).into_owned();
    for name in ["SigBlk", "SigIgn"] {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line.ends_with("\t0000000000000000"), "{line}");
    }
}

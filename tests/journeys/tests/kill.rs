//! `kill -9` at random points: the next command works without repair by hand.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use carrack_testkit::Machine;

const LOADS: u32 = 90;
const BUILDS: u32 = 70;
const UPS: u32 = 50;

/// Starts the verb, kills it at a random point of the time it usually takes, `count` times.
fn kill_repeatedly(count: u32, mut start: impl FnMut(u32) -> Command, mut check: impl FnMut(u32)) {
    let started = Instant::now();
    let whole =
        start(count).stdout(Stdio::null()).stderr(Stdio::null()).status().expect("it starts");
    assert!(whole.success(), "an undisturbed run succeeds");
    let usual = started.elapsed();
    for round in 0..count {
        let mut child = spawn(start(round));
        let until = usual.mul_f64(rand::random_range(0.0..1.1));
        end_or_wait(&mut child, until);
        check(round);
    }
}

fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
}

/// Waits for the end of `child`, at most until the random point, then kills it.
fn end_or_wait(child: &mut Child, limit: Duration) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let pid = rustix::process::Pid::from_child(child);
    let process =
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("a pidfd");
    let limit = Timespec::try_from(limit).expect("a short time");
    poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)).expect("poll works");
    child.kill().expect("it can be killed");
    child.wait().expect("it can be waited for");
}

/// Every blob under the store is what its name says, by `sha256sum`.
fn assert_whole(store: &Path) {
    let blobs = store.join("blobs/sha256");
    let names: Vec<_> =
        fs::read_dir(&blobs).expect("blobs").flatten().map(|entry| entry.path()).collect();
    let output = Command::new("sha256sum").args(&names).output().expect("sha256sum starts");
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let (sum, path) = line.split_once("  ").expect("a line of sha256sum");
        assert!(path.ends_with(sum), "{path} holds {sum}");
    }
}

#[test]
fn a_load_killed_anywhere_leaves_a_store_that_the_next_command_uses() {
    let machine = Machine::new();
    machine.busybox_image("base:1");
    let archive = machine.files().join("base.tar");
    let archive = archive.to_str().expect("a plain path");
    machine.carrack(&["save", "-o", archive, "base:1"]).expect_ok();

    let other = Machine::new();
    kill_repeatedly(
        LOADS,
        |_| other.command(&["load", "-i", archive]),
        |round| {
            other.carrack(&["images"]).expect_ok();
            if round % 10 == 0 {
                assert_whole(&other.root().join("store"));
                other.carrack(&["rmi", "-f", "base:1"]);
            }
        },
    );
    other.carrack(&["load", "-i", archive]).expect_ok();
    other.carrack(&["run", "--rm", "base:1", "true"]).expect_ok();
}

#[test]
fn a_build_killed_anywhere_leaves_a_store_that_the_next_build_uses() {
    let machine = Machine::new();
    machine.busybox_image("base:1");
    let context = machine.files().join("app");
    fs::create_dir_all(&context).expect("a context");
    let path = context.to_str().expect("a plain path").to_owned();
    let dockerfile = |round: u32| {
        format!(
            "FROM base:1\nCOPY note /note\nRUN echo {round} > /round && cat /note >> /round\n\
             FROM base:1\nCOPY --from=0 /round /round\n"
        )
    };
    fs::write(context.join("note"), vec![b'x'; 1 << 20]).expect("a file");
    kill_repeatedly(
        BUILDS,
        |round| {
            fs::write(context.join("Dockerfile"), dockerfile(round)).expect("a Dockerfile");
            machine.command(&["build", "-t", "app:1", &path])
        },
        |_| {
            machine.carrack(&["images"]).expect_ok();
        },
    );
    machine.carrack(&["build", "-t", "app:1", &path]).expect_ok();
    assert_whole(&machine.root().join("store"));
    let said = machine.carrack(&["run", "--rm", "app:1", "head", "-n1", "/round"]).expect_ok();
    assert_eq!(said.trim(), (BUILDS - 1).to_string());
}

#[test]
fn an_up_killed_anywhere_is_finished_by_the_next_up() {
    let machine = Machine::new();
    machine.busybox_image("base:1");
    let directory = machine.files().join("app");
    fs::create_dir_all(&directory).expect("a directory");
    let path = directory.to_str().expect("a plain path").to_owned();
    let write = |round: u32| {
        let compose = format!(
            "name: killed\nservices:\n  one:\n    image: base:1\n    command: sleep 3600\n    \
             environment: {{ROUND: '{round}'}}\n    stop_signal: SIGKILL\n  two:\n    image: base:1\n    \
             command: sleep 3600\n    depends_on: [one]\n    stop_signal: SIGKILL\n"
        );
        fs::write(directory.join("compose.yaml"), compose).expect("a file");
    };
    kill_repeatedly(
        UPS,
        |round| {
            write(round);
            machine.command(&["up", "-d", &path])
        },
        |round| {
            // Every third time the daemon dies with the command.
            if round % 3 == 0
                && let Some(pid) = machine.pid_of("daemon").and_then(rustix::process::Pid::from_raw)
            {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok(); // Ended meanwhile.
            }
            machine.carrack(&["ps", "-a"]).expect_ok();
        },
    );
    machine.carrack(&["up", "-d", &path]).expect_ok();
    let listed = machine.json(&["ps", "--format", "json"]);
    let running =
        listed.as_array().expect("a list").iter().filter(|one| one["status"] == "running");
    assert_eq!(running.count(), 2, "{listed}");
    machine.carrack(&["down", "-p", "killed"]).expect_ok();
}

use std::fs;
use std::path::Path;

use crate::daemon::{Daemon, RUNTIME, SHIM};
use crate::events::Events;
use crate::image;

#[test]
fn a_container_gives_its_output_and_its_exit_code() {
    let Some(daemon) = Daemon::start() else { return };
    let id = daemon.name("run");
    let said = daemon.run(&[], &id, "echo out; echo err >&2; exit 3");
    assert_eq!((said.code, said.out.as_str()), (3, "out\n"));
    assert!(said.err.ends_with("err\n"), "{}", said.err);
    assert_eq!(daemon.run(&[], &daemon.name("run"), "sh -c 'kill -9 $$'; exit $?").code, 137);
    assert!(!daemon.bundle(&id).exists());
    assert!(!Path::new("/run/containerd/carrack/default").join(&id).exists());
}

#[test]
fn the_shim_is_found_by_its_path_too() {
    let Some(daemon) = Daemon::start() else { return };
    let path = daemon.path().join("bin").join(SHIM);
    let id = daemon.name("path");
    let path = path.to_str().unwrap();
    let arguments = ["run", "--rm", "--runtime", path, image::NAME, &id, "sh", "-c", "echo here"];
    assert_eq!(daemon.ctr(&arguments).ok(), "here\n");
}

#[test]
fn what_happens_is_told_in_order() {
    let Some(daemon) = Daemon::start() else { return };
    let events = Events::listen(&daemon);
    let id = daemon.name("events");
    daemon.detached(&[], &id, "sleep 1000");
    assert_eq!(daemon.exec(&id, "added", "exit 5").code, 5);
    daemon.ctr(&["task", "pause", &id]).ok();
    assert_eq!(daemon.status(&id).as_deref(), Some("PAUSED"));
    daemon.exec(&id, "early", "true").fails_with(&["paused"]);
    daemon.ctr(&["task", "resume", &id]).ok();
    assert_eq!(daemon.status(&id).as_deref(), Some("RUNNING"));
    daemon.ctr(&["task", "delete", &id]).fails_with(&["running"]);
    daemon.ctr(&["task", "kill", "--signal", "SIGKILL", &id]).ok();
    let first = [
        "create",
        "start",
        "exec-added added",
        "exec-started added",
        "exit added 5",
        "paused",
        "resumed",
        "exit 137",
    ];
    assert_eq!(events.until(&id, "exit"), first);
    assert_eq!(daemon.status(&id).as_deref(), Some("STOPPED"));
    daemon.ctr(&["task", "kill", &id]).fails_with(&["has ended already"]);
    daemon.exec(&id, "late", "true").fails_with(&["has ended"]);
    assert_eq!(daemon.delete(&id), 137);
    assert_eq!(events.until(&id, "delete"), ["delete 137"]);
}

#[test]
fn a_process_killed_for_want_of_memory_is_told_before_its_end() {
    let Some(daemon) = Daemon::start() else { return };
    let events = Events::listen(&daemon);
    let id = daemon.name("oom");
    let options = ["--memory-limit", "16777216"];
    let said = daemon.run(&options, &id, "dd if=/dev/zero of=/dev/null bs=64M count=1");
    assert_eq!(said.code, 137);
    assert_eq!(events.until(&id, "exit"), ["create", "start", "oom", "exit 137"]);
}

#[test]
fn processes_and_counters_are_listed() {
    let Some(daemon) = Daemon::start() else { return };
    let id = daemon.name("metrics");
    daemon.detached(&["--memory-limit", "33554432"], &id, "sleep 1000 & sleep 1000");
    let pid = fs::read_to_string(daemon.bundle(&id).join("init.pid")).unwrap();
    let listed = daemon.ctr(&["task", "ps", &id]).ok();
    assert!(listed.lines().count() >= 3 && listed.contains(&pid), "{listed}");
    let metrics = daemon.ctr(&["task", "metrics", &id]).ok();
    assert!(metrics.contains("33554432"), "{metrics}");
    assert!(metrics.contains("memory") && metrics.contains("pids.current"), "{metrics}");
}

#[test]
fn a_program_that_is_not_there_is_named_and_nothing_is_left() {
    let Some(daemon) = Daemon::start() else { return };
    let id = daemon.name("missing");
    let said = daemon.ctr(&["run", "--rm", "--runtime", RUNTIME, image::NAME, &id, "/no/program"]);
    said.fails_with(&["/no/program"]);
    assert!(!daemon.bundle(&id).exists());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&id), "{mounts}");

    let id = daemon.name("missing");
    daemon.detached(&[], &id, "sleep 1000");
    let arguments = ["task", "exec", "--exec-id", "x", &id, "/no/program"];
    daemon.ctr(&arguments).fails_with(&["/no/program"]);
    assert_eq!(daemon.exec(&id, "y", "exit 0").code, 0, "the container is none the worse");
}

#[test]
fn a_checkpoint_is_refused() {
    let Some(daemon) = Daemon::start() else { return };
    let id = daemon.name("checkpoint");
    daemon.detached(&[], &id, "sleep 1000");
    daemon.ctr(&["task", "checkpoint", &id]).fails_with(&["checkpoints are not made"]);
    assert_eq!(daemon.status(&id).as_deref(), Some("RUNNING"));
}

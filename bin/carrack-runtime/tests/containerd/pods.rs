use std::fs;

use rustix::process::Pid;

use crate::daemon::Daemon;
use crate::events::Events;

/// Memory of a process that no other shares and that was written to, in KiB.
fn written_memory(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn the_containers_of_a_pod_share_one_shim_that_ends_with_the_last() {
    let Some(daemon) = Daemon::start() else { return };
    let events = Events::listen(&daemon);
    let (first, second) = (daemon.name("pod"), daemon.name("pod"));
    let annotation = format!("io.kubernetes.cri.sandbox-id={first}");
    for id in [&first, &second] {
        daemon.detached(&["--annotation", &annotation], id, "sleep 1000");
    }
    let shim = daemon.shim(&first);
    assert!(!daemon.bundle(&second).join("shim.pid").exists(), "one shim was started");
    let memory = written_memory(shim);
    assert!(memory <= 2 * 1536, "{memory} KiB for two containers");

    daemon.ctr(&["task", "kill", "--signal", "SIGKILL", &first]).ok();
    events.until(&first, "exit");
    assert_eq!(daemon.delete(&first), 137);
    assert_eq!(daemon.exec(&second, "still", "echo here").ok(), "here\n");
    let handle = carrack_linux::process::open(Pid::from_raw(shim).unwrap()).unwrap();
    daemon.ctr(&["task", "kill", "--signal", "SIGKILL", &second]).ok();
    events.until(&second, "exit");
    assert_eq!(daemon.delete(&second), 137);
    let mut interest = [rustix::event::PollFd::new(&handle, rustix::event::PollFlags::IN)];
    let patience = rustix::time::Timespec { tv_sec: 20, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut interest, Some(&patience)), Ok(1), "the shim ends");
}

#[test]
fn a_shim_alone_writes_to_less_memory_than_a_container_may_cost() {
    let Some(daemon) = Daemon::start() else { return };
    let id = daemon.name("memory");
    daemon.detached(&[], &id, "sleep 1000");
    assert_eq!(daemon.exec(&id, "one", "echo here").ok(), "here\n");
    let memory = written_memory(daemon.shim(&id));
    assert!(memory <= 1536, "{memory} KiB");
}

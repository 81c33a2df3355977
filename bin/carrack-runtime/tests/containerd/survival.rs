use crate::daemon::Daemon;
use crate::events::Events;

#[test]
fn a_crash_of_containerd_loses_nothing() {
    let Some(mut daemon) = Daemon::start() else { return };
    let events = Events::listen(&daemon);
    let (ends, stays) = (daemon.name("ends"), daemon.name("stays"));
    // It ends while nobody is there, when it finds the file.
    let script = "until [ -e /tmp/go ]; do :; done; exit 4";
    daemon.detached(&[], &ends, script);
    daemon.detached(&[], &stays, "sleep 1000");
    let root = daemon.bundle(&ends).join("rootfs/tmp/go");
    let pid = std::fs::read_to_string(daemon.bundle(&ends).join("init.pid")).unwrap();
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    let handle = carrack_linux::process::open(pid).unwrap();
    drop(events);
    daemon.kill();
    std::fs::write(root, "").unwrap();
    let mut interest = [rustix::event::PollFd::new(&handle, rustix::event::PollFlags::IN)];
    let patience = rustix::time::Timespec { tv_sec: 20, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut interest, Some(&patience)), Ok(1), "it ended");

    daemon.restart();
    if daemon.is_debians() {
        assert_eq!(daemon.status(&ends).as_deref(), Some("STOPPED"), "{}", daemon.log());
        assert_eq!(daemon.delete(&ends), 4, "its exit was kept");
    } else {
        // Newer ones delete by themselves what has no process left when they come back.
        assert_eq!(daemon.status(&ends), None, "{}", daemon.log());
    }
    assert_eq!(daemon.status(&stays).as_deref(), Some("RUNNING"));
    assert_eq!(daemon.exec(&stays, "after", "echo here").ok(), "here\n");
    let events = Events::listen(&daemon);
    daemon.ctr(&["task", "kill", "--signal", "SIGKILL", &stays]).ok();
    assert_eq!(events.until(&stays, "exit"), ["exit 137"]);
    assert_eq!(daemon.delete(&stays), 137);
}

#[test]
fn what_a_killed_shim_leaves_is_cleaned_up() {
    let Some(daemon) = Daemon::start() else { return };
    let events = Events::listen(&daemon);
    let id = daemon.name("killed");
    daemon.detached(&[], &id, "sleep 1000");
    let shim = rustix::process::Pid::from_raw(daemon.shim(&id)).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    let told = events.until(&id, "delete");
    assert!(told.ends_with(&["exit 137".into(), "delete 137".into()]), "{told:?}");
    assert_eq!(daemon.status(&id), None);
    assert!(!daemon.bundle(&id).exists());
    let record = std::path::Path::new("/run/containerd/carrack/default").join(&id);
    assert!(!record.exists());
}

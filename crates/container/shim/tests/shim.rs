//! A real shim around a real container. Needs root; says so if it is not.

#![expect(clippy::print_stderr, reason = "a skipped test says why")]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use carrack_linux::process;
use carrack_shim::{Client, Log, Refusal, ShimError, Status, record};
use rustix::process::Pid;
use serde_json::json;

mod bench;
use bench::{Bench, exec, program};

fn read_all(stream: Option<OwnedFd>) -> String {
    let mut text = String::new();
    File::from(stream.expect("a stream")).read_to_string(&mut text).expect("read");
    text
}

/// Whether a descriptor has something to say within ten seconds.
fn is_ready(descriptor: &OwnedFd) -> bool {
    let mut interest = [rustix::event::PollFd::new(descriptor, rustix::event::PollFlags::IN)];
    let patience = rustix::time::Timespec { tv_sec: 10, tv_nsec: 0 };
    rustix::event::poll(&mut interest, Some(&patience)).expect("polled") == 1
}

/// Waits for the end of a process that is not our child.
fn wait_gone(pid: i32) {
    let pid = Pid::from_raw(pid).expect("a process id");
    if let Ok(handle) = process::open(pid) {
        assert!(is_ready(&handle), "process {pid} did not end");
    }
}

#[test]
fn output_goes_to_the_log_and_the_exit_to_the_disk_before_anybody_hears_of_it() {
    let Some(bench) = Bench::new("echo out; echo err >&2; printf tail; exit 3") else { return };
    let client = bench.spawn();
    assert_eq!(client.state().expect("state").status, Status::Created);
    assert!(record::read_exit(client.directory()).expect("read").is_none());
    client.start().expect("started");
    let exit = client.wait().expect("an exit");
    assert_eq!((exit.code, exit.signal, exit.oom), (3, None, false));
    assert_eq!(record::read_exit(client.directory()).expect("read"), Some(exit.clone()));
    let mut log = bench.log();
    log.sort();
    assert_eq!(log, ["stderr F err", "stdout F out", "stdout P tail"]);

    let state = client.state().expect("state");
    assert_eq!((state.status, state.pid, state.exit), (Status::Stopped, None, Some(exit.clone())));
    assert_eq!(client.wait().expect("still known"), exit);
    let directory = client.directory().to_owned();
    let shim = client.shim_pid();
    client.delete(false).expect("deleted");
    wait_gone(shim);
    assert!(Client::connect(&directory).expect_err("no shim").is_gone());
    assert_eq!(record::read_exit(&directory).expect("read"), Some(exit), "the record stays");
}

#[test]
fn a_container_ended_by_a_signal_says_so() {
    let Some(bench) = Bench::new("sleep 1000") else { return };
    let client = bench.start();
    client.kill(libc::SIGKILL, false).expect("killed");
    let exit = client.wait().expect("an exit");
    assert_eq!((exit.code, exit.signal), (137, Some(libc::SIGKILL)));
    let refused = client.kill(libc::SIGKILL, false).expect_err("ended");
    assert!(matches!(refused, ShimError::Refused { kind: Refusal::WrongState, .. }), "{refused}");
}

#[test]
fn logs_stay_within_their_bound_and_keep_the_newest_lines() {
    let Some(mut bench) = Bench::new("seq 1 20000") else { return };
    bench.config.log = Log::Lines {
        path: bench.directory.path().join("logs/log"),
        max_bytes: 10_000,
        max_files: 3,
    };
    bench.start().wait().expect("an exit");
    let mut total = 0;
    for entry in fs::read_dir(bench.directory.path().join("logs")).expect("listed") {
        let length = entry.expect("entry").metadata().expect("metadata").len();
        assert!(length <= 10_000);
        total += length;
    }
    assert!((10_000..=30_000).contains(&total), "{total} bytes are kept");
    assert_eq!(bench.log().last().expect("a line"), "stdout F 20000");
}

fn spawn_and_start(bench: &Bench) -> Result<(), ShimError> {
    Client::spawn(&program(), &bench.shim_directory(), &bench.config)?.start()
}

#[test]
fn a_missing_program_is_told_from_one_that_cannot_be_executed() {
    let Some(missing) = Bench::running(&["/no/such/program"]) else { return };
    let error = spawn_and_start(&missing).expect_err("not started");
    assert_eq!(error.exit_code(), 127, "{error}");
    assert!(error.to_string().contains("/no/such/program"), "{error}");

    let Some(unusable) = Bench::running(&["/usr"]) else { return };
    let error = spawn_and_start(&unusable).expect_err("not started");
    assert_eq!(error.exit_code(), 126, "{error}");
}

#[test]
fn a_container_that_cannot_be_made_leaves_no_shim() {
    let Some(bench) = Bench::new("true") else { return };
    bench.change(|spec| spec["root"]["path"] = json!("nowhere"));
    let error = Client::spawn(&program(), &bench.shim_directory(), &bench.config);
    let error = error.expect_err("refused");
    assert!(matches!(error, ShimError::Refused { kind: Refusal::Failed, .. }), "{error}");
    assert!(error.to_string().contains("nowhere"), "{error}");
    assert!(Client::connect(&bench.shim_directory()).expect_err("no shim").is_gone());
}

#[test]
fn a_directory_has_room_for_one_shim() {
    let Some(bench) = Bench::new("sleep 1000") else { return };
    let client = bench.start();
    let error = Client::spawn(&program(), &bench.shim_directory(), &bench.config);
    assert!(error.expect_err("refused").to_string().contains("another shim"));
    assert_eq!(client.state().expect("the first one lives").status, Status::Running);
}

#[test]
fn a_process_added_has_its_own_streams_and_exit() {
    let Some(bench) = Bench::new("sleep 1000") else { return };
    let client = bench.start();
    let added = client.exec(exec("echo out; echo err >&2; exit 4")).expect("added");
    assert_eq!(read_all(added.streams.stdout), "out\n");
    assert_eq!(read_all(added.streams.stderr), "err\n");
    assert_eq!(added.control.receive().expect("an exit").code, 4);

    let mut config = exec("tr a-z A-Z");
    config.stdin = true;
    let mut added = client.exec(config).expect("added");
    let mut stdin = File::from(added.streams.stdin.take().expect("stdin"));
    stdin.write_all(b"quiet").expect("written");
    drop(stdin);
    assert_eq!(read_all(added.streams.stdout.take()), "QUIET");
    assert_eq!(added.control.receive().expect("an exit").code, 0);

    let mut config = exec("");
    config.process.args = vec!["/no/such/program".to_owned()];
    assert_eq!(client.exec(config).expect_err("missing").exit_code(), 127);
    assert!(bench.log().is_empty(), "none of it is in the container's log");
}

#[test]
fn a_process_added_is_signaled_through_its_control() {
    let Some(bench) = Bench::new("sleep 1000") else { return };
    let client = bench.start();
    let added = client.exec(exec("exec sleep 1000")).expect("added");
    added.control.kill(libc::SIGTERM).expect("signaled");
    assert_eq!(added.control.receive().expect("an exit").signal, Some(libc::SIGTERM));
    added.control.kill(libc::SIGTERM).expect("one that has ended takes no notice");
}

#[test]
fn a_container_run_again_in_the_same_directory_has_not_ended_yet() {
    let Some(bench) = Bench::new("read line; exit 5") else { return };
    let client = bench.start();
    assert_eq!(client.wait().expect("an exit").code, 5);
    let directory = client.directory().to_owned();
    client.delete(false).expect("deleted");
    let again = bench.spawn();
    assert_eq!(record::read_exit(&directory).expect("read"), None);
    again.start().expect("started");
    assert_eq!(again.wait().expect("an exit").code, 5);
}

#[test]
fn a_process_added_dies_with_its_client_unless_it_is_detached() {
    let Some(bench) = Bench::new("sleep 1000") else { return };
    let client = bench.start();
    let tied = client.exec(exec("exec sleep 1000")).expect("added");
    let mut config = exec("exec sleep 1000");
    config.detached = true;
    let detached = client.exec(config).expect("added");
    let (tied_pid, detached_pid) = (tied.control.pid, detached.control.pid);
    drop((tied, detached));
    wait_gone(tied_pid);
    let alive = Pid::from_raw(detached_pid).and_then(process::start_time);
    assert!(alive.is_some(), "the detached one lives on");
}

#[test]
fn those_who_attach_before_the_start_miss_nothing_and_can_answer() {
    let Some(mut bench) = Bench::new("echo ready; cat; echo done >&2") else { return };
    bench.config.open_stdin = true;
    let client = bench.spawn();
    let mut streams = client.attach().expect("attached");
    client.start().expect("started");
    let mut stdin = File::from(streams.stdin.take().expect("stdin"));
    stdin.write_all(b"hello\n").expect("written");
    drop(stdin);
    client.close_stdin().expect("closed");
    assert_eq!(read_all(streams.stdout.take()), "ready\nhello\n");
    assert_eq!(read_all(streams.stderr.take()), "done\n");
    assert_eq!(client.wait().expect("an exit").code, 0);
    assert_eq!(bench.log(), ["stdout F ready", "stdout F hello", "stderr F done"]);
}

#[test]
fn somebody_who_attaches_and_goes_away_holds_nothing_up() {
    let Some(bench) = Bench::new("seq 1 50000") else { return };
    let client = bench.spawn();
    drop(client.attach().expect("attached"));
    client.start().expect("started");
    assert_eq!(client.wait().expect("an exit").code, 0);
    assert_eq!(bench.log().last().expect("a line"), "stdout F 50000");
}

#[test]
fn somebody_who_reads_late_still_reads_everything() {
    let Some(bench) = Bench::new("seq 1 100000") else { return };
    let client = bench.spawn();
    let streams = client.attach().expect("attached");
    client.start().expect("started");
    // The pipe is full long before the end; the shim answers all the same.
    assert_ne!(client.state().expect("state").status, Status::Created);
    let text = read_all(streams.stdout);
    assert_eq!(text.lines().count(), 100_000);
    assert!(text.ends_with("100000\n"));
    assert_eq!(client.wait().expect("an exit").code, 0);
}

#[test]
fn what_was_said_last_reaches_those_attached_after_the_shim_was_told_to_end() {
    let Some(bench) = Bench::new("seq 1 5000") else { return };
    let client = bench.spawn();
    let streams = client.attach().expect("attached");
    client.start().expect("started");
    client.wait().expect("an exit");
    client.delete(false).expect("deleted");
    assert!(read_all(streams.stdout).ends_with("5000\n"));
}

#[test]
fn a_terminal_has_a_size_that_changes_and_takes_input() {
    let script = "stty size; read line; echo \"got $line\"; stty size";
    let Some(bench) = Bench::new(script).map(Bench::with_terminal) else { return };
    let client = bench.spawn();
    client.resize(100, 40).expect("resized");
    let mut streams = client.attach().expect("attached");
    assert!(streams.stderr.is_none(), "a terminal has one stream");
    client.start().expect("started");
    let mut stdout = File::from(streams.stdout.take().expect("stdout"));
    let mut first = [0; 8];
    stdout.read_exact(&mut first).expect("read");
    assert_eq!(&first, b"40 100\r\n");
    client.resize(90, 30).expect("resized");
    File::from(streams.stdin.take().expect("stdin")).write_all(b"hi\n").expect("written");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("read");
    assert!(rest.ends_with("got hi\r\n30 90\r\n"), "{rest:?}");
    assert_eq!(client.wait().expect("an exit").code, 0);
    let log = bench.log();
    assert!(log.contains(&"stdout F got hi".to_owned()), "{log:?}");
}

#[test]
fn a_process_added_with_a_terminal_is_resized_through_its_control() {
    let Some(bench) = Bench::new("sleep 1000") else { return };
    let client = bench.start();
    let mut config = exec("read line; stty size");
    config.process.terminal = true;
    config.stdin = true;
    let mut added = client.exec(config).expect("added");
    added.control.resize(77, 22).expect("resized");
    File::from(added.streams.stdin.take().expect("stdin")).write_all(b"\n").expect("written");
    let exit = added.control.receive().expect("an exit");
    assert_eq!(exit.code, 0);
    let mut buffer = [0; 64];
    let mut terminal = File::from(added.streams.stdout.take().expect("stdout"));
    let mut text = String::new();
    // A terminal whose other side is closed ends with an error instead of nothing.
    while let Ok(read @ 1..) = terminal.read(&mut buffer) {
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    assert!(text.ends_with("22 77\r\n"), "{text:?}");
}

#[test]
fn the_shim_is_nobody_s_child_and_ignores_requests_to_end() {
    let Some(bench) = Bench::new("sleep 1000") else { return };
    let client = bench.start();
    let stat = fs::read_to_string(format!("/proc/{}/stat", client.shim_pid())).expect("stat");
    let fields: Vec<_> = stat.rsplit_once(')').expect("name").1.split_whitespace().collect();
    assert_ne!(fields[1], std::process::id().to_string(), "not ours");
    assert_eq!(fields[3], client.shim_pid().to_string(), "it leads its session");
    let works_in = fs::read_link(format!("/proc/{}/cwd", client.shim_pid())).expect("read");
    assert_eq!(works_in, std::path::Path::new("/"), "it keeps no other directory busy");
    let shim = client.shim_pidfd().expect("a handle");
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT] {
        process::signal(shim.as_fd(), signal).expect("signaled");
    }
    assert_eq!(client.state().expect("it lives").status, Status::Running);
}

#[test]
fn the_shim_keeps_nothing_of_its_parents_open() {
    let Some(bench) = Bench::new("sleep 1000") else { return };
    // Without close-on-exec, as careless programs leave them.
    let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
    let _client = bench.start();
    drop(writer);
    assert!(is_ready(&reader), "the only writer is gone");
    assert_eq!(read_all(Some(reader)), "");
}

#[test]
fn a_shim_killed_with_minus_nine_is_gone_and_its_container_can_be_found() {
    let Some(bench) = Bench::new("sleep 1000") else { return };
    let client = bench.start();
    let watch = client.watch().expect("a watch");
    let shim = client.shim_pidfd().expect("a handle");
    process::signal(shim.as_fd(), libc::SIGKILL).expect("killed");
    assert!(watch.receive().expect_err("gone").is_gone());
    assert!(client.state().expect_err("gone").is_gone());
    assert!(client.shim_pidfd().expect_err("gone").is_gone());
    assert!(Client::connect(client.directory()).expect_err("gone").is_gone());

    assert!(record::read_exit(client.directory()).expect("read").is_none());
    let init = record::read_init(client.directory()).expect("read").expect("recorded");
    let handle = init.open().expect("opened").expect("it still runs");
    process::signal(handle.as_fd(), libc::SIGKILL).expect("killed");
    wait_gone(init.pid);
    assert!(init.open().expect("opened").is_none());
}

#[test]
fn everybody_who_waits_is_told() {
    let Some(mut bench) = Bench::new("read line; exit 5") else { return };
    bench.config.open_stdin = true;
    let client = bench.start();
    let watches: Vec<_> = (0..20).map(|_| client.watch().expect("a watch")).collect();
    client.close_stdin().expect("closed");
    for watch in watches {
        assert_eq!(watch.receive().expect("an exit").code, 5);
    }
}

#[test]
fn a_container_is_frozen_thawed_and_measured() {
    let Some(bench) = Bench::new("sleep 1000") else { return };
    let client = bench.start();
    assert!(client.stats().expect("measured").pids >= 1);
    client.pause().expect("paused");
    assert_eq!(client.state().expect("state").status, Status::Paused);
    let refused = client.exec(exec("true")).expect_err("frozen");
    assert!(matches!(refused, ShimError::Refused { kind: Refusal::WrongState, .. }), "{refused}");
    client.resume().expect("resumed");
    assert_eq!(
        client.exec(exec("exit 6")).expect("added").control.receive().expect("exit").code,
        6
    );
}

#[test]
fn a_running_container_is_deleted_by_force_only() {
    let Some(bench) = Bench::new("sleep 1000") else { return };
    let client = bench.start();
    let init = client.state().expect("state").pid.expect("running");
    let refused = client.clone().delete(false).expect_err("it runs");
    assert!(matches!(refused, ShimError::Refused { kind: Refusal::WrongState, .. }), "{refused}");
    client.clone().delete(true).expect("deleted");
    wait_gone(init);
    wait_gone(client.shim_pid());
    let exit = record::read_exit(client.directory()).expect("read").expect("recorded");
    assert_eq!(exit.code, 137);
}

#[test]
fn a_frozen_container_and_one_never_started_are_deleted_by_force_too() {
    let Some(frozen) = Bench::new("sleep 1000") else { return };
    let client = frozen.start();
    client.pause().expect("paused");
    client.clone().delete(true).expect("deleted");
    wait_gone(client.shim_pid());

    let Some(unstarted) = Bench::new("sleep 1000") else { return };
    let client = unstarted.spawn();
    client.clone().delete(true).expect("deleted");
    wait_gone(client.shim_pid());
}

#[test]
fn a_container_short_of_memory_says_that_it_was() {
    // One process that needs more than all of them may have.
    let Some(bench) = Bench::new("exec dd if=/dev/zero of=/dev/null bs=200M count=1") else {
        return;
    };
    bench.change(|spec| {
        spec["linux"]["resources"] = json!({ "memory": { "limit": 16 << 20, "swap": 16 << 20 } });
    });
    let client = bench.start();
    let exit = client.wait().expect("an exit");
    assert_eq!((exit.signal, exit.oom), (Some(libc::SIGKILL), true));
}

#[test]
fn output_to_descriptors_is_passed_on_as_it_is() {
    let Some(bench) = Bench::new("printf 'a\\001b'; printf oops >&2") else { return };
    let (stdout, their_stdout) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    let (stderr, their_stderr) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    let directory = bench.shim_directory();
    let client = Client::spawn_with_output(
        &program(),
        &directory,
        &bench.config,
        their_stdout,
        their_stderr,
    )
    .expect("a shim");
    client.start().expect("started");
    assert_eq!(read_all(Some(stdout)), "a\u{1}b");
    assert_eq!(read_all(Some(stderr)), "oops");
    assert_eq!(client.wait().expect("an exit").code, 0);
    client.attach().expect_err("nothing to attach to");
}

#[test]
fn nonsense_on_the_socket_ends_that_connection_only() {
    let Some(bench) = Bench::new("sleep 1000") else { return };
    let client = bench.start();
    for nonsense in [b"\xff\xff\xff\xff".as_slice(), b"\x02\x00\x00\x00{}", b"GET / HTTP/1.1\r\n"] {
        let directory = File::open(client.directory()).expect("opened");
        let name = std::ffi::OsStr::new("shim.sock");
        let mut stream =
            carrack_linux::socket::connect_in(directory.as_fd(), name).expect("connected");
        stream.write_all(nonsense).expect("written");
        // Closed with bytes unread, a socket may end with a reset.
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).ok();
        assert!(rest.is_empty());
    }
    assert_eq!(client.state().expect("state").status, Status::Running);
}

/// Prints the figures; the bound is for builds with debug assertions too. Pages of the
/// program itself are shared by all shims and not counted, written to disk yet or not.
#[test]
fn a_shim_needs_little_memory_of_its_own() {
    let Some(bench) = Bench::new("seq 1 100000; exec sleep 1000") else { return };
    let client = bench.start();
    for _ in 0..20 {
        client.exec(exec("true")).expect("added").control.receive().expect("an exit");
    }
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", client.shim_pid()));
    let own = kib(&rollup.expect("read"), "Anonymous:");
    eprintln!("the shim holds {own} KiB of its own");
    assert!(own < 2 * 1024, "{own} KiB");
}

fn kib(rollup: &str, name: &str) -> u64 {
    let line = rollup.lines().find(|line| line.starts_with(name)).expect("a line");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::daemon::{Daemon, Said};
use crate::events::Events;

#[test]
fn input_reaches_a_process_and_its_end_does_too() {
    let Some(daemon) = Daemon::start() else { return };
    let id = daemon.name("stdin");
    daemon.detached(&[], &id, "sleep 1000");
    let mut client = daemon
        .client()
        .args(["task", "exec", "--exec-id", "cat", &id, "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // More than a pipe holds, both ways.
    let sent = "0123456789abcdef".repeat(20_000);
    let mut stdin = client.stdin.take().unwrap();
    let text = sent.clone();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()).unwrap());
    let said = Said::new(&client.wait_with_output().unwrap());
    writer.join().unwrap();
    assert!(said.ok() == sent, "it came back as it was sent");
}

#[test]
fn much_output_comes_whole() {
    let Some(daemon) = Daemon::start() else { return };
    let said = daemon.run(&[], &daemon.name("much"), "yes 0123456789 | head -c 20000000");
    assert_eq!(said.ok().len(), 20_000_000);
}

#[test]
fn a_terminal_is_a_terminal_and_has_a_size() {
    let Some(daemon) = Daemon::start() else { return };
    let id = daemon.name("tty");
    daemon.detached(&[], &id, "sleep 1000");
    // `script` gives the client a terminal to pass on.
    let shown = |command: String| {
        let output = Command::new("script")
            .args(["-qec", &format!("stty rows 33 cols 77; {command}"), "/dev/null"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Said::new(&output)
    };
    let client = |words: &str| {
        let client = daemon.client();
        let words: Vec<_> = client
            .get_args()
            .map(|word| word.to_str().unwrap().to_owned())
            .chain([words.to_owned()])
            .collect();
        format!("timeout {}", words.join(" "))
    };
    // The client sets the size a moment after the start.
    let wait = "until [ \"$(stty size)\" = \"33 77\" ]; do :; done";
    let words = format!("task exec -t --exec-id t {id} sh -c 'tty; {wait}; stty size; exit 7'");
    let said = shown(client(&words));
    assert_eq!(said.code, 7, "{said:?}");
    assert!(said.out.contains("/dev/pts/") && said.out.contains("33 77"), "{said:?}");

    let id = daemon.name("tty");
    let words = format!(
        "run --rm -t --runtime {} {} {id} sh -c 'tty && echo one two; exit 9'",
        crate::daemon::RUNTIME,
        crate::image::NAME
    );
    let said = shown(client(&words));
    assert_eq!(said.code, 9, "{said:?}");
    assert!(said.out.contains("one two\r"), "{said:?}");
}

#[test]
fn output_that_nobody_reads_holds_up_the_container_and_not_the_shim() {
    let Some(daemon) = Daemon::start() else { return };
    let events = Events::listen(&daemon);
    let id = daemon.name("unread");
    daemon.detached(&[], &id, "echo begun > /tmp/begun; yes; echo never > /tmp/ended");
    assert_eq!(daemon.exec(&id, "look", "cat /tmp/begun").ok(), "begun\n");
    daemon.ctr(&["task", "kill", "--signal", "SIGKILL", &id]).ok();
    assert_eq!(events.until(&id, "exit").last().map(String::as_str), Some("exit 137"));
    assert_eq!(daemon.delete(&id), 137);
}

#[test]
fn output_goes_to_a_file_or_a_logger_where_that_is_named() {
    let Some(daemon) = Daemon::start() else { return };
    let events = Events::listen(&daemon);
    let file = daemon.path().join("made/for it.log");
    let uri = format!("file://{}", file.display()).replace(' ', "%20");
    let id = daemon.name("file");
    daemon.detached(&["--log-uri", &uri], &id, "echo out; echo err >&2");
    events.until(&id, "exit");
    assert_eq!(daemon.delete(&id), 0);
    let mut lines: Vec<_> = fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["err", "out"]);

    let logger = daemon.path().join("logger");
    let said = daemon.path().join("said");
    // It is ready once it has closed descriptor 5, and done when it says so in the FIFO.
    let script = "#!/bin/sh\n\
                  exec 5>&-\n\
                  (cat <&3; cat <&4; echo \"$1 $CONTAINER_ID $CONTAINER_NAMESPACE\") >\"$2\"\n\
                  echo done >\"$2.fifo\"\n";
    fs::write(&logger, script).unwrap();
    fs::set_permissions(&logger, fs::Permissions::from_mode(0o755)).unwrap();
    let fifo = daemon.path().join("said.fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let uri = format!("binary://{}?key={}", logger.display(), said.display());
    let id = daemon.name("logger");
    daemon.detached(&["--log-uri", &uri], &id, "echo out; echo err >&2; exit 4");
    assert_eq!(fs::read_to_string(&fifo).unwrap(), "done\n");
    assert_eq!(fs::read_to_string(&said).unwrap(), format!("out\nerr\nkey {id} default\n"));
    events.until(&id, "exit");
    assert_eq!(daemon.delete(&id), 4);
}

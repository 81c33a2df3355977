//! containerd, as Debian ships it, with its own shim and `--runc-binary`: what `ctr` does,
//! through our runtime.

use std::process::ExitCode;
use std::time::Duration;

use carrack_judges::{Caller, Containerd, IMAGE, missing, runtime, write_image};
use carrack_testkit::{Journey, eventually};

/// A client that starts containers with our runtime.
struct Client {
    ctr: Caller,
    options: String,
}

impl Client {
    fn run(&self, options: &str, id: &str) -> String {
        format!("run {} {options} {IMAGE} {id}", self.options)
    }

    fn status(&self, id: &str) -> String {
        let listed = self.ctr.run("task ls").expect_ok();
        let line = listed.lines().find(|line| line.starts_with(id)).unwrap_or_default();
        line.split_ascii_whitespace().last().unwrap_or_default().to_owned()
    }

    fn becomes(&self, id: &str, status: &str) {
        eventually(status, Duration::from_secs(20), || (self.status(id) == status).then_some(()));
    }
}

fn main() -> ExitCode {
    if missing(&["containerd", "ctr", "containerd-shim-runc-v2", "busybox", "script"]) {
        return ExitCode::SUCCESS;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let daemon = Containerd::start(directory.path());
    let address = daemon.socket.display().to_string();
    let options = format!(
        "--runtime io.containerd.runc.v2 --runc-binary {} --snapshotter native",
        runtime().display()
    );
    let ctr = Caller::new("ctr", &["--address", &address, "--namespace", "judges"]);
    let client = Client { ctr, options };
    let mut journey = Journey::default();
    journey.required("ctr runs a program", || {
        let image = write_image(directory.path());
        client
            .ctr
            .run(&format!("image import --snapshotter native {}", image.display()))
            .expect_ok();
        let said = client.ctr.script(&client.run("--rm", "first"), "echo hello").expect_ok();
        assert_eq!(said.trim(), "hello");
    });
    running(&mut journey, &client);
    keeping(&mut journey, &client);
    journey.end()
}

fn running(journey: &mut Journey, client: &Client) {
    journey.step("ctr run ends with the program's code, and says what is missing", || {
        assert_eq!(client.ctr.script(&client.run("--rm", "code"), "exit 7").code, 7);
        let said = client.ctr.run_with(&client.run("--rm", "missing"), &["nosuch"]);
        assert!(said.stderr.contains("executable file not found in $PATH"), "{said:?}");
    });
    journey.step("ctr run -t gives a terminal", || {
        let said = client.ctr.on_terminal(&client.run("--rm -t", "tty"), "tty");
        assert!(said.stdout.contains("/dev/pts/0"), "{said:?}");
    });
    journey.step("ctr run sets what its options name", || {
        let mount = "--mount type=bind,src=/etc,dst=/m,options=rbind:ro";
        let options = format!("--rm --read-only --env A=b --cwd /tmp {mount}");
        let script = "echo $A; pwd; touch /x 2>/dev/null || touch /m/x 2>/dev/null || echo no";
        let said = client.ctr.script(&client.run(&options, "options"), script).expect_ok();
        assert_eq!(said.trim(), "b\n/tmp\nno");
        let script = "grep Seccomp: /proc/self/status | awk '{print $2}'";
        let said = client.ctr.script(&client.run("--rm --seccomp", "seccomp"), script).expect_ok();
        assert_eq!(said.trim(), "2");
    });
    journey.step("ctr task exec runs programs in a container", || {
        let script = "trap 'exit 3' TERM; while :; do sleep 0.1; done";
        client.ctr.script(&client.run("-d", "one"), script).expect_ok();
        assert_eq!(client.ctr.script("task exec --exec-id e one", "exit 5").code, 5);
        let line = "task exec --user 1000:1000 --cwd /tmp --exec-id e one";
        let said = client.ctr.script(line, "id -u; pwd").expect_ok();
        assert_eq!(said.trim(), "1000\n/tmp");
        let said = client.ctr.on_terminal("task exec -t --exec-id e one", "tty; sleep 0.2");
        assert!(said.stdout.contains("/dev/pts/0"), "{said:?}");
    });
}

fn keeping(journey: &mut Journey, client: &Client) {
    journey.step("ctr task ps and metrics see into a container", || {
        assert!(client.ctr.run("task ps one").expect_ok().lines().count() > 1);
        assert!(client.ctr.run("task metrics one").expect_ok().contains("pids.current"));
    });
    journey.step("ctr task pause and resume hold a container", || {
        client.ctr.run("task pause one").expect_ok();
        assert_eq!(client.status("one"), "PAUSED");
        client.ctr.run("task resume one").expect_ok();
        assert_eq!(client.status("one"), "RUNNING");
    });
    journey.step("ctr task kill ends the program, and rm takes all away", || {
        client.ctr.run("task kill --signal TERM one").expect_ok();
        client.becomes("one", "STOPPED");
        let removed = client.ctr.run("task rm one");
        assert!(removed.stderr.contains("exit code 3"), "{removed:?}");
        client.ctr.run("container rm one").expect_ok();
        client.ctr.script(&client.run("-d", "one"), "exec sleep 100").expect_ok();
        client.ctr.run("task rm --force one").expect_ok();
        client.ctr.run("container rm one").expect_ok();
    });
    journey.step("a container that outgrows its memory ends", || {
        let hog = "x=$(head -c 60000000 /dev/zero | tr '\\0' a); echo $x | wc -c";
        let line = client.run("--rm --memory-limit 16777216", "hog");
        assert_eq!(client.ctr.script(&line, hog).code, 137);
    });
}

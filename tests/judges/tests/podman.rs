//! Podman, as Debian ships it, with `--runtime`: what its users do, through our runtime.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use carrack_judges::{Caller, IMAGE, missing, runtime, write_layer};
use carrack_testkit::{Journey, eventually};

/// Podman on storage of its own. Its users' hard limits cannot be raised here, so the
/// defaults are named.
fn podman(directory: &Path) -> Caller {
    let place = |name: &str| directory.join(name).display().to_string();
    let settings = directory.join("containers.conf");
    let text = "[containers]\ndefault_ulimits = [\"nofile=20000:20000\", \"nproc=1000:1000\"]\n\
                netns = \"none\"\n";
    fs::write(&settings, text).expect("settings");
    let runtime = runtime().display().to_string();
    let arguments = [
        ("--root", place("root")),
        ("--runroot", place("run")),
        ("--tmpdir", place("tmp")),
        ("--storage-driver", "vfs".into()),
        ("--cgroup-manager", "cgroupfs".into()),
        ("--events-backend", "file".into()),
        ("--runtime", runtime),
    ];
    let words: Vec<&str> =
        arguments.iter().flat_map(|(name, value)| [*name, value.as_str()]).collect();
    Caller::new("podman", &words).variable("CONTAINERS_CONF", settings.display().to_string())
}

#[track_caller]
fn says(caller: &Caller, line: &str, script: &str, expected: &str) {
    let line = format!("run --rm {line} {IMAGE}");
    let said = caller.script(&line, script).expect_ok();
    assert_eq!(said.trim(), expected, "{line}");
}

const LASTING: &str = "trap 'echo bye; exit 3' TERM; trap 'echo user' USR1; echo up; \
                       while :; do sleep 0.1; done";

#[track_caller]
fn lasting(caller: &Caller, name: &str, options: &str) {
    caller.script(&format!("run -d --name {name} {options} {IMAGE}"), LASTING).expect_ok();
    logs(caller, name, "up");
}

fn logs(caller: &Caller, name: &str, word: &str) {
    eventually(word, Duration::from_secs(20), || {
        caller.run(&format!("logs {name}")).stdout.contains(word).then_some(())
    });
}

fn inspected(caller: &Caller, name: &str, format: &str) -> String {
    caller.run_with("inspect", &["--format", format, name]).expect_ok().trim().to_owned()
}

fn main() -> ExitCode {
    if missing(&["podman", "conmon", "busybox", "script"]) {
        return ExitCode::SUCCESS;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let podman = podman(directory.path());
    let mut journey = Journey::default();
    journey.required("podman runs a program", || {
        let layer = write_layer(directory.path());
        podman.run(&format!("import {} {IMAGE}", layer.display())).expect_ok();
        says(&podman, "", "echo hello", "hello");
    });
    running(&mut journey, &podman);
    keeping(&mut journey, &podman);
    confining(&mut journey, &podman, directory.path());
    pods(&mut journey, &podman);
    podman.run("rm --all --force --time 0");
    podman.run("system reset --force");
    journey.end()
}

fn running(journey: &mut Journey, podman: &Caller) {
    journey.step("podman run ends with the program's code, 127 or 126", || {
        let code = |words: &[&str]| podman.run_with(&format!("run --rm {IMAGE}"), words).code;
        assert_eq!(code(&["sh", "-c", "exit 7"]), 7);
        assert_eq!(code(&["nosuch"]), 127);
        assert_eq!(code(&["/no/such"]), 127);
        assert_eq!(code(&["/proc/version"]), 126);
    });
    journey.step("podman run -t gives a terminal", || {
        let said = podman.on_terminal(&format!("run --rm -t {IMAGE}"), "tty; test -t 0 && echo is");
        assert!(said.stdout.contains("/dev/pts/0"), "{said:?}");
        assert!(said.stdout.contains("is"), "{said:?}");
    });
    journey.step("podman exec runs programs in a container, as asked", || {
        lasting(podman, "exec", "");
        assert_eq!(podman.script("exec exec", "exit 5").code, 5);
        assert_eq!(podman.run("exec exec nosuch").code, 127);
        let said = podman.script("exec -u user -w /tmp -e A=b exec", "id -u; pwd; echo $A");
        assert_eq!(said.expect_ok().trim(), "1000\n/tmp\nb");
        let said = podman.on_terminal("exec -t exec", "tty");
        assert!(said.stdout.contains("/dev/pts/0"), "{said:?}");
        podman.run("exec -d exec touch /made").expect_ok();
        eventually("/made", Duration::from_secs(10), || {
            (podman.run("exec exec test -e /made").code == 0).then_some(())
        });
    });
    journey.step("podman top, stats and cp see into a container", || {
        assert!(podman.run("top exec").expect_ok().contains("sleep 0.1"));
        let stats = podman.run("stats --no-stream --format {{.PIDS}} exec").expect_ok();
        assert!(stats.trim().parse::<u32>().is_ok_and(|count| count > 0), "{stats}");
        podman.run("cp /etc/hostname exec:/copied").expect_ok();
        let copied = podman.run("exec exec cat /copied").expect_ok();
        assert_eq!(copied, fs::read_to_string("/etc/hostname").expect("a name"));
    });
}

fn keeping(journey: &mut Journey, podman: &Caller) {
    journey.step("podman pause and unpause hold a container", || {
        podman.run("pause exec").expect_ok();
        assert_eq!(inspected(podman, "exec", "{{.State.Status}}"), "paused");
        podman.run("unpause exec").expect_ok();
        assert_eq!(inspected(podman, "exec", "{{.State.Status}}"), "running");
    });
    journey.step("podman kill, stop and logs reach the program", || {
        podman.run("kill --signal USR1 exec").expect_ok();
        logs(podman, "exec", "user");
        podman.run("stop --time 20 exec").expect_ok();
        assert_eq!(inspected(podman, "exec", "{{.State.Status}} {{.State.ExitCode}}"), "exited 3");
        logs(podman, "exec", "bye");
    });
    journey.step("podman start, restart, update and rm go on from there", || {
        podman.run("start exec").expect_ok();
        podman.run("restart --time 20 exec").expect_ok();
        podman.run("update --memory 64m exec").expect_ok();
        let files = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || \
                     cat /sys/fs/cgroup/memory.max";
        assert_eq!(podman.script("exec exec", files).expect_ok().trim(), "67108864");
        podman.run("rm --force --time 0 exec").expect_ok();
    });
    journey.step("podman ends a container that outgrows its memory", || {
        let hog = "x=$(head -c 60000000 /dev/zero | tr '\\0' a); echo $x | wc -c";
        let said = podman.script(&format!("run --rm --memory 16m {IMAGE}"), hog);
        assert_eq!(said.code, 137, "{said:?}");
    });
    journey.step("podman healthcheck tells sound from unsound", || {
        let check = ["--health-cmd", "test -e /sound", IMAGE, "sleep", "100"];
        podman.run_with("run -d --name health --health-interval disable", &check).expect_ok();
        assert_eq!(podman.run("healthcheck run health").code, 1);
        podman.run("exec health touch /sound").expect_ok();
        podman.run("healthcheck run health").expect_ok();
        podman.run("rm --force --time 0 health").expect_ok();
    });
}

fn confining(journey: &mut Journey, podman: &Caller, directory: &Path) {
    journey.step("podman --init reaps in front of the program", || {
        let said = podman.script(&format!("run --rm --init {IMAGE}"), "cat /proc/1/comm");
        // Debian splits the init program off into a package of its own.
        let lacks = said.stderr.contains("container-init binary not found");
        assert!(lacks || said.stdout.trim() == "podman-init", "{said:?}");
    });
    journey.step("podman --read-only and --tmpfs decide what can be written", || {
        let options = "--read-only --tmpfs /data:size=1m,mode=700,noexec";
        let script = "touch /x 2>/dev/null || echo no; touch /tmp/y && echo tmp; \
                      stat -c %a /data; grep -c ' /data .*noexec' /proc/mounts";
        says(podman, options, script, "no\ntmp\n700\n1");
    });
    journey.step("podman -v mounts with its options", || {
        let source = directory.join("volume");
        fs::create_dir_all(&source).expect("a directory");
        let options = format!("-v {}:/m:ro,nosuid,rprivate -v named:/v", source.display());
        let script = "touch /m/x 2>/dev/null || echo no; touch /v/x && echo yes; \
                      grep -c ' /m .*ro,nosuid' /proc/mounts";
        says(podman, &options, script, "no\nyes\n1");
    });
    journey.step("podman maps users", || {
        let options = "--uidmap 0:100000:1000 --gidmap 0:100000:1000";
        let script = "id -u; touch /x && echo mine; awk '{print $2}' /proc/self/uid_map";
        says(podman, options, script, "0\nmine\n100000");
    });
    journey.step("podman takes and gives privileges", || {
        let status = |word: &str| format!("grep {word} /proc/self/status | awk '{{print $2}}'");
        says(podman, "--security-opt no-new-privileges", &status("NoNewPrivs"), "1");
        says(podman, "", &status("Seccomp:"), "2");
        says(podman, "--security-opt seccomp=unconfined", &status("Seccomp:"), "0");
        let capabilities = "--cap-drop all --cap-add NET_ADMIN";
        says(podman, capabilities, &status("CapEff"), "0000000000001000");
        says(podman, "-u 1000:1000 --group-add 5", "id -u; id -G", "1000\n1000 5");
    });
    journey.step("podman sets limits, settings, names and devices", || {
        says(podman, "--sysctl net.ipv4.ip_forward=1", "cat /proc/sys/net/ipv4/ip_forward", "1");
        says(
            podman,
            "--ulimit nofile=100:200 --ulimit nproc=1000:1000",
            "ulimit -n; ulimit -Hn",
            "100\n200",
        );
        says(podman, "--hostname named", "hostname", "named");
        says(podman, "--device /dev/null:/dev/hole:r", "stat -c '%t:%T' /dev/hole", "1:3");
        let script = "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max";
        says(podman, "--pids-limit 7", script, "7");
        says(podman, "--oom-score-adj 500", "cat /proc/self/oom_score_adj", "500");
        says(podman, "--security-opt mask=/etc/group", "wc -c < /etc/group", "0");
    });
}

fn pods(journey: &mut Journey, podman: &Caller) {
    journey.step("containers of a podman pod share what a pod shares", || {
        let infra = "--infra-image docker.io/library/busy:1";
        podman
            .run_with(&format!("pod create --name pod {infra} --infra-command"), &["sleep 1000"])
            .expect_ok();
        let script = "echo shared > /dev/shm/file; exec sleep 1000";
        podman.script(&format!("run -d --pod pod --name one {IMAGE}"), script).expect_ok();
        eventually("/dev/shm/file", Duration::from_secs(10), || {
            let said = podman.script(&format!("run --rm --pod pod {IMAGE}"), "cat /dev/shm/file");
            (said.stdout.trim() == "shared").then_some(())
        });
        // Podman cannot remove a pod's group where hugetlb has no hierarchy of version 1,
        // whatever the runtime; its containers go.
        podman.run("rm --force --time 0 one").expect_ok();
        podman.run("pod rm --force --time 0 pod");
        podman.run("rm --force --all --time 0").expect_ok();
        assert_eq!(podman.run("ps -aq").expect_ok().trim(), "");
    });
}

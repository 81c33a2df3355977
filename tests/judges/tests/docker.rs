//! Docker's engine, as Debian ships it, with `--add-runtime`: what its users do, through our
//! runtime.

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use carrack_judges::{Caller, Dockerd, IMAGE, missing, write_layer};
use carrack_testkit::{Journey, eventually};

const OURS: &str = "--runtime carrack --network none";

#[track_caller]
fn says(docker: &Caller, options: &str, script: &str, expected: &str) {
    let line = format!("run --rm {OURS} {options} {IMAGE}");
    assert_eq!(docker.script(&line, script).expect_ok().trim(), expected, "{line}");
}

fn logs(docker: &Caller, name: &str, word: &str) {
    eventually(word, Duration::from_secs(20), || {
        docker.run(&format!("logs {name}")).stdout.contains(word).then_some(())
    });
}

fn inspected(docker: &Caller, name: &str, format: &str) -> String {
    docker.run_with("inspect", &["--format", format, name]).expect_ok().trim().to_owned()
}

fn main() -> ExitCode {
    if missing(&["docker", "dockerd", "containerd", "busybox", "script"]) {
        return ExitCode::SUCCESS;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let engine = Dockerd::start(directory.path());
    let host = format!("unix://{}", engine.socket.display());
    let docker = Caller::new("docker", &["--host", &host]);
    let mut journey = Journey::default();
    journey.required("docker runs a program", || {
        let layer = write_layer(directory.path());
        docker.run(&format!("import {} {IMAGE}", layer.display())).expect_ok();
        says(&docker, "", "echo hello", "hello");
    });
    running(&mut journey, &docker);
    keeping(&mut journey, &docker);
    confining(&mut journey, &docker);
    journey.end()
}

fn running(journey: &mut Journey, docker: &Caller) {
    journey.step("docker run ends with the program's code, 127 or 126", || {
        let code =
            |words: &[&str]| docker.run_with(&format!("run --rm {OURS} {IMAGE}"), words).code;
        assert_eq!(code(&["sh", "-c", "exit 7"]), 7);
        assert_eq!(code(&["nosuch"]), 127);
        assert_eq!(code(&["/proc/version"]), 126);
    });
    journey.step("docker run -t gives a terminal", || {
        let said = docker.on_terminal(&format!("run --rm -t {OURS} {IMAGE}"), "tty");
        assert!(said.stdout.contains("/dev/pts/0"), "{said:?}");
    });
    journey.step("docker exec runs programs in a container, as asked", || {
        let script = "trap 'echo bye; exit 3' TERM; trap 'echo user' USR1; echo up; \
                      while :; do sleep 0.1; done";
        docker.script(&format!("run -d --name one {OURS} {IMAGE}"), script).expect_ok();
        logs(docker, "one", "up");
        assert_eq!(docker.script("exec one", "exit 5").code, 5);
        assert_eq!(docker.run("exec one nosuch").code, 126);
        let said = docker.script("exec -u user -w /tmp -e A=b one", "id -u; pwd; echo $A");
        assert_eq!(said.expect_ok().trim(), "1000\n/tmp\nb");
        let said = docker.on_terminal("exec -t one", "tty");
        assert!(said.stdout.contains("/dev/pts/0"), "{said:?}");
    });
    journey.step("docker top, stats and cp see into a container", || {
        assert!(docker.run("top one").expect_ok().contains("sleep 0.1"));
        let stats = docker.run("stats --no-stream --format {{.PIDs}} one").expect_ok();
        assert!(stats.trim().parse::<u32>().is_ok_and(|count| count > 0), "{stats}");
        docker.run("cp /etc/hostname one:/copied").expect_ok();
        let copied = docker.run("exec one cat /copied").expect_ok();
        assert_eq!(copied, fs::read_to_string("/etc/hostname").expect("a name"));
    });
}

fn keeping(journey: &mut Journey, docker: &Caller) {
    journey.step("docker pause and unpause hold a container", || {
        docker.run("pause one").expect_ok();
        assert_eq!(inspected(docker, "one", "{{.State.Status}}"), "paused");
        docker.run("unpause one").expect_ok();
        assert_eq!(inspected(docker, "one", "{{.State.Status}}"), "running");
    });
    journey.step("docker update changes what a container may use", || {
        let limits = "--memory 64m --memory-swap 64m --cpus 0.5 --pids-limit 50";
        docker.run(&format!("update {limits} one")).expect_ok();
        let files = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || \
                     cat /sys/fs/cgroup/memory.max";
        assert_eq!(docker.script("exec one", files).expect_ok().trim(), "67108864");
    });
    journey.step("docker kill, stop and logs reach the program", || {
        docker.run("kill --signal USR1 one").expect_ok();
        logs(docker, "one", "user");
        docker.run("stop --time 20 one").expect_ok();
        assert_eq!(inspected(docker, "one", "{{.State.Status}} {{.State.ExitCode}}"), "exited 3");
        logs(docker, "one", "bye");
    });
    journey.step("docker start, restart and rm go on from there", || {
        docker.run("start one").expect_ok();
        docker.run("restart --time 20 one").expect_ok();
        assert_eq!(inspected(docker, "one", "{{.State.Status}}"), "running");
        docker.run("rm --force one").expect_ok();
    });
    journey.step("docker tells that a container outgrew its memory", || {
        let hog = "x=$(head -c 60000000 /dev/zero | tr '\\0' a); echo $x | wc -c";
        let line = format!("run --name hog --memory 16m {OURS} {IMAGE}");
        assert_eq!(docker.script(&line, hog).code, 137);
        assert_eq!(inspected(docker, "hog", "{{.State.OOMKilled}}"), "true");
        docker.run("rm hog").expect_ok();
    });
    journey.step("docker watches a container's health", || {
        let line = format!("run -d --name health {OURS} --health-interval 1s --health-cmd");
        docker.run_with(&line, &["test -e /etc/passwd", IMAGE, "sleep", "100"]).expect_ok();
        eventually("health", Duration::from_secs(20), || {
            (inspected(docker, "health", "{{.State.Health.Status}}") == "healthy").then_some(())
        });
        docker.run("rm --force health").expect_ok();
    });
}

fn confining(journey: &mut Journey, docker: &Caller) {
    journey.step("docker --init reaps in front of the program", || {
        let said = docker.script(&format!("run --rm --init {OURS} {IMAGE}"), "cat /proc/1/comm");
        // Debian splits the init program off into a package of its own.
        let lacks = said.stderr.contains("docker-init");
        assert!(lacks || said.stdout.trim() == "docker-init", "{said:?}");
    });
    journey.step("docker --read-only, --tmpfs and -v decide what can be written", || {
        let options = "--read-only --tmpfs /data:size=1m,mode=700 -v named:/v -v /etc:/m:ro";
        let script = "touch /x 2>/dev/null || echo no; touch /m/x 2>/dev/null || echo no; \
                      touch /v/x && echo yes; stat -c %a /data";
        says(docker, options, script, "no\nno\nyes\n700");
    });
    journey.step("docker takes and gives privileges", || {
        let status = |word: &str| format!("grep {word} /proc/self/status | awk '{{print $2}}'");
        says(docker, "--security-opt no-new-privileges", &status("NoNewPrivs"), "1");
        says(docker, "", &status("Seccomp:"), "2");
        says(docker, "--cap-drop all --cap-add NET_ADMIN", &status("CapEff"), "0000000000001000");
        says(docker, "-u 1000:1000 --group-add 5", "id -u", "1000");
    });
    journey.step("docker sets limits, settings, names and devices", || {
        says(docker, "--sysctl net.ipv4.ip_forward=1", "cat /proc/sys/net/ipv4/ip_forward", "1");
        says(docker, "--ulimit nofile=100:200", "ulimit -n; ulimit -Hn", "100\n200");
        says(docker, "--hostname named -w /new/place", "hostname; pwd", "named\n/new/place");
        says(docker, "--device /dev/null:/dev/hole:r", "stat -c '%t:%T' /dev/hole", "1:3");
        let script = "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max";
        says(docker, "--pids-limit 7", script, "7");
        says(docker, "--oom-score-adj 500", "cat /proc/self/oom_score_adj", "500");
    });
}

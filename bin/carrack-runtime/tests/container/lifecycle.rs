use std::fs;

use serde_json::json;

use crate::support::Bundle;

#[test]
fn a_container_goes_from_created_to_running_to_stopped_to_gone() {
    let Some(bundle) = Bundle::program(&["/bin/sleep", "60"]) else { return };
    bundle.runtime(&["create", "--pid-file", "pid", &bundle.id]).ok();
    let state = bundle.state();
    assert_eq!(state["status"], "created");
    let pid = fs::read_to_string(bundle.path().join("pid")).unwrap();
    assert_eq!(state["pid"].to_string(), pid);
    let mut again = bundle.command(&["create", &bundle.id]);
    let again = String::from_utf8_lossy(&again.output().unwrap().stderr).into_owned();
    assert!(again.contains("exists already"), "{again}");

    bundle.runtime(&["start", &bundle.id]).ok();
    assert_eq!(bundle.status(), "running");
    bundle.runtime(&["start", &bundle.id]).fails_with(&["is running"]);
    bundle.runtime(&["delete", &bundle.id]).fails_with(&["is running", "stop it first"]);

    bundle.runtime(&["kill", &bundle.id, "KILL"]).ok();
    bundle.wait();
    assert_eq!(bundle.status(), "stopped");
    bundle.runtime(&["kill", &bundle.id, "TERM"]).fails_with(&["is stopped"]);
    bundle.runtime(&["delete", &bundle.id]).ok();
    bundle.runtime(&["state", &bundle.id]).fails_with(&["does not exist"]);
    assert_eq!(bundle.runtime(&["list", "--quiet"]).ok(), "");
}

#[test]
fn the_exit_code_of_the_program_is_the_exit_code_of_run() {
    let Some(bundle) = Bundle::script("exit 42") else { return };
    assert_eq!(bundle.run().code, 42);
    let Some(bundle) = Bundle::script("kill -9 $$ ; sleep 5") else { return };
    // Process 1 is spared its own signals.
    assert_eq!(bundle.config["linux"]["namespaces"].as_array().unwrap().len(), 6);
    drop(bundle);
}

#[test]
fn deleting_by_force_kills_everything_and_leaves_no_group() {
    let Some(bundle) = Bundle::script("sleep 60 & sleep 60 & wait") else { return };
    bundle.started();
    bundle.runtime(&["delete", "--force", &bundle.id]).ok();
    bundle.runtime(&["state", &bundle.id]).fails_with(&["does not exist"]);
    let group = format!("/sys/fs/cgroup/pids/carrack-test-{}", bundle.id);
    assert!(!fs::exists(group).unwrap());
    // Once more is fine: it is gone.
    bundle.runtime(&["delete", "--force", &bundle.id]).ok();
}

#[test]
fn a_container_without_pid_namespace_is_killed_whole() {
    let Some(mut bundle) = Bundle::script("sleep 67 & sleep 67 & wait") else { return };
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    bundle.started();
    bundle.runtime(&["kill", "--all", &bundle.id, "KILL"]).ok();
    bundle.wait();
    bundle.runtime(&["delete", &bundle.id]).ok();
}

#[test]
fn a_paused_container_stands_still_and_goes_on() {
    let Some(bundle) = Bundle::program(&["/bin/sleep", "60"]) else { return };
    bundle.started();
    bundle.runtime(&["resume", &bundle.id]).fails_with(&["is running"]);
    bundle.runtime(&["pause", &bundle.id]).ok();
    assert_eq!(bundle.status(), "paused");
    bundle.runtime(&["resume", &bundle.id]).ok();
    assert_eq!(bundle.status(), "running");
    bundle.runtime(&["pause", &bundle.id]).ok();
    bundle.runtime(&["delete", "--force", &bundle.id]).ok();
}

#[test]
fn hooks_run_in_order_and_are_told_the_state() {
    let Some(mut bundle) = Bundle::script("cat /hooked") else { return };
    let log = bundle.path().join("hooks");
    let hook = |name: &str| {
        let script = format!("echo {name} $(grep -o '\"status\":\"[a-z]*\"') >> {}", log.display());
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"] }])
    };
    let inside = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "echo inside > /hooked"] }]);
    bundle.config["hooks"] = json!({
        "prestart": hook("prestart"), "createRuntime": hook("createRuntime"),
        "createContainer": hook("createContainer"), "startContainer": inside,
        "poststart": hook("poststart"), "poststop": hook("poststop"),
    });
    assert_eq!(bundle.run().ok(), "inside\n");
    let seen = fs::read_to_string(log).unwrap();
    let seen: Vec<&str> = seen.lines().collect();
    assert_eq!(
        seen,
        [
            "prestart \"status\":\"created\"",
            "createRuntime \"status\":\"creating\"",
            "createContainer \"status\":\"creating\"",
            "poststart \"status\":\"running\"",
            "poststop \"status\":\"stopped\"",
        ]
    );
}

#[test]
fn a_failing_hook_or_one_that_takes_too_long_stops_the_creation() {
    let Some(mut bundle) = Bundle::program(&["/bin/true"]) else { return };
    bundle.config["hooks"] = json!({ "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", "echo no luck >&2; exit 3"] }] });
    bundle.run().fails_with(&["createRuntime hook /bin/sh", "code 3", "no luck"]);
    bundle.config["hooks"] = json!({ "createContainer": [{ "path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1 }] });
    bundle.run().fails_with(&["createContainer hook /bin/sleep", "timeout of 1 s"]);
    bundle.runtime(&["state", &bundle.id]).fails_with(&["does not exist"]);
}

#[test]
fn a_configuration_that_cannot_be_done_names_every_problem() {
    let Some(mut bundle) = Bundle::program(&["/bin/true"]) else { return };
    bundle.config["linux"]["intelRdt"] = json!({ "closID": "x" });
    bundle.config["process"]["cwd"] = json!("relative");
    bundle.config["linux"]["sysctl"] = json!({ "vm.swappiness": "1" });
    bundle.mounts().push(json!({ "destination": "/x", "type": "tmpfs", "options": ["mand"] }));
    bundle.run().fails_with(&["linux.intelRdt", "process.cwd", "vm.swappiness", "mand", "mounts["]);
    bundle.runtime(&["state", &bundle.id]).fails_with(&["does not exist"]);
}

#[test]
fn the_log_has_the_error_as_json() {
    let Some(bundle) = Bundle::program(&["/bin/true"]) else { return };
    let log = bundle.path().join("log.json");
    let log_text = log.to_str().unwrap();
    bundle
        .runtime(&["--log", log_text, "--log-format", "json", "state", "nope"])
        .fails_with(&["does not exist"]);
    let entry: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&log).unwrap()).unwrap();
    assert_eq!(entry["level"], "error");
    assert!(entry["msg"].as_str().unwrap().contains("nope"));
}

#[test]
fn descriptors_of_the_caller_do_not_reach_the_program_unless_asked_for() {
    use std::os::fd::AsRawFd;
    let Some(bundle) = Bundle::script("ls /proc/self/fd | wc -l; cat <&3") else { return };
    let file = fs::File::create_new(bundle.path().join("passed")).unwrap();
    fs::write(bundle.path().join("passed"), "through\n").unwrap();
    let open = |preserve: bool| {
        let reader = fs::File::open(bundle.path().join("passed")).unwrap();
        let raw = reader.as_raw_fd();
        let path = format!("exec 3</proc/self/fd/{raw} 7</dev/null; exec \"$@\"");
        let _kept = &reader;
        // The shell opens 3 and 7 for the runtime.
        let path = path.replace(
            &format!("/proc/self/fd/{raw}"),
            bundle.path().join("passed").to_str().unwrap(),
        );
        let mut inner = bundle.command(&[
            "run",
            "--preserve-fds",
            if preserve { "1" } else { "0" },
            &bundle.id,
        ]);
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &path, "sh"]).arg(inner.get_program()).args(inner.get_args());
        shell.current_dir(bundle.path()).output().map(|output| {
            inner.stdin(std::process::Stdio::null());
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    };
    drop(file);
    // 0, 1, 2, the directory itself, and 3 where it was asked for.
    assert_eq!(open(false).unwrap().lines().next(), Some("4"));
    assert_eq!(open(true).unwrap(), "5\nthrough\n");
}

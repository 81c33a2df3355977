//! Descriptors of the host that reach the container, and directories named through them.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::{fs, io};

use carrack_conformance::{Bundle, Canaries, Said};
use serde_json::{Value, json};

/// A command of the runtime whose caller leaves descriptors 3 to 9 open: the root of the
/// host, and the canaries.
fn leaking(bundle: &Bundle, canaries: &Canaries, arguments: &[&str]) -> Said {
    let plain = bundle.command(arguments);
    let place = canaries.path().display();
    let script = format!(
        "exec 3</ 4<{place} 5<{place}/empty 6<{place}/etc 7</sys/fs/cgroup 8</ 9<{place}; exec \"$@\""
    );
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &script, "sh"]).arg(plain.get_program()).args(plain.get_args());
    command.current_dir(canaries.path()).stdin(std::process::Stdio::null());
    if arguments.iter().any(|argument| matches!(*argument, "run" | "create")) {
        command.args(["--bundle"]).arg(bundle.path());
    }
    bundle.finish(command)
}

/// As `leaking`, with the id where every runtime takes it: last.
fn leaking_bundle(bundle: &Bundle, canaries: &Canaries, verb: &str) -> Said {
    let path = bundle.path().to_str().unwrap().to_owned();
    let plain = bundle.command(&[verb, "--bundle", &path, &bundle.id]);
    let place = canaries.path().display();
    let script = format!(
        "exec 3</ 4<{place} 5<{place}/empty 6<{place}/etc 7</sys/fs/cgroup 8</ 9<{place}; exec \"$@\""
    );
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &script, "sh"]).arg(plain.get_program()).args(plain.get_args());
    command.current_dir(canaries.path()).stdin(std::process::Stdio::null());
    bundle.finish(command)
}

/// What the shell itself has open.
const LIST: &str = "ls /proc/$$/fd; true";

#[test]
fn cve_2024_21626_a_program_has_its_three_streams_and_no_other_descriptor() {
    let canaries = Canaries::new();
    let Some(mut bundle) = Bundle::script(LIST) else { return };
    assert_eq!(leaking_bundle(&bundle, &canaries, "run").ok(), "0\n1\n2\n", "run");
    bundle.remove();
    bundle.rename();
    bundle.config["process"]["args"] = json!(["/bin/sh", "-c", "ls /proc/$$/fd; sleep 60"]);
    let created = leaking_bundle(&bundle, &canaries, "create");
    assert_eq!(created.code, 0, "{created:?}");
    assert_eq!(of_the_host(bundle.pid(), &canaries), Vec::<String>::new(), "while it waits");
    leaking(&bundle, &canaries, &["start", &bundle.id]).ok();
    let said = leaking(&bundle, &canaries, &["exec", &bundle.id, "/bin/sh", "-c", LIST]).ok();
    assert_eq!(said, "0\n1\n2\n", "exec");
    assert_eq!(of_the_host(bundle.pid(), &canaries), Vec::<String>::new(), "while it runs");
}

/// A process's descriptors from 3 up that are directories or files of the host's.
fn of_the_host(pid: i32, canaries: &Canaries) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let link = |entry: io::Result<fs::DirEntry>| fs::read_link(entry.ok()?.path()).ok();
    entries
        .filter_map(link)
        .filter(|path| path.starts_with(canaries.path()) || path == Path::new("/sys/fs/cgroup"))
        .map(|path| path.display().to_string())
        .collect()
}

#[test]
fn descriptors_asked_for_are_kept_and_no_further_one() {
    let Some(bundle) = Bundle::script(LIST) else { return };
    let plain = bundle.command(&["run", "--preserve-fds", "2", &bundle.id]);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec 3</dev/null 4</dev/null 5</ 6</; exec \"$@\"", "sh"]);
    command.arg(plain.get_program()).args(plain.get_args()).current_dir(bundle.path());
    assert_eq!(bundle.finish(command).ok(), "0\n1\n2\n3\n4\n");
}

/// Reads a canary from wherever the working directory is, if that is on the host.
fn reading(canaries: &Canaries) -> String {
    let place = canaries.path().display();
    format!("cat secret ../secret ./../../../../../../../../..{place}/secret 2>/dev/null; true")
}

#[test]
fn cve_2024_21626_no_working_directory_leads_through_a_descriptor() {
    let canaries = Canaries::new();
    let Some(mut bundle) = Bundle::script(&reading(&canaries)) else { return };
    for number in 3..24 {
        symlink(format!("/proc/self/fd/{number}"), bundle.root().join(format!("way{number}")))
            .unwrap();
        for cwd in [format!("/proc/self/fd/{number}"), format!("/way{number}")] {
            bundle.config["process"]["cwd"] = json!(cwd);
            bundle.rename();
            let said = leaking_bundle(&bundle, &canaries, "run");
            bundle.remove();
            assert!(!said.out.contains("the host's"), "through {cwd}: {said:?}");
        }
    }
}

#[test]
fn cve_2024_21626_no_working_directory_of_exec_leads_through_a_descriptor() {
    let canaries = Canaries::new();
    let Some(bundle) = Bundle::program(&["/bin/sleep", "60"]) else { return };
    bundle.started();
    let script = reading(&canaries);
    for number in 3..24 {
        let link = bundle.root().join(format!("way{number}"));
        symlink(format!("/proc/self/fd/{number}"), link).unwrap();
        for cwd in [format!("/proc/self/fd/{number}"), format!("/way{number}")] {
            let exec = ["exec", "--cwd", &cwd, &bundle.id, "/bin/sh", "-c", &script];
            let said = leaking(&bundle, &canaries, &exec);
            assert!(!said.out.contains("the host's"), "through {cwd}: {said:?}");
            let mut process: Value = bundle.config["process"].clone();
            process["args"] = json!(["/bin/sh", "-c", script]);
            process["cwd"] = json!(cwd);
            let file = bundle.path().join("process.json");
            fs::write(&file, process.to_string()).unwrap();
            let exec = ["exec", "--process", file.to_str().unwrap(), &bundle.id];
            let said = leaking(&bundle, &canaries, &exec);
            assert!(!said.out.contains("the host's"), "by file, through {cwd}: {said:?}");
        }
    }
}

#[test]
fn cve_2016_9962_and_2020_14298_a_joining_process_cannot_be_looked_into() {
    let canaries = Canaries::new();
    let place = canaries.path().display();
    let script = format!(
        "while test ! -e /tmp/stop; do for p in /proc/[0-9]*; do \
         cat $p/cwd/secret $p/root{place}/secret $p/fd/4/secret $p/fd/3{place}/secret; \
         done; done 2>/dev/null"
    );
    let Some(bundle) = Bundle::script(&script) else { return };
    let output = bundle.path().join("seen");
    let mut create = bundle.command(&["create", &bundle.id]);
    let file = fs::File::create(&output).unwrap();
    create.stdout(file.try_clone().unwrap()).stderr(file);
    assert!(create.status().unwrap().success());
    bundle.runtime(&["start", &bundle.id]).ok();
    for _ in 0..20 {
        leaking(&bundle, &canaries, &["exec", &bundle.id, "/bin/true"]).ok();
    }
    // The container may end, and take this with it, before it has answered.
    bundle.runtime(&["exec", &bundle.id, "/bin/touch", "/tmp/stop"]);
    let seen = fs::read_to_string(output).unwrap();
    assert!(!seen.contains("the host's"), "{seen}");
}

//! The command line as callers of runc know it, apart from what a container does.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Bundle, RUNTIME};

/// Code, output and errors of the program without any container.
fn said(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(RUNTIME).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[test]
fn wrong_command_lines_end_with_the_codes_and_words_that_runc_has() {
    let root = "--root=/run/none";
    let cases: &[(&[&str], i32, &str)] = &[
        (&["frob"], 3, "No help topic for 'frob'"),
        (&["--bogus", "list"], 1, "flag provided but not defined: -bogus"),
        (&["state", "-bogus", "x"], 1, "flag provided but not defined: -bogus"),
        (&["state"], 1, "\"state\" requires exactly 1 argument(s)"),
        (&["kill"], 1, "\"kill\" requires a minimum of 1 argument(s)"),
        (&["kill", "a", "9", "b"], 1, "\"kill\" requires a maximum of 2 argument(s)"),
        (&["create", "--bundle"], 1, "flag needs an argument: --bundle"),
        (&["list", "--format", "yaml"], 1, "invalid format option"),
        (&["--log-format", "xml", "list"], 1, "invalid log-format: xml"),
        (&["--root", "/", "list"], 1, "--root argument should not be set to /"),
        (&["--root", "/nowhere/at/all", "list"], 1, "no such file or directory"),
        (&["--rootless", "perhaps", "list"], 1, "none of true, false and auto"),
        (&["--systemd-cgroup=maybe", "list"], 1, "neither true nor false"),
        (&[root, "kill", "none", "FROB"], 1, "unknown signal \"FROB\""),
        (&[root, "kill", "none", "65"], 1, "unknown signal \"65\""),
        (&[root, "state", "none"], 1, "container none does not exist"),
        (&[root, "state", "a/b"], 1, "container id \"a/b\" is not allowed"),
        (&[root, "state", ""], 1, "container id cannot be empty"),
        (&[root, "delete", "none"], 1, "does not exist"),
        (&[root, "delete", "--force", "none"], 0, ""),
        (&[root, "exec", "none", "true"], 255, "exec failed"),
        (&[root, "exec", "none"], 255, "exec args cannot be empty"),
        (&[root, "create", "--no-pivot", "none"], 1, "pivot_root"),
        (&[root, "update", "--mem-bw-schema", "x", "none"], 1, "Intel RDT"),
        (&[root, "update", "--memory", "1x", "none"], 1, "invalid size: '1x'"),
        (&[root, "update", "--cpu-quota", "many", "none"], 1, "invalid value for cpu-quota"),
        (&[root, "events", "--interval", "0s", "none"], 1, "greater than 0"),
        (&[root, "events", "--interval", "soon", "none"], 1, "is not a time"),
    ];
    for (arguments, code, words) in cases {
        let (ended, _, err) = said(arguments);
        assert_eq!(ended, *code, "for {arguments:?}: {err}");
        assert!(err.contains(words), "for {arguments:?}: {err}");
    }
}

#[test]
fn every_command_has_a_help_that_names_each_of_its_flags() {
    let cases = [
        (
            "checkpoint",
            "image-path work-path parent-path leave-running tcp-established ext-unix-sk shell-job \
             lazy-pages status-fd page-server file-locks pre-dump manage-cgroups-mode empty-ns \
             auto-dedup",
        ),
        (
            "create",
            "bundle console-socket pidfd-socket pid-file no-pivot no-new-keyring preserve-fds",
        ),
        ("delete", "force"),
        ("events", "interval stats"),
        (
            "exec",
            "console-socket cwd env tty user additional-gids process detach pid-file \
             process-label apparmor no-new-privs cap preserve-fds cgroup ignore-paused",
        ),
        ("features", ""),
        ("kill", "all"),
        ("list", "format quiet"),
        ("pause", ""),
        ("ps", "format"),
        (
            "restore",
            "image-path work-path detach pid-file no-subreaper lsm-profile lsm-mount-context",
        ),
        ("resume", ""),
        ("run", "bundle detach keep no-subreaper no-new-keyring preserve-fds pid-file"),
        ("spec", "bundle rootless"),
        ("start", ""),
        ("state", ""),
        (
            "update",
            "resources blkio-weight cpu-period cpu-quota cpu-burst cpu-rt-period cpu-rt-runtime \
             cpu-share cpu-idle cpuset-cpus cpuset-mems kernel-memory kernel-memory-tcp memory \
             memory-reservation memory-swap pids-limit l3-cache-schema mem-bw-schema",
        ),
    ];
    let (code, program, _) = said(&["--help"]);
    assert_eq!(code, 0);
    for (command, flags) in cases {
        assert!(program.contains(&format!("   {command} ")), "{command} is not in {program}");
        for way in [[command, "--help"], [command, "-h"], ["help", command]] {
            let (code, help, err) = said(&way);
            assert_eq!(code, 0, "for {way:?}: {err}");
            for flag in flags.split_ascii_whitespace() {
                assert!(help.contains(&format!("   --{flag}")), "--{flag} is not in {help}");
            }
        }
    }
}

#[test]
fn errors_are_appended_to_the_log_as_lines_of_json() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log.json");
    let path = log.to_str().unwrap();
    for _ in 0..2 {
        let arguments = ["--log", path, "--log-format=json", "--root", "/run/none", "start", "x"];
        assert_eq!(said(&arguments).0, 1);
    }
    let text = fs::read_to_string(&log).unwrap();
    let entries: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(entries.len(), 2, "{text}");
    for entry in entries {
        assert_eq!(entry["level"], "error");
        assert_eq!(entry["msg"], "starting a container: container x does not exist");
        let time = entry["time"].as_str().unwrap();
        assert!(time.len() == 20 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&log).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o644);
}

#[test]
fn an_error_is_on_standard_error_without_a_log_and_as_json_when_asked() {
    let (_, out, err) = said(&["--root", "/run/none", "state", "x"]);
    assert_eq!((out.as_str(), err.as_str()), ("", "carrack-runtime: container x does not exist\n"));
    let (_, _, err) = said(&["--log-format", "json", "--root", "/run/none", "state", "x"]);
    let entry: Value = serde_json::from_str(&err).unwrap();
    assert_eq!(entry["msg"], "container x does not exist");
}

#[test]
fn the_example_configuration_is_runcs_and_runs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    assert_eq!(said(&["spec", "--bundle", path]).0, 0);
    let (code, _, err) = said(&["spec", "--bundle", path]);
    assert!(code == 1 && err.contains("exists. Remove it first"), "{err}");
    let read = || -> Value {
        let text = fs::read(directory.path().join("config.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    let config = read();
    assert_eq!(config["process"]["args"], json!(["sh"]));
    assert_eq!(config["root"], json!({ "path": "rootfs", "readonly": true }));
    fs::remove_file(directory.path().join("config.json")).unwrap();
    assert_eq!(said(&["spec", "--rootless", "-b", path]).0, 0);
    let rootless = read();
    assert_eq!(rootless["linux"]["uidMappings"][0]["containerID"], 0);
    assert!(rootless["linux"]["resources"].is_null());
    let Some(mut bundle) = Bundle::script("") else { return };
    bundle.config = config;
    bundle.config["process"]["terminal"] = json!(false);
    bundle.config["process"]["args"] = json!(["echo", "example"]);
    assert_eq!(bundle.run().ok(), "example\n");
}

#[test]
fn a_checkpoint_is_refused_with_a_reason_and_the_container_runs_on() {
    let Some(bundle) = Bundle::program(&["/bin/sleep", "60"]) else { return };
    bundle.runtime(&["create", &bundle.id]).ok();
    bundle
        .runtime(&["checkpoint", &bundle.id])
        .fails_with(&["cannot be checkpointed in created state"]);
    bundle.runtime(&["start", &bundle.id]).ok();
    let cases: &[(&[&str], &str)] = &[
        (&["--parent-path", "/absolute"], "--parent-path must be relative"),
        (&["--parent-path", "nowhere"], "invalid --parent-path"),
        (&["--page-server", "here"], "ADDRESS:PORT"),
        (&["--manage-cgroups-mode", "all"], "none of soft, full, strict and ignore"),
        (&["--empty-ns", "pid"], "only network is"),
    ];
    for (flags, words) in cases {
        let mut arguments = vec!["checkpoint"];
        arguments.extend_from_slice(flags);
        arguments.push(&bundle.id);
        bundle.runtime(&arguments).fails_with(&[words]);
    }
    let mut without = bundle.command(&["checkpoint", &bundle.id]);
    let output = without.env("PATH", "/nowhere").output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.contains("install the package criu"), "{err}");
    assert_eq!(bundle.status(), "running");
    bundle
        .runtime(&["restore", "--image-path", "empty", "another"])
        .fails_with(&["there is no checkpoint"]);
}

#[test]
fn what_criu_complains_of_is_passed_on_with_the_place_of_its_log() {
    let Some(bundle) = Bundle::program(&["/bin/sleep", "60"]) else { return };
    bundle.started();
    // A criu that takes nothing but the log's place from its command line, and fails.
    let program = "#!/bin/sh\nwhile [ $1 != --work-dir ]; do shift; done\n\
                   echo '(00.1) Error (criu/kerndat.c:1): kerndat does not fit' > $2/dump.log\nexit 1\n";
    let directory = bundle.path().join("bin");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("criu"), program).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(directory.join("criu"), mode).unwrap();
    let mut command = bundle.command(&["checkpoint", "--image-path", "images", &bundle.id]);
    let path = format!("{}:/bin:/usr/bin", directory.display());
    let output = command.env("PATH", path).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    for words in ["images/dump.log", "kerndat does not fit", "install a newer criu"] {
        assert!(err.contains(words), "{words} is not in {err}");
    }
    assert_eq!(bundle.status(), "running");
}

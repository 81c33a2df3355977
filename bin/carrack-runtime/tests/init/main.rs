//! Process 1 as those who use it meet it: a small static file that starts a program.
//!
//! The terminal needs `setsid` of util-linux; the container needs root. Without them the
//! tests say so and pass.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may fail loudly, and says when it skips"
)]

mod contained;
mod signals;
mod support;
mod terminal;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use support::{Init, Said, container_of_its_own};

#[test]
fn it_is_static_and_smaller_than_100_kib() {
    let init = Init::new();
    let bytes = std::fs::read(init.path()).unwrap();
    assert!(bytes.len() < 100 << 10, "it has {} bytes", bytes.len());
    assert_eq!(bytes[..4], *b"\x7fELF");
    let headers = Command::new("readelf").args(["-lW"]).arg(init.path()).output().unwrap();
    let headers = String::from_utf8_lossy(&headers.stdout).into_owned();
    assert!(!headers.contains("INTERP") && !headers.contains("DYNAMIC"), "{headers}");
    assert_eq!(std::fs::metadata(init.path()).unwrap().permissions().mode() & 0o777, 0o755);
    let written = Command::new(support::RUNTIME).arg("init-program").output().unwrap();
    assert_eq!(written.stdout, bytes, "standard output is the same");
}

#[track_caller]
fn check(arguments: &[&str], code: i32, words: &[&str]) {
    let said = Said::of(&mut Init::new().command(arguments));
    assert_eq!(said.code, code, "{arguments:?}: {}{}", said.out, said.err);
    for word in words {
        assert!(said.err.contains(word), "{word:?} is not in {}", said.err);
    }
}

#[test]
fn it_ends_as_its_program_ends() {
    check(&["--", "true"], 0, &[]);
    check(&["--", "sh", "-c", "exit 42"], 42, &[]);
    check(&["--", "sh", "-c", "kill -TERM $$"], 128 + 15, &[]);
    check(&["--", "sh", "-c", "kill -KILL $$"], 128 + 9, &[]);
}

#[test]
fn a_program_that_cannot_be_executed_is_named_with_the_code_of_a_shell() {
    check(&["--", "no-such-program"], 127, &["no-such-program", "no such file"]);
    check(&["--", "/no/such/program"], 127, &["/no/such/program"]);
    check(&["--", "/etc/passwd"], 126, &["/etc/passwd", "permission denied"]);
    check(&["--", "/etc"], 126, &["/etc"]);
    check(&["/no/such", "zeroth"], 127, &["/no/such"]);
}

#[test]
fn a_wrong_command_line_is_125_and_says_what_to_write() {
    check(&[], 125, &["-- NAME ARGS"]);
    check(&["--"], 125, &["no program is named"]);
    check(&["sleep", "5"], 125, &["-- NAME ARGS"]);
    check(&["/bin/sleep"], 125, &["-- NAME ARGS"]);
    check(&["--no-such-option", "--", "true"], 125, &["--help"]);
}

#[test]
fn the_spelling_of_docker_and_the_one_of_the_runtime_both_work() {
    let init = Init::new();
    let version = Said::of(&mut init.command(&["--version"]));
    assert_eq!(version.out, concat!("carrack-init version ", env!("CARGO_PKG_VERSION"), "\n"));
    let script = "echo $0 $1 $FRUIT";
    let mut searched = init.command(&["--", "sh", "-c", script, "zero", "one"]);
    assert_eq!(Said::of(searched.env("FRUIT", "fig")).out, "zero one fig\n");
    let mut given = init.command(&["/bin/sh", "any-name", "-c", script, "zero", "one"]);
    assert_eq!(Said::of(given.env("FRUIT", "fig")).out, "zero one fig\n");
}

#[test]
fn a_program_is_looked_for_where_path_says() {
    let directory = tempfile::tempdir().unwrap();
    let [blocked, good] = ["blocked", "good"].map(|name| directory.path().join(name));
    for (place, mode) in [(&blocked, 0o644), (&good, 0o755)] {
        std::fs::create_dir(place).unwrap();
        std::fs::write(place.join("tool"), "#!/bin/sh\necho found\n").unwrap();
        std::fs::set_permissions(place.join("tool"), PermissionsExt::from_mode(mode)).unwrap();
    }
    let init = Init::new();
    let run = |path: String| Said::of(init.command(&["--", "tool"]).env("PATH", path));
    let said = run(format!("/nowhere:{}:{}", blocked.display(), good.display()));
    assert_eq!((said.code, said.out.as_str()), (0, "found\n"), "{}", said.err);
    assert_eq!(run(format!("{}:/nowhere", blocked.display())).code, 126);
    assert_eq!(run("/nowhere".into()).code, 127);
    assert_eq!(run("x".repeat(5000)).code, 127, "a path too long is passed over");
    let mut here = init.command(&["--", "tool"]);
    assert_eq!(Said::of(here.env("PATH", "").current_dir(&good)).out, "found\n");
}

#[test]
fn a_thousand_orphans_are_reaped_while_the_program_runs() {
    let init = Init::new();
    // Each subshell leaves a child behind and ends; the init inherits it. The program goes
    // on until no process has the init as parent but itself.
    let script = "
        i=0
        while [ $i -lt 1000 ]; do (: & ) ; i=$((i+1)); done
        init=$PPID
        while :; do
            left=0
            for stat in /proc/[0-9]*/stat; do
                read -r line < $stat 2>/dev/null || continue
                set -- ${line##*) }
                [ \"$2\" = $init ] && left=$((left+1))
            done
            [ $left -eq 1 ] && break
        done
        echo \"left $left\"";
    let Some(mut command) = container_of_its_own(init.path(), script) else { return };
    let said = Said::of(&mut command);
    assert_eq!((said.code, said.out.as_str()), (0, "left 1\n"), "{}", said.err);
    // Where it is not process 1 it takes orphans in when asked to.
    let said = Said::of(&mut init.command(&["-s", "--", "sh", "-c", script]));
    assert_eq!((said.code, said.out.as_str()), (0, "left 1\n"), "{}", said.err);
}

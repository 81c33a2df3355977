//! The runtime's own program, seen from inside.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use carrack_conformance::{Bundle, runtime};
use serde_json::json;

/// The program that must stay as it is: the one that is run, or what a wrapper of it runs.
fn guarded() -> PathBuf {
    std::env::var_os("CARRACK_CONFORMANCE_PROGRAM").map_or_else(runtime, PathBuf::from)
}

#[test]
fn cve_2019_5736_the_runtimes_program_cannot_be_overwritten_while_it_waits_or_joins() {
    let before = fs::read(guarded()).unwrap();
    let script = "for i in 1 2 3 4 5 6 7 8 9; do for p in /proc/[0-9]*; do \
                  (echo broken > $p/exe) 2>/dev/null; done; done";
    let Some(mut bundle) = Bundle::script(script) else { return };
    bundle.give_everything();
    bundle.runtime(&["create", &bundle.id]).ok();
    // Held between create and start the first process runs the runtime's program.
    let script = "exec 9</proc/1/exe; (echo broken > /proc/self/fd/9); (echo broken > /proc/1/exe)";
    bundle.runtime(&["exec", &bundle.id, "/bin/sh", "-c", script]);
    bundle.runtime(&["start", &bundle.id]);
    // And while joining, an exec's process does.
    bundle.runtime(&["exec", &bundle.id, "/bin/true"]);
    assert!(fs::read(guarded()).unwrap() == before, "the runtime's program was changed");
}

#[test]
fn cve_2019_5736_an_entrypoint_or_interpreter_that_is_the_runtime_cannot_overwrite_it() {
    let before = fs::read(guarded()).unwrap();
    for program in ["/proc/self/exe", "/bin/script", "/bin/link"] {
        let Some(mut bundle) = Bundle::program(&[program]) else { return };
        let script = bundle.root().join("bin/script");
        fs::write(&script, "#!/proc/self/exe\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        symlink("/proc/self/exe", bundle.root().join("bin/link")).unwrap();
        bundle.give_everything();
        bundle.run();
    }
    assert!(fs::read(guarded()).unwrap() == before, "the runtime's program was changed");
}

#[test]
fn cve_2019_5736_not_even_the_host_writes_through_a_waiting_containers_program() {
    let before = fs::read(guarded()).unwrap();
    let Some(mut bundle) = Bundle::program(&["/bin/sleep", "60"]) else { return };
    bundle.config["process"]["capabilities"]["bounding"] = json!([]);
    bundle.runtime(&["create", &bundle.id]).ok();
    let path = format!("/proc/{}/exe", bundle.pid());
    let opened = fs::OpenOptions::new().write(true).open(path);
    let refused = opened.and_then(|mut file| std::io::Write::write_all(&mut file, b"x"));
    assert!(refused.is_err(), "it was written to");
    assert!(fs::read(guarded()).unwrap() == before, "the runtime's program was changed");
}

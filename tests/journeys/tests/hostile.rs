//! Hostile input, through the command line: each refused with one clear error,
//! the host untouched.

use std::fs;

use carrack_testkit::Machine;
use carrack_testkit::archive::{Entry, oci_archive, tar};

/// Loads an image with this layer and runs it; one of the two must refuse with `expected`,
/// and the next command must still work.
#[track_caller]
fn check_layer(layer: &[Entry], expected: &str) {
    check_archive(&oci_archive("hostile:1", &tar(layer), None), expected);
}

#[track_caller]
fn check_archive(archive: &[u8], expected: &str) {
    let machine = Machine::new();
    let file = machine.files().join("image.tar");
    fs::write(&file, archive).expect("a file");
    let loaded = machine.carrack(&["load", "-i", file.to_str().expect("plain")]);
    let refused =
        if loaded.code == 0 { machine.carrack(&["run", "--rm", "hostile:1"]) } else { loaded };
    assert_ne!(refused.code, 0, "nobody refused it");
    assert!(refused.stderr.contains(expected), "expected `{expected}` in: {}", refused.stderr);
    assert_eq!(refused.stderr.trim_end().lines().count(), 1, "one error: {}", refused.stderr);
    machine.carrack(&["images"]).expect_ok();
}

/// A path on the host that no test may create.
fn witness(name: &str) -> String {
    format!("/tmp/carrack-witness-{}-{name}", std::process::id())
}

#[test]
fn a_layer_that_climbs_out_with_dots_is_refused() {
    let outside = witness("dots");
    check_layer(&[Entry::file(&format!("../../../../../../..{outside}"), b"x")], "..");
    assert!(!fs::exists(&outside).expect("readable"));
}

#[test]
fn a_layer_that_writes_through_an_absolute_symlink_stays_inside() {
    let outside = witness("symlink");
    let machine = Machine::new();
    let layer = [
        Entry::link(b'2', "escape", "/tmp"),
        Entry::file(&format!("escape/{}", outside.trim_start_matches("/tmp/")), b"x"),
    ];
    let file = machine.files().join("image.tar");
    fs::write(&file, oci_archive("hostile:1", &tar(&layer), None)).expect("a file");
    machine.carrack(&["load", "-i", file.to_str().expect("plain")]);
    machine.carrack(&["run", "--rm", "hostile:1"]);
    assert!(!fs::exists(&outside).expect("readable"), "the host was written to");
}

#[test]
fn a_hard_link_out_of_the_tree_is_refused() {
    check_layer(&[Entry::link(b'1', "shadow", "../../../../../../../etc/shadow")], "..");
}

#[test]
fn a_whiteout_of_the_root_is_refused() {
    check_layer(&[Entry::file(".wh...", b"")], "hide the root");
}

#[test]
fn a_layer_whose_bytes_do_not_match_is_refused() {
    let layer = tar(&[Entry::file("a", b"x")]);
    let lie = "0".repeat(64);
    check_archive(&oci_archive("hostile:1", &layer, Some(&lie)), &lie);
}

#[test]
fn an_archive_that_is_no_archive_is_refused() {
    check_archive(b"not a tar archive at all", "archive");
}

#[test]
fn a_compose_file_with_an_unknown_field_is_refused_with_its_place() {
    let machine = Machine::new();
    let directory = machine.files().join("app");
    fs::create_dir_all(&directory).expect("a directory");
    fs::write(
        directory.join("compose.yaml"),
        "services:\n  web:\n    image: x\n    colour: blue\n",
    )
    .expect("a file");
    let said = machine.carrack(&["up", directory.to_str().expect("plain")]).expect_failure(2);
    assert!(said.contains("compose.yaml:4:5") && said.contains("colour"), "{said}");
}

#[test]
fn a_dockerfile_with_a_bad_instruction_is_refused_with_its_place() {
    let machine = Machine::new();
    let directory = machine.files().join("context");
    fs::create_dir_all(&directory).expect("a directory");
    fs::write(directory.join("Dockerfile"), "FROM scratch\nFETCH all\n").expect("a file");
    let said = machine.carrack(&["build", directory.to_str().expect("plain")]).expect_failure(2);
    assert!(said.contains("Dockerfile:2:1") && said.contains("FETCH"), "{said}");
}

//! Builds killed at any moment: the next one finishes as if nothing had happened.

#![allow(clippy::print_stdout, reason = "a test says what it did not do, and its figures")]

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{Scene, runtime_program};

/// Tells the child which scene to build in, and what.
const DIRECTORY: &str = "CARRACK_TEST_BUILD_IN";
const DOCKERFILE: &str = "CARRACK_TEST_BUILD";

/// Not a test of its own: what a killed build runs.
#[test]
fn a_build_to_be_killed() {
    let (Some(directory), Ok(text)) = (std::env::var_os(DIRECTORY), std::env::var(DOCKERFILE))
    else {
        return;
    };
    let scene = Scene::open(Path::new(&directory));
    scene.build(&text);
}

fn spawn(scene: &Scene, dockerfile: &str) -> Child {
    Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "a_build_to_be_killed", "--quiet"])
        .env(DIRECTORY, scene.path())
        .env(DOCKERFILE, dockerfile)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("this test runs")
}

/// A number below `limit`, spread evenly over the rounds.
fn spread(round: u32, limit: Duration) -> Duration {
    // Multiples of the golden ratio leave no stretch unvisited.
    limit.mul_f64((f64::from(round) * 0.618_033_988_75).fract())
}

#[track_caller]
fn survives(rounds: u32, files: impl Fn() -> Option<Scene>, dockerfile: &str) {
    let Some(whole) = files() else { return };
    let started = Instant::now();
    let status = spawn(&whole, dockerfile).wait().expect("ends");
    let longest = started.elapsed();
    assert!(status.success());
    let expected = whole.build(dockerfile).digest;
    let Some(mut scene) = files() else { return };
    let mut finished = 0;
    for round in 0..rounds {
        let mut child = spawn(&scene, dockerfile);
        // The moment is what is being tested; there is no event to wait for.
        std::thread::sleep(spread(round, longest));
        child.kill().expect("is ours");
        finished += u32::from(child.wait().expect("ends").success());
        if round % 5 == 4 {
            let built = scene.build(dockerfile);
            assert_eq!(built.digest, expected, "after round {round}");
            assert_eq!(scene.live_workspaces(), 0);
            scene = files().expect("as before");
        }
    }
    println!("{rounds} builds of up to {longest:?} killed, {finished} of them too late");
}

#[test]
fn a_build_of_files_killed_anywhere_leaves_nothing_in_the_way() {
    let scene = || {
        let files: Vec<(String, String)> =
            (0..120).map(|n| (format!("d/{}/{n}", n % 7), "x".repeat(n * 50))).collect();
        let files: Vec<_> =
            files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        Some(Scene::new(&files))
    };
    survives(40, scene, "FROM scratch\nCOPY d /a/\nCOPY d /b/\nWORKDIR /w\nCOPY --chown=1 d .\n");
}

#[test]
fn a_build_with_commands_killed_anywhere_leaves_nothing_in_the_way() {
    let scene = || {
        runtime_program()?;
        let scene = Scene::new(&[]);
        scene.busybox()?;
        Some(scene)
    };
    survives(
        25,
        scene,
        "FROM scratch\nCOPY root /\nRUN echo 1 > /one\nRUN sleep 0.1; echo 2 > /two\n",
    );
}

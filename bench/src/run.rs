//! `carrack run --rm` against `podman run --rm`, the same image in both stores.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use carrack_testkit::Machine;

use crate::measure::{self, Contender};
use crate::start::{show_cgroup_v1_only, which};

const ROUNDS: usize = 20;
const IMAGE: &str = "bench:1";

pub(crate) fn measure() -> anyhow::Result<()> {
    show_cgroup_v1_only()?;
    let machine = Machine::new();
    machine.busybox_image(IMAGE);
    machine.carrack(&["run", "--rm", IMAGE, "true"]).expect_ok();
    let storage = tempfile::tempdir()?;
    let mut contenders = vec![Contender {
        name: "carrack run --rm",
        work: Box::new(|| succeed(&mut machine.command(&["run", "--rm", IMAGE, "true"]))),
    }];
    if which("podman").is_some() {
        let archive = storage.path().join("image.tar");
        let archive = archive.to_str().context("a path that is text")?;
        machine.carrack(&["save", "-o", archive, IMAGE]).expect_ok();
        let (root, run) = (storage.path().join("root"), storage.path().join("run"));
        let podman = move |arguments: &[&str]| {
            let mut command = Command::new("podman");
            command.arg("--root").arg(&root).arg("--runroot").arg(&run);
            // What podman needs where systemd is not process 1.
            command.args(["--cgroup-manager", "cgroupfs", "--runtime", "crun"]).args(arguments);
            command
        };
        let loaded = podman(&["load", "-q", "-i", archive]).output()?;
        ensure!(
            loaded.status.success(),
            "podman load: {}",
            String::from_utf8_lossy(&loaded.stderr)
        );
        let said = String::from_utf8_lossy(&loaded.stdout).into_owned();
        let image =
            said.split_whitespace().last().context("podman names what it loaded")?.to_owned();
        contenders.push(Contender {
            name: "podman run --rm",
            work: Box::new(move || {
                // Limits that root without CAP_SYS_RESOURCE may set.
                let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
                let run = ["run", "--rm", "--network", "none"];
                succeed(&mut podman(&[&run[..], &limits, &[&image, "true"]].concat()))
            }),
        });
    } else {
        println!("  podman: not installed, not measured");
    }
    let figures = measure::interleaved(ROUNDS, contenders)?;
    measure::print(
        "one command in a new container, image cached (podman without a network, carrack with its mesh)",
        &figures,
    );
    Ok(())
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

//! The runtime on control groups version 2, with every controller, and beside a systemd that
//! makes the groups of either version: in guests of their own, because a machine has its
//! controllers on one version only, and one process 1.
//!
//! ```text
//! bundles ─┐
//! guest.sh ┼─▶ initramfs ─▶ qemu, Debian's kernel ─▶ console ─▶ verdicts
//! programs ┘                 (machine)
//! ```
//!
//! `CARRACK_PEER=/usr/bin/crun` asks another runtime the same; what it says is shown, and
//! nothing is demanded of it. `CARRACK_GUEST_DEBUG=1` shows the whole console.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may fail loudly, and says when it skips"
)]

#[cfg(target_arch = "x86_64")]
mod bundles;
#[cfg(target_arch = "x86_64")]
mod inside;
#[cfg(target_arch = "x86_64")]
mod machine;
#[cfg(target_arch = "x86_64")]
mod systemd;

#[cfg(target_arch = "x86_64")]
#[test]
fn limits_hold_on_version_2() {
    let peer = std::env::var_os("CARRACK_PEER").map(std::path::PathBuf::from);
    let guest = machine::Guest {
        script: "guest.sh",
        bundles: bundles::all(),
        peer: peer.as_deref(),
        programs: &[],
        files: &[],
        options: "",
    };
    judge(&guest, 60);
}

/// Runs a guest; all that it says must hold, and no fewer than `least` things.
#[cfg(target_arch = "x86_64")]
fn judge(guest: &machine::Guest<'_>, least: usize) {
    // Emulated processors are slow enough alone.
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let turn = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let ran = machine::run(guest);
    drop(turn);
    let console = match ran {
        Ok(console) => console,
        Err(why) => {
            eprintln!("skipped: {why}");
            return;
        }
    };
    let verdicts: Vec<&str> = console
        .lines()
        .filter_map(|line| line.trim_end().split_once("@@ "))
        .map(|(_, said)| said)
        .collect();
    if std::env::var_os("CARRACK_GUEST_DEBUG").is_some() {
        eprintln!("{console}");
    }
    let count = |word: &str| verdicts.iter().filter(|said| said.starts_with(word)).count();
    for said in verdicts.iter().filter(|said| !said.starts_with("ok ")) {
        eprintln!("{said}");
    }
    eprintln!("{} hold, {} do not, {} skipped", count("ok "), count("not ok "), count("skip "));
    assert!(verdicts.contains(&"end"), "the guest did not come to its end:\n{console}");
    assert!(guest.peer.is_some() || count("not ok ") == 0, "not all hold; see above");
    assert!(guest.peer.is_some() || count("ok ") >= least, "fewer cases ran than there are");
}

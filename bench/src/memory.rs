//! Resident memory of the node proxy, the daemon and one shim, after traffic.

use std::fs;

use anyhow::{Context as _, ensure};
use carrack_testkit::Machine;

use crate::mesh;

pub(crate) fn measure() -> anyhow::Result<()> {
    let machine = Machine::new();
    mesh::bring_up(&machine)?;
    mesh::load(&machine, 16, 3)?;
    for role in ["proxy", "daemon"] {
        let pid = machine.pid_of(role).with_context(|| format!("the {role} has a process id"))?;
        print(role, pid)?;
    }
    let inspected = machine.json(&["inspect", "bench-origin-1"]);
    let shim = inspected[0]["shim_pid"].as_i64().context("a shim")?;
    print("one shim", i32::try_from(shim)?)
}

fn print(what: &str, pid: i32) -> anyhow::Result<()> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let field = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
    };
    ensure!(field("Rss:") > 0, "{path} has no figures");
    let private = field("Private_Dirty:") + field("Private_Clean:");
    println!("  {what:<10} resident {:>7} KiB   private {private:>7} KiB", field("Rss:"));
    Ok(())
}

//! Version 2: what to write where.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::{
    CgroupError, Cpu, DeviceRate, Hierarchy, Limits, Memory, Setting, read_file, v1, write_file,
};

/// How long a group may take to stand still.
const FREEZE_TIME: Duration = Duration::from_secs(5);

/// Creates the group's directory and those above it, with every controller handed down.
pub(super) fn create(hierarchy: &Hierarchy, path: &Path) -> Result<(), CgroupError> {
    let mut directory = hierarchy.mount.clone();
    for name in path {
        hand_down(&directory)?;
        directory.push(name);
        match fs::create_dir(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(CgroupError::Create { path: directory, source }),
        }
    }
    Ok(())
}

/// Makes `user` the owner of the directory and of the files that are safe to give away.
pub(super) fn delegate(directory: &Path, user: u32) -> Result<(), CgroupError> {
    // Kernels before 4.15 do not list them.
    let listed = fs::read_to_string("/sys/kernel/cgroup/delegate")
        .unwrap_or_else(|_| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".to_owned());
    let files = listed.lines().map(|file| directory.join(file));
    for path in std::iter::once(directory.to_owned()).chain(files) {
        match std::os::unix::fs::lchown(&path, Some(user), None) {
            Ok(()) => {}
            // The list is of all controllers; the group need not have each.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(CgroupError::Delegate { path, user, source }),
        }
    }
    Ok(())
}

/// Enables what the group has for the groups below it.
///
/// A controller that is refused (one in use by processes right here, say) stays off; a
/// limit that needs it then fails by name.
fn hand_down(directory: &Path) -> Result<(), CgroupError> {
    let available = read_file(&directory.join("cgroup.controllers"))?;
    let control = directory.join("cgroup.subtree_control");
    let enabled = read_file(&control)?;
    let enabled: Vec<&str> = enabled.split_ascii_whitespace().collect();
    for controller in available.split_ascii_whitespace().filter(|name| !enabled.contains(name)) {
        write_file(&control, &format!("+{controller}")).ok(); // Said above.
    }
    Ok(())
}

/// The settings for `limits`, in the order the kernel wants them.
pub(super) fn settings(limits: &Limits) -> Result<Vec<Setting>, CgroupError> {
    let mut all = Vec::new();
    memory(&limits.memory, &mut all)?;
    cpu(&limits.cpu, &mut all)?;
    if let Some(limit) = limits.pids {
        let value = if limit > 0 { limit.to_string() } else { "max".to_owned() };
        all.push(Setting::new("", "pids.max", value));
    }
    if let Some(weight) = limits.io.weight {
        all.push(Setting::new("", "io.weight", format!("default {}", io_weight(weight))));
    }
    for device in &limits.io.weight_devices {
        let value = format!("{}:{} {}", device.major, device.minor, io_weight(device.weight));
        all.push(Setting::new("", "io.weight", value));
    }
    let mut rates = |key: &str, rates: &[DeviceRate]| {
        for rate in rates {
            let value = format!("{}:{} {key}={}", rate.major, rate.minor, rate.rate);
            all.push(Setting::new("", "io.max", value));
        }
    };
    rates("rbps", &limits.io.read_bytes);
    rates("wbps", &limits.io.write_bytes);
    rates("riops", &limits.io.read_operations);
    rates("wiops", &limits.io.write_operations);
    for (size, limit) in &limits.huge_pages {
        all.push(Setting::new("", format!("hugetlb.{size}.max"), limit));
    }
    if limits.network_class.is_some() || !limits.network_priorities.is_empty() {
        return Err(only_on_one("packet classes and priorities"));
    }
    for (device, &(handles, objects)) in &limits.rdma {
        all.push(Setting::new("", "rdma.max", v1::rdma(device, handles, objects)));
    }
    for (file, value) in &limits.unified {
        if file.contains('/') {
            return Err(CgroupError::Name { file: file.clone() });
        }
        all.push(Setting::new("", file.clone(), value));
    }
    Ok(all)
}

fn only_on_one(what: &str) -> CgroupError {
    CgroupError::Unsupported {
        what: what.to_owned(),
        remedy: "it exists on control groups version 1 only",
    }
}

fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

fn memory(memory: &Memory, all: &mut Vec<Setting>) -> Result<(), CgroupError> {
    if memory.swappiness.is_some() {
        return Err(only_on_one("swappiness"));
    }
    if memory.disable_oom_killer == Some(true) {
        return Err(only_on_one("turning the out-of-memory killer off"));
    }
    if memory.kernel_tcp.is_some() {
        return Err(only_on_one("a limit on kernel memory for TCP"));
    }
    // Version 1 counts memory and swap together, version 2 swap alone.
    let swap = match (memory.swap, memory.limit) {
        (None, _) => None,
        (Some(together), _) if together < 0 => Some("max".to_owned()),
        (Some(together), Some(limit)) if limit >= 0 && together >= limit => {
            Some((together - limit).to_string())
        }
        (Some(_), _) => {
            return Err(CgroupError::Unsupported {
                what: "a swap limit below the memory limit, or without one".to_owned(),
                remedy: "set the memory limit, and swap (which includes memory) at least as high",
            });
        }
    };
    all.extend(swap.map(|value| Setting::new("", "memory.swap.max", value)));
    all.extend(memory.limit.map(|value| Setting::new("", "memory.max", or_max(value))));
    all.extend(memory.reservation.map(|value| Setting::new("", "memory.low", or_max(value))));
    Ok(())
}

fn cpu(cpu: &Cpu, all: &mut Vec<Setting>) -> Result<(), CgroupError> {
    if cpu.realtime_runtime.is_some_and(|value| value != 0)
        || cpu.realtime_period.is_some_and(|value| value != 0)
    {
        return Err(only_on_one("a real-time budget"));
    }
    if let Some(idle) = cpu.idle {
        all.push(Setting::new("", "cpu.idle", idle));
    }
    if let Some(shares) = cpu.shares.filter(|&shares| shares != 0) {
        all.push(Setting::new("", "cpu.weight", cpu_weight(shares)));
    }
    match (cpu.quota, cpu.period) {
        (None, None) => {}
        (Some(quota), Some(period)) if quota > 0 => {
            all.push(Setting::new("", "cpu.max", format!("{quota} {period}")));
        }
        (Some(quota), None) if quota > 0 => all.push(Setting::new("", "cpu.max", quota)),
        (_, Some(period)) => all.push(Setting::new("", "cpu.max", format!("max {period}"))),
        (_, None) => all.push(Setting::new("", "cpu.max", "max")),
    }
    all.extend(cpu.burst.map(|value| Setting::new("", "cpu.max.burst", value)));
    all.extend(cpu.cpus.as_ref().map(|value| Setting::new("", "cpuset.cpus", value)));
    all.extend(cpu.mems.as_ref().map(|value| Setting::new("", "cpuset.mems", value)));
    Ok(())
}

/// Shares of 2 to 262144 onto weights of 1 to 10000.
pub(super) fn cpu_weight(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    1 + ((shares - 2) * 9_999) / 262_142
}

/// Weights of 10 to 1000 onto weights of 1 to 10000.
pub(super) fn io_weight(weight: u16) -> u64 {
    let weight = u64::from(weight).clamp(10, 1000);
    1 + (weight - 10) * 9_999 / 990
}

/// Freezes or thaws, and waits for the kernel's notice that it has.
pub(super) fn freeze(directory: &Path, frozen: bool) -> Result<(), CgroupError> {
    let wanted = if frozen { "frozen 1" } else { "frozen 0" };
    let path = directory.join("cgroup.events");
    let events =
        fs::File::open(&path).map_err(|source| CgroupError::Open { path: path.clone(), source })?;
    write_file(&directory.join("cgroup.freeze"), if frozen { "1" } else { "0" })?;
    let deadline = Instant::now() + FREEZE_TIME;
    loop {
        if read_file(&path)?.lines().any(|line| line == wanted) {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(CgroupError::Freeze { path: directory.to_owned() });
        }
        let left = Timespec::try_from(left.min(Duration::from_millis(100))).unwrap_or_default();
        let mut watched = [PollFd::new(&events, PollFlags::PRI)];
        // Interrupted or timed out: the file is read again either way.
        rustix::event::poll(&mut watched, Some(&left)).ok();
    }
}

//! Version 1: what to write where.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::current::Current;
use super::setting::{Rule, Setting};
use super::{CgroupError, Cpu, DeviceRate, Hierarchy, Io, Limits, Memory, read_file, write_file};

/// Looks at a freezing group this often before giving up.
const FREEZE_ROUNDS: u32 = 500;

/// Creates the group's directory, and those above it.
pub(super) fn create(hierarchy: &Hierarchy, path: &Path) -> Result<(), CgroupError> {
    let cpuset = hierarchy.controllers.iter().any(|own| own == "cpuset");
    let mut directory = hierarchy.mount.clone();
    for name in path {
        let parent = directory.clone();
        directory.push(name);
        match fs::create_dir(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(super::create_failed(directory, source)),
        }
        if cpuset {
            inherit(&parent, &directory)?;
        }
    }
    Ok(())
}

/// A new cpuset is empty, and an empty one takes no process.
fn inherit(parent: &Path, directory: &Path) -> Result<(), CgroupError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if read_file(&directory.join(file))?.trim().is_empty() {
            let value = read_file(&parent.join(file))?;
            write_file(&directory.join(file), value.trim())?;
        }
    }
    Ok(())
}

/// The settings for `limits`, in the order the kernel wants them after `current`; devices
/// are not among them.
pub(super) fn settings(limits: &Limits, current: Current) -> Result<Vec<Setting>, CgroupError> {
    if let Some(file) = limits.unified.keys().next() {
        return Err(CgroupError::Unsupported {
            what: format!("unified setting {file}"),
            remedy: "unified settings need control groups version 2 only",
        });
    }
    let mut all = Vec::new();
    memory(&limits.memory, current, &mut all);
    cpu(&limits.cpu, &mut all);
    all.extend(pids(limits.pids).map(|value| Setting::new("pids", "pids.max", value)));
    io(&limits.io, &mut all);
    for (size, limit) in &limits.huge_pages {
        all.push(Setting::new("hugetlb", format!("hugetlb.{size}.limit_in_bytes"), limit));
        let reserved = format!("hugetlb.{size}.rsvd.limit_in_bytes");
        all.push(Setting::new("hugetlb", reserved, limit).rule(Rule::IfThere));
    }
    if let Some(class) = limits.network_class {
        all.push(Setting::new("net_cls", "net_cls.classid", class));
    }
    for (interface, priority) in &limits.network_priorities {
        all.push(Setting::new("net_prio", "net_prio.ifpriomap", format!("{interface} {priority}")));
    }
    for (device, &(handles, objects)) in &limits.rdma {
        all.push(Setting::new("rdma", "rdma.max", rdma(device, handles, objects)));
    }
    Ok(all)
}

/// Zero is written by callers who mean nothing by it.
pub(super) fn pids(limit: Option<i64>) -> Option<String> {
    match limit {
        None | Some(0) => None,
        Some(limit) if limit > 0 => Some(limit.to_string()),
        Some(_) => Some("max".to_owned()),
    }
}

pub(super) fn rdma(device: &str, handles: Option<u32>, objects: Option<u32>) -> String {
    let mut text = device.to_owned();
    for (name, value) in [("hca_handle", handles), ("hca_object", objects)] {
        if let Some(value) = value {
            text.push_str(&format!(" {name}={value}"));
        }
    }
    text
}

fn memory(memory: &Memory, current: Current, all: &mut Vec<Setting>) {
    let limit = memory.limit.map(|limit| Setting::new("memory", "memory.limit_in_bytes", limit));
    let swap = memory.swap.map(|swap| Setting::new("memory", SWAP, swap));
    match (memory.limit, memory.swap) {
        // No limit on memory is none on swap, where that is counted.
        (Some(-1), None) => {
            all.push(Setting::new("memory", SWAP, -1).rule(Rule::IfThere));
            all.extend(limit);
        }
        // Swap counts memory too and is never below it: the one that rises goes first.
        (Some(_), Some(new))
            if new == -1 || current.memory.is_some_and(|old| old >= 0 && old < new) =>
        {
            all.extend(swap);
            all.extend(limit);
        }
        _ => {
            all.extend(limit);
            all.extend(swap);
        }
    }
    let mut push = |file: &str, value: Option<String>| {
        all.extend(value.map(|value| Setting::new("memory", file, value)));
    };
    push("memory.soft_limit_in_bytes", memory.reservation.map(|value| value.to_string()));
    push("memory.swappiness", memory.swappiness.map(|value| value.to_string()));
    push("memory.oom_control", memory.disable_oom_killer.map(|off| u8::from(off).to_string()));
}

const SWAP: &str = "memory.memsw.limit_in_bytes";

fn cpu(cpu: &Cpu, all: &mut Vec<Setting>) {
    let mut push = |file: &str, value: Option<String>, rule: Rule| {
        all.extend(value.map(|value| Setting::new("cpu", file, value).rule(rule)));
    };
    let idle = cpu.idle.map(|value| value.to_string());
    // An idle group takes no shares.
    let (idle_first, idle_last) = if cpu.idle == Some(0) { (idle, None) } else { (None, idle) };
    push("cpu.idle", idle_first, Rule::Must);
    push("cpu.shares", cpu.shares.map(|value| value.to_string()), Rule::Must);
    push("cpu.idle", idle_last, Rule::Must);
    push("cpu.cfs_period_us", cpu.period.map(|value| value.to_string()), Rule::Again);
    push("cpu.cfs_burst_us", cpu.burst.map(|value| value.to_string()), Rule::Again);
    push("cpu.cfs_quota_us", cpu.quota.map(|value| value.to_string()), Rule::Again);
    push("cpu.rt_period_us", cpu.realtime_period.map(|value| value.to_string()), Rule::Again);
    push("cpu.rt_runtime_us", cpu.realtime_runtime.map(|value| value.to_string()), Rule::Again);
    let mut place = |file: &str, value: &Option<String>| {
        all.extend(value.as_ref().map(|value| Setting::new("cpuset", file, value)));
    };
    place("cpuset.cpus", &cpu.cpus);
    place("cpuset.mems", &cpu.mems);
}

fn io(io: &Io, all: &mut Vec<Setting>) {
    if let Some(weight) = io.weight {
        all.push(Setting::new("blkio", "blkio.weight", weight).or("blkio.bfq.weight", weight));
    }
    if let Some(weight) = io.leaf_weight {
        all.push(Setting::new("blkio", "blkio.leaf_weight", weight));
    }
    for device in &io.weight_devices {
        let text = |weight: u16| format!("{}:{} {weight}", device.major, device.minor);
        let weight = device.weight.map(text).map(|value| {
            Setting::new("blkio", "blkio.weight_device", &value)
                .or("blkio.bfq.weight_device", value)
        });
        let leaf = device.leaf_weight.map(text);
        all.extend(weight);
        all.extend(leaf.map(|value| Setting::new("blkio", "blkio.leaf_weight_device", value)));
    }
    let mut rates = |file: &str, rates: &[DeviceRate]| {
        for rate in rates {
            let value = format!("{}:{} {}", rate.major, rate.minor, rate.rate);
            all.push(Setting::new("blkio", file, value));
        }
    };
    rates("blkio.throttle.read_bps_device", &io.read_bytes);
    rates("blkio.throttle.write_bps_device", &io.write_bytes);
    rates("blkio.throttle.read_iops_device", &io.read_operations);
    rates("blkio.throttle.write_iops_device", &io.write_operations);
}

/// Freezes, and waits until the kernel says that it has.
pub(super) fn freeze(directory: &Path) -> Result<(), CgroupError> {
    let file: PathBuf = directory.join("freezer.state");
    for _ in 0..FREEZE_ROUNDS {
        // Written again each time: a process that was just forking needs a second push.
        write_file(&file, "FROZEN")?;
        if read_file(&file)?.trim() == "FROZEN" {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1)); // Version 1 has no event for it.
    }
    write_file(&file, "THAWED")?;
    Err(CgroupError::Freeze { path: directory.to_owned() })
}

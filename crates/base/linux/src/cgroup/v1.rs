//! Version 1: what to write where.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{
    CgroupError, Cpu, DeviceRate, Hierarchy, Io, Limits, Memory, Setting, read_file, write_file,
};

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
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(source) => return Err(CgroupError::Create { path: directory, source }),
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

/// The settings for `limits`, in the order the kernel wants them.
pub(super) fn settings(limits: &Limits) -> Result<Vec<Setting>, CgroupError> {
    if let Some(file) = limits.unified.keys().next() {
        return Err(CgroupError::Unsupported {
            what: format!("unified setting {file}"),
            remedy: "unified settings need control groups version 2 only",
        });
    }
    let mut all = Vec::new();
    memory(&limits.memory, &mut all);
    cpu(&limits.cpu, &mut all);
    if let Some(limit) = limits.pids {
        let value = if limit > 0 { limit.to_string() } else { "max".to_owned() };
        all.push(Setting::new("pids", "pids.max", value));
    }
    io(&limits.io, &mut all);
    for (size, limit) in &limits.huge_pages {
        all.push(Setting::new("hugetlb", format!("hugetlb.{size}.limit_in_bytes"), limit));
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
    for rule in limits.devices.iter().flatten() {
        let file = if rule.allow { "devices.allow" } else { "devices.deny" };
        all.push(Setting::new("devices", file, rule.v1_text()));
    }
    Ok(all)
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

fn memory(memory: &Memory, all: &mut Vec<Setting>) {
    let mut push = |file: &str, value: Option<String>| {
        all.extend(value.map(|value| Setting::new("memory", file, value)));
    };
    let text = |value: Option<i64>| value.map(|value| value.to_string());
    // Swap counts memory too, so it can only be set once memory is below it.
    push("memory.limit_in_bytes", text(memory.limit));
    push("memory.memsw.limit_in_bytes", text(memory.swap));
    push("memory.soft_limit_in_bytes", text(memory.reservation));
    push("memory.kmem.tcp.limit_in_bytes", text(memory.kernel_tcp));
    push("memory.swappiness", memory.swappiness.map(|value| value.to_string()));
    push("memory.oom_control", memory.disable_oom_killer.map(|off| u8::from(off).to_string()));
}

fn cpu(cpu: &Cpu, all: &mut Vec<Setting>) {
    let mut push = |controller, file: &str, value: Option<String>| {
        all.extend(value.map(|value| Setting::new(controller, file, value)));
    };
    push("cpu", "cpu.shares", cpu.shares.map(|value| value.to_string()));
    push("cpu", "cpu.idle", cpu.idle.map(|value| value.to_string()));
    push("cpu", "cpu.cfs_period_us", cpu.period.map(|value| value.to_string()));
    push("cpu", "cpu.cfs_quota_us", cpu.quota.map(|value| value.to_string()));
    push("cpu", "cpu.cfs_burst_us", cpu.burst.map(|value| value.to_string()));
    push("cpu", "cpu.rt_period_us", cpu.realtime_period.map(|value| value.to_string()));
    push("cpu", "cpu.rt_runtime_us", cpu.realtime_runtime.map(|value| value.to_string()));
    push("cpuset", "cpuset.cpus", cpu.cpus.clone());
    push("cpuset", "cpuset.mems", cpu.mems.clone());
}

fn io(io: &Io, all: &mut Vec<Setting>) {
    if let Some(weight) = io.weight {
        all.push(Setting::new("blkio", "blkio.weight", weight));
    }
    for device in &io.weight_devices {
        let value = format!("{}:{} {}", device.major, device.minor, device.weight);
        all.push(Setting::new("blkio", "blkio.weight_device", value));
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

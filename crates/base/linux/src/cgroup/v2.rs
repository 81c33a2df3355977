//! Version 2: what to write where.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::current::Current;
use super::setting::{Rule, Setting};
use super::{
    CgroupError, Cpu, DeviceRate, Hierarchy, Io, Limits, Memory, read_file, v1, write_file,
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
            Err(source) => return Err(super::create_failed(directory, source)),
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

/// The settings for `limits`, in the order the kernel wants them after `current`.
pub(super) fn settings(limits: &Limits, current: Current) -> Result<Vec<Setting>, CgroupError> {
    let mut all = Vec::new();
    memory(&limits.memory, current, &mut all)?;
    cpu(&limits.cpu, current, &mut all)?;
    all.extend(v1::pids(limits.pids).map(|value| Setting::new("pids", "pids.max", value)));
    io(&limits.io, &mut all)?;
    for (size, limit) in &limits.huge_pages {
        all.push(Setting::new("hugetlb", format!("hugetlb.{size}.max"), limit));
        let reserved = format!("hugetlb.{size}.rsvd.max");
        all.push(Setting::new("hugetlb", reserved, limit).rule(Rule::IfThere));
    }
    if limits.network_class.is_some() || !limits.network_priorities.is_empty() {
        return Err(only_on_one("packet classes and priorities"));
    }
    for (device, &(handles, objects)) in &limits.rdma {
        all.push(Setting::new("rdma", "rdma.max", v1::rdma(device, handles, objects)));
    }
    for (file, value) in &limits.unified {
        let parameter = file.split_once('.').filter(|(controller, _)| !controller.is_empty());
        if file.contains('/') || parameter.is_none() {
            return Err(CgroupError::Name { file: file.clone() });
        }
        // The kernel takes a line at a time.
        let lines = value.lines().map(|line| Setting::new("", file.clone(), line));
        all.extend(lines);
    }
    Ok(all)
}

fn io(io: &Io, all: &mut Vec<Setting>) -> Result<(), CgroupError> {
    let leaf = |device: &super::DeviceWeight| device.leaf_weight.is_some();
    if io.leaf_weight.is_some() || io.weight_devices.iter().any(leaf) {
        return Err(only_on_one("a leaf weight of block devices"));
    }
    // BFQ takes weights as they are, and devices one by one since Linux 5.4.
    if let Some(weight) = io.weight {
        let default = format!("default {}", io_weight(weight));
        all.push(Setting::new("io", "io.bfq.weight", weight).or("io.weight", default));
    }
    for device in &io.weight_devices {
        let Some(weight) = device.weight else { continue };
        let place = format!("{}:{}", device.major, device.minor);
        let converted = format!("{place} {}", io_weight(weight));
        let weight = format!("{place} {weight}");
        all.push(Setting::new("io", "io.bfq.weight", weight).or("io.weight", converted));
    }
    let mut rates = |key: &str, rates: &[DeviceRate]| {
        for rate in rates {
            // No rate at all is how callers take a limit away.
            let most = if rate.rate == 0 { "max".to_owned() } else { rate.rate.to_string() };
            let value = format!("{}:{} {key}={most}", rate.major, rate.minor);
            all.push(Setting::new("io", "io.max", value));
        }
    };
    rates("rbps", &io.read_bytes);
    rates("wbps", &io.write_bytes);
    rates("riops", &io.read_operations);
    rates("wiops", &io.write_operations);
    Ok(())
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

fn memory(memory: &Memory, current: Current, all: &mut Vec<Setting>) -> Result<(), CgroupError> {
    if memory.swappiness.is_some() {
        return Err(only_on_one("swappiness"));
    }
    if memory.disable_oom_killer == Some(true) {
        return Err(only_on_one("turning the out-of-memory killer off"));
    }
    check_use(memory, current)?;
    let swap = swap(memory, current)?.map(|swap| {
        // Where swap is not counted, none and all of it hold anyway.
        let rule = if swap <= 0 { Rule::IfThere } else { Rule::Must };
        Setting::new("memory", "memory.swap.max", or_max(swap)).rule(rule)
    });
    all.extend(swap);
    let mut push = |file: &str, value: Option<i64>| {
        all.extend(value.map(|value| Setting::new("memory", file, or_max(value))));
    };
    push("memory.max", memory.limit);
    push("memory.low", memory.reservation);
    Ok(())
}

/// Version 1 counts memory and swap together, version 2 swap alone; `-1` is no limit.
pub(super) fn swap(memory: &Memory, current: Current) -> Result<Option<i64>, CgroupError> {
    let limit = memory.limit.or(current.memory);
    // What was asked for together before still holds together.
    let together = memory.swap.or_else(|| {
        let swap = current.swap.filter(|&swap| swap >= 0 && memory.limit.is_some())?;
        Some(swap + current.memory.unwrap_or(0).max(0))
    });
    match (together, limit) {
        (_, _) if memory.limit == Some(-1) && memory.swap.is_none() => Ok(Some(-1)),
        (None, _) => Ok(None),
        (Some(together), _) if together < 0 => Ok(Some(-1)),
        (Some(together), Some(limit)) if limit < 0 && memory.limit.is_some() => Ok(Some(together)),
        (Some(together), Some(limit)) if limit >= 0 && together >= limit => {
            Ok(Some(together - limit))
        }
        (Some(_), _) => Err(CgroupError::Unsupported {
            what: "a swap limit below the memory limit, or without one".to_owned(),
            remedy: "set the memory limit, and swap (which includes memory) at least as high",
        }),
    }
}

/// A limit below what is in use would have the kernel kill.
pub(super) fn check_use(memory: &Memory, current: Current) -> Result<(), CgroupError> {
    let Some(used) = current.used.filter(|_| memory.check_before_update) else { return Ok(()) };
    let below = |limit: &i64| *limit > 0 && *limit <= used;
    match memory.limit.filter(below).or(memory.swap.filter(below)) {
        None => Ok(()),
        Some(limit) => Err(CgroupError::InUse {
            limit: limit.to_string(),
            used: used.unsigned_abs(),
            peak: used.unsigned_abs(),
        }),
    }
}

fn cpu(cpu: &Cpu, current: Current, all: &mut Vec<Setting>) -> Result<(), CgroupError> {
    if cpu.realtime_runtime.is_some_and(|value| value != 0)
        || cpu.realtime_period.is_some_and(|value| value != 0)
    {
        return Err(only_on_one("a real-time budget"));
    }
    let idle = cpu.idle.map(|idle| Setting::new("cpu", "cpu.idle", idle));
    let weight = cpu.shares.filter(|&shares| shares != 0);
    let weight = weight.map(|shares| Setting::new("cpu", "cpu.weight", cpu_weight(shares)));
    // An idle group takes no weight.
    if cpu.idle == Some(0) {
        all.extend(idle);
        all.extend(weight);
    } else {
        all.extend(weight);
        all.extend(idle);
    }
    if let Some(burst) = cpu.burst {
        all.push(Setting::new("cpu", "cpu.max.burst", burst).rule(Rule::Again));
    }
    let quota = |quota: Option<i64>| match quota {
        Some(quota) if quota > 0 => quota.to_string(),
        _ => "max".to_owned(),
    };
    let most = match (cpu.quota, cpu.period) {
        (None, None) => None,
        (Some(_), None) => Some(quota(cpu.quota)),
        (Some(_), Some(period)) => Some(format!("{} {period}", quota(cpu.quota))),
        (None, Some(period)) => Some(format!("{} {period}", quota(current.quota))),
    };
    all.extend(most.map(|most| Setting::new("cpu", "cpu.max", most).rule(Rule::Again)));
    let mut place = |file: &str, value: &Option<String>| {
        all.extend(value.as_ref().map(|value| Setting::new("cpuset", file, value)));
    };
    place("cpuset.cpus", &cpu.cpus);
    place("cpuset.mems", &cpu.mems);
    Ok(())
}

/// Shares of 2 to 262144 onto weights of 1 to 10000, such that 1024, everybody's share, is
/// 100, everybody's weight: a parabola through the logarithms of these three points, as
/// runc and crun have it since 2025.
pub(super) fn cpu_weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        shares => {
            let log = base_two_logarithm(shares);
            let weight = power_of_ten((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0);
            // A fixed point may come out a little above itself.
            round_up(weight - 1e-9)
        }
    }
}

/// The programs this is in are linked without a library of mathematics; these few functions
/// are good to twelve digits where they are used, which is more than the rounding needs.
fn base_two_logarithm(number: u64) -> f64 {
    let whole = number.ilog2();
    #[expect(clippy::cast_precision_loss, reason = "below two to the eighteenth")]
    let rest = number as f64 / (1u64 << whole) as f64;
    // The logarithm of a number between one and two, by the series of the area tangent.
    let z = (rest - 1.0) / (rest + 1.0);
    let (mut term, mut sum) = (z, 0.0);
    for odd in (1u8..40).step_by(2) {
        sum += term / f64::from(odd);
        term *= z * z;
    }
    f64::from(whole) + 2.0 * sum / std::f64::consts::LN_2
}

/// Ten to a power between zero and four.
fn power_of_ten(exponent: f64) -> f64 {
    let natural = exponent * std::f64::consts::LN_10;
    let mut rest = natural;
    let mut scale = 1.0;
    while rest > std::f64::consts::LN_2 {
        rest -= std::f64::consts::LN_2;
        scale *= 2.0;
    }
    let (mut term, mut sum) = (1.0, 1.0);
    for step in 1u8..20 {
        term *= rest / f64::from(step);
        sum += term;
    }
    sum * scale
}

fn round_up(number: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 10000"
    )]
    let whole = number as u32;
    u64::from(whole) + u64::from(f64::from(whole) < number)
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

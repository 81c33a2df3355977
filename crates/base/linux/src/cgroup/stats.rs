use std::fs;
use std::path::{Path, PathBuf};

use super::{CgroupError, read_file};

/// What a group has used. A counter this machine lacks is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Processor time, in nanoseconds.
    pub cpu_nanos: u64,
    /// Of it, in programs.
    pub cpu_user_nanos: u64,
    /// Of it, in the kernel.
    pub cpu_system_nanos: u64,
    /// Periods in which the quota ran out.
    pub throttled_periods: u64,
    /// Time spent waiting for the next period, in nanoseconds.
    pub throttled_nanos: u64,
    /// Memory in use, in bytes, with the page cache.
    pub memory_bytes: u64,
    /// Of it, page cache that could be dropped at once.
    pub memory_inactive_file_bytes: u64,
    /// The most memory ever in use.
    pub memory_peak_bytes: u64,
    /// The limit on memory; `None` without.
    pub memory_limit_bytes: Option<u64>,
    /// Processes killed because the limit was reached.
    pub oom_kills: u64,
    /// Processes and threads.
    pub pids: u64,
    /// The limit on them; `None` without.
    pub pids_limit: Option<u64>,
    /// Bytes read from block devices.
    pub io_read_bytes: u64,
    /// Bytes written to block devices.
    pub io_write_bytes: u64,
}

/// Version 1 reports "no limit" as the largest number of whole pages.
const UNLIMITED: u64 = 1 << 62;

pub(super) fn read_v1(directory: impl Fn(&str) -> Option<PathBuf>) -> Result<Stats, CgroupError> {
    let mut stats = Stats::default();
    if let Some(cpuacct) = directory("cpuacct") {
        stats.cpu_nanos = number(&cpuacct.join("cpuacct.usage"))?;
        stats.cpu_user_nanos = optional(&cpuacct.join("cpuacct.usage_user"));
        stats.cpu_system_nanos = optional(&cpuacct.join("cpuacct.usage_sys"));
    }
    if let Some(cpu) = directory("cpu") {
        let text = read_file(&cpu.join("cpu.stat"))?;
        stats.throttled_periods = keyed(&text, "nr_throttled");
        stats.throttled_nanos = keyed(&text, "throttled_time");
    }
    if let Some(memory) = directory("memory") {
        stats.memory_bytes = number(&memory.join("memory.usage_in_bytes"))?;
        stats.memory_peak_bytes = optional(&memory.join("memory.max_usage_in_bytes"));
        let limit = number(&memory.join("memory.limit_in_bytes"))?;
        stats.memory_limit_bytes = (limit < UNLIMITED).then_some(limit);
        let text = read_file(&memory.join("memory.stat"))?;
        stats.memory_inactive_file_bytes = keyed(&text, "total_inactive_file");
        stats.oom_kills = keyed(&read_file(&memory.join("memory.oom_control"))?, "oom_kill");
    }
    if let Some(pids) = directory("pids") {
        stats.pids = number(&pids.join("pids.current"))?;
        stats.pids_limit = optional_limit(&pids.join("pids.max"));
    }
    if let Some(blkio) = directory("blkio") {
        let text = fs::read_to_string(blkio.join("blkio.throttle.io_service_bytes_recursive"));
        for line in text.unwrap_or_default().lines() {
            // `254:0 Read 4096`
            let mut fields = line.split(' ').skip(1);
            let (kind, value) =
                (fields.next(), fields.next().and_then(|value| value.parse::<u64>().ok()));
            match (kind, value) {
                (Some("Read"), Some(value)) => stats.io_read_bytes += value,
                (Some("Write"), Some(value)) => stats.io_write_bytes += value,
                _ => {}
            }
        }
    }
    Ok(stats)
}

pub(super) fn read_v2(directory: &Path) -> Result<Stats, CgroupError> {
    let mut stats = Stats::default();
    let cpu = read_file(&directory.join("cpu.stat"))?;
    stats.cpu_nanos = keyed(&cpu, "usage_usec") * 1000;
    stats.cpu_user_nanos = keyed(&cpu, "user_usec") * 1000;
    stats.cpu_system_nanos = keyed(&cpu, "system_usec") * 1000;
    stats.throttled_periods = keyed(&cpu, "nr_throttled");
    stats.throttled_nanos = keyed(&cpu, "throttled_usec") * 1000;
    // The files below exist where the controller is handed down.
    stats.memory_bytes = optional(&directory.join("memory.current"));
    stats.memory_peak_bytes = optional(&directory.join("memory.peak"));
    stats.memory_limit_bytes = optional_limit(&directory.join("memory.max"));
    let text = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
    stats.memory_inactive_file_bytes = keyed(&text("memory.stat"), "inactive_file");
    stats.oom_kills = keyed(&text("memory.events"), "oom_kill");
    stats.pids = optional(&directory.join("pids.current"));
    stats.pids_limit = optional_limit(&directory.join("pids.max"));
    for field in text("io.stat").split_ascii_whitespace() {
        match field.split_once('=') {
            Some(("rbytes", value)) => stats.io_read_bytes += value.parse::<u64>().unwrap_or(0),
            Some(("wbytes", value)) => stats.io_write_bytes += value.parse::<u64>().unwrap_or(0),
            Some(_) | None => {}
        }
    }
    Ok(stats)
}

fn number(path: &Path) -> Result<u64, CgroupError> {
    Ok(read_file(path)?.trim().parse().unwrap_or(0))
}

fn optional(path: &Path) -> u64 {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// A limit that reads `max` is none.
fn optional_limit(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number after `key` in lines of `key number`.
fn keyed(text: &str, key: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

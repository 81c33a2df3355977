//! The counters of version 1, one hierarchy after the other.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Cpuset, HugePages, IoEntry, IoTables, MemoryCounter, ProcessorTime, Stats, parse};
use crate::cgroup::{CgroupError, read_file};

/// A tick of `cpuacct.stat`: there are a hundred a second on every architecture.
const TICK_NANOS: u64 = 10_000_000;

/// Reads the group whose directory `directory` names for each controller.
pub(in super::super) fn read(
    directory: impl Fn(&str) -> Option<PathBuf>,
) -> Result<Stats, CgroupError> {
    let mut stats = Stats::default();
    if let Some(cpuacct) = directory("cpuacct") {
        processor(&mut stats, &cpuacct)?;
    }
    if let Some(cpu) = directory("cpu") {
        let text = read_file(&cpu.join("cpu.stat"))?;
        stats.periods = parse::keyed(&text, "nr_periods");
        stats.throttled_periods = parse::keyed(&text, "nr_throttled");
        stats.throttled_nanos = parse::keyed(&text, "throttled_time");
        stats.burst_periods = parse::keyed(&text, "nr_bursts");
        stats.burst_nanos = parse::keyed(&text, "burst_time");
    }
    if let Some(cpuset) = directory("cpuset") {
        stats.cpuset = placement(&cpuset);
    }
    if let Some(memory) = directory("memory") {
        self::memory(&mut stats, &memory)?;
    }
    if let Some(pids) = directory("pids") {
        stats.pids = parse::number(&read_file(&pids.join("pids.current"))?);
        stats.pids_limit = parse::limit(&text(&pids, "pids.max"));
    }
    if let Some(blkio) = directory("blkio") {
        stats.io = tables(&blkio);
        stats.io_read_bytes = parse::sum(&stats.io.service_bytes, "Read");
        stats.io_write_bytes = parse::sum(&stats.io.service_bytes, "Write");
    }
    if let Some(hugetlb) = directory("hugetlb") {
        stats.huge_pages = huge_pages(&hugetlb);
    }
    if let Some(rdma) = directory("rdma") {
        stats.rdma = parse::rdma(&text(&rdma, "rdma.current"), &text(&rdma, "rdma.max"));
    }
    Ok(stats)
}

/// The text of a file that not every kernel has.
fn text(directory: &Path, file: &str) -> String {
    fs::read_to_string(directory.join(file)).unwrap_or_default()
}

fn processor(stats: &mut Stats, directory: &Path) -> Result<(), CgroupError> {
    stats.cpu_nanos = parse::number(&read_file(&directory.join("cpuacct.usage"))?);
    match (text(directory, "cpuacct.usage_user"), text(directory, "cpuacct.usage_sys")) {
        (user, system) if user.is_empty() || system.is_empty() => {
            let ticks = text(directory, "cpuacct.stat");
            stats.cpu_user_nanos = parse::keyed(&ticks, "user") * TICK_NANOS;
            stats.cpu_system_nanos = parse::keyed(&ticks, "system") * TICK_NANOS;
        }
        (user, system) => {
            stats.cpu_user_nanos = parse::number(&user);
            stats.cpu_system_nanos = parse::number(&system);
        }
    }
    let all = text(directory, "cpuacct.usage_percpu");
    let all = all.split_ascii_whitespace().map(parse::number);
    // `cpu user system`, then a line for each processor.
    let modes = text(directory, "cpuacct.usage_all");
    let mut modes = modes.lines().skip(1).map(|line| {
        let mut numbers = line.split_ascii_whitespace().skip(1).map(parse::number);
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    });
    stats.cpu_each = all
        .map(|nanos| {
            let (user_nanos, system_nanos) = modes.next().unwrap_or_default();
            ProcessorTime { nanos, user_nanos, system_nanos }
        })
        .collect();
    Ok(())
}

fn placement(directory: &Path) -> Cpuset {
    let flag = |name: &str| {
        let value = text(directory, &format!("cpuset.{name}")).trim().parse().ok()?;
        Some((name.to_owned(), value))
    };
    Cpuset {
        cpus: parse::list(&text(directory, "cpuset.cpus")),
        mems: parse::list(&text(directory, "cpuset.mems")),
        flags: Cpuset::FLAGS.into_iter().filter_map(flag).collect(),
    }
}

fn memory(stats: &mut Stats, directory: &Path) -> Result<(), CgroupError> {
    // A group that is gone is noticed here.
    read_file(&directory.join("memory.usage_in_bytes"))?;
    let all = counter(directory, "memory");
    stats.memory_bytes = all.bytes;
    stats.memory_peak_bytes = all.peak_bytes;
    stats.memory_limit_bytes = all.limit_bytes;
    stats.memory_failures = all.failures;
    stats.memory_counters = parse::table(&read_file(&directory.join("memory.stat"))?);
    let counted = |name: &str| stats.memory_counters.get(name).copied().unwrap_or(0);
    stats.memory_cache_bytes = counted("cache");
    stats.memory_inactive_file_bytes = counted("total_inactive_file");
    stats.oom_kills = parse::keyed(&text(directory, "memory.oom_control"), "oom_kill");
    stats.memory_and_swap = counter(directory, "memory.memsw");
    stats.swap = MemoryCounter {
        bytes: stats.memory_and_swap.bytes.saturating_sub(all.bytes),
        failures: stats.memory_and_swap.failures.saturating_sub(all.failures),
        is_kept: stats.memory_and_swap.is_kept,
        ..MemoryCounter::default()
    };
    stats.kernel = counter(directory, "memory.kmem");
    stats.kernel_tcp = counter(directory, "memory.kmem.tcp");
    Ok(())
}

fn counter(directory: &Path, name: &str) -> MemoryCounter {
    let used = text(directory, &format!("{name}.usage_in_bytes"));
    MemoryCounter {
        bytes: parse::number(&used),
        peak_bytes: parse::number(&text(directory, &format!("{name}.max_usage_in_bytes"))),
        limit_bytes: parse::limit(&text(directory, &format!("{name}.limit_in_bytes"))),
        failures: parse::number(&text(directory, &format!("{name}.failcnt"))),
        is_kept: !used.is_empty(),
    }
}

/// BFQ counts most, then what was CFQ, then what every kernel has.
fn tables(directory: &Path) -> IoTables {
    let table = |file: &str| -> Option<Vec<IoEntry>> {
        Some(parse::io_v1(&fs::read_to_string(directory.join(file)).ok()?))
    };
    let first = |files: [&str; 4]| files.into_iter().find_map(table).unwrap_or_default();
    let scheduled = |name: &str| {
        let found = table(&format!("blkio.bfq.{name}_recursive"));
        found.or_else(|| table(&format!("blkio.{name}_recursive"))).unwrap_or_default()
    };
    IoTables {
        service_bytes: first([
            "blkio.bfq.io_service_bytes_recursive",
            "blkio.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes",
        ]),
        serviced: first([
            "blkio.bfq.io_serviced_recursive",
            "blkio.io_serviced_recursive",
            "blkio.throttle.io_serviced_recursive",
            "blkio.throttle.io_serviced",
        ]),
        queued: scheduled("io_queued"),
        service_time: scheduled("io_service_time"),
        wait_time: scheduled("io_wait_time"),
        merged: scheduled("io_merged"),
        time: scheduled("time"),
        sectors: scheduled("sectors"),
    }
}

fn huge_pages(directory: &Path) -> BTreeMap<String, HugePages> {
    let sizes = super::v2::huge_page_sizes(directory, ".usage_in_bytes");
    let page = |size: String| {
        let reserved = format!("hugetlb.{size}.rsvd");
        let kept = directory.join(format!("{reserved}.usage_in_bytes")).exists();
        let name = if kept { reserved } else { format!("hugetlb.{size}") };
        let of = |file: &str| parse::number(&text(directory, &format!("{name}.{file}")));
        let pages = HugePages {
            bytes: of("usage_in_bytes"),
            peak_bytes: of("max_usage_in_bytes"),
            failures: of("failcnt"),
        };
        (size, pages)
    };
    sizes.into_iter().map(page).collect()
}

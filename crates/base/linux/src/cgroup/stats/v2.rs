//! The counters of version 2, all in one directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::{Cpuset, HugePages, IoTables, MemoryCounter, Misc, Stats, parse};
use crate::cgroup::{CgroupError, read_file};

/// Reads the group of this directory.
pub(in super::super) fn read(directory: &Path) -> Result<Stats, CgroupError> {
    let cpu = read_file(&directory.join("cpu.stat"))?;
    let micros = |key: &str| parse::keyed(&cpu, key).saturating_mul(1000);
    // The files below exist where the controller is handed down.
    let text = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
    let mut stats = Stats {
        cpu_nanos: micros("usage_usec"),
        cpu_user_nanos: micros("user_usec"),
        cpu_system_nanos: micros("system_usec"),
        periods: parse::keyed(&cpu, "nr_periods"),
        throttled_periods: parse::keyed(&cpu, "nr_throttled"),
        throttled_nanos: micros("throttled_usec"),
        burst_periods: parse::keyed(&cpu, "nr_bursts"),
        burst_nanos: micros("burst_usec"),
        cpu_pressure: parse::pressure(&text("cpu.pressure")),
        cpuset: Cpuset {
            cpus: parse::list(&text("cpuset.cpus.effective")),
            mems: parse::list(&text("cpuset.mems.effective")),
            flags: BTreeMap::new(),
        },
        pids: parse::number(&text("pids.current")),
        pids_limit: parse::limit(&text("pids.max")),
        io: tables(&text("io.stat")),
        io_pressure: parse::pressure(&text("io.pressure")),
        huge_pages: huge_pages(directory),
        rdma: parse::rdma(&text("rdma.current"), &text("rdma.max")),
        misc: misc(&text("misc.current"), &text("misc.events")),
        ..Stats::default()
    };
    memory(&mut stats, text);
    stats.io_read_bytes = parse::sum(&stats.io.service_bytes, "Read");
    stats.io_write_bytes = parse::sum(&stats.io.service_bytes, "Write");
    Ok(stats)
}

fn memory(stats: &mut Stats, text: impl Fn(&str) -> String) {
    let events = text("memory.events");
    stats.memory_bytes = parse::number(&text("memory.current"));
    stats.memory_peak_bytes = parse::number(&text("memory.peak"));
    stats.memory_limit_bytes = parse::limit(&text("memory.max"));
    stats.memory_failures = parse::keyed(&events, "max");
    stats.oom_kills = parse::keyed(&events, "oom_kill");
    stats.memory_counters = parse::table(&text("memory.stat"));
    let counted = |name: &str| stats.memory_counters.get(name).copied().unwrap_or(0);
    stats.memory_cache_bytes = counted("file");
    stats.memory_inactive_file_bytes = counted("inactive_file");
    stats.memory_pressure = parse::pressure(&text("memory.pressure"));
    let used = text("memory.swap.current");
    stats.swap = MemoryCounter {
        bytes: parse::number(&used),
        peak_bytes: parse::number(&text("memory.swap.peak")),
        limit_bytes: parse::limit(&text("memory.swap.max")),
        failures: parse::keyed(&text("memory.swap.events"), "max"),
        is_kept: !used.is_empty(),
    };
    if stats.swap.is_kept {
        stats.memory_and_swap = MemoryCounter {
            bytes: stats.memory_bytes + stats.swap.bytes,
            peak_bytes: 0, // The two peaks need not be of one moment.
            limit_bytes: match (stats.memory_limit_bytes, stats.swap.limit_bytes) {
                (Some(memory), Some(swap)) => Some(memory.saturating_add(swap)),
                _ => None,
            },
            failures: stats.swap.failures,
            is_kept: true,
        };
    }
}

fn tables(text: &str) -> IoTables {
    IoTables {
        service_bytes: parse::io_v2(
            text,
            &[("rbytes", "Read"), ("wbytes", "Write"), ("dbytes", "Discard")],
        ),
        serviced: parse::io_v2(text, &[("rios", "Read"), ("wios", "Write"), ("dios", "Discard")]),
        ..IoTables::default()
    }
}

fn huge_pages(directory: &Path) -> BTreeMap<String, HugePages> {
    let text = |name: String| fs::read_to_string(directory.join(name)).unwrap_or_default();
    let page = |size: String| {
        let reserved = text(format!("hugetlb.{size}.rsvd.current"));
        let used =
            if reserved.is_empty() { text(format!("hugetlb.{size}.current")) } else { reserved };
        let failures = parse::keyed(&text(format!("hugetlb.{size}.events")), "max");
        (size, HugePages { bytes: parse::number(&used), peak_bytes: 0, failures })
    };
    huge_page_sizes(directory, ".current").into_iter().map(page).collect()
}

/// The sizes for which the group has a file `hugetlb.SIZE` with this ending.
pub(super) fn huge_page_sizes(directory: &Path, ending: &str) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(directory) else { return BTreeSet::new() };
    let size = |name: &str| {
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(ending)?;
        (!size.contains('.')).then(|| size.to_owned())
    };
    entries.filter_map(|entry| size(entry.ok()?.file_name().to_str()?)).collect()
}

fn misc(current: &str, events: &str) -> BTreeMap<String, Misc> {
    let failures = parse::table(events);
    let one = |(name, used): (String, u64)| {
        let failures = failures.get(&format!("{name}.max")).copied().unwrap_or(0);
        (name, Misc { used, failures })
    };
    parse::table(current).into_iter().map(one).collect()
}

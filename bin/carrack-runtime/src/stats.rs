//! A container's counters under the keys that runc's `events` gives them.
//!
//! Left out are, as there, counters that are zero where that is what is usual.

use std::collections::BTreeMap;

use carrack_container_runtime::Stats;
use carrack_container_runtime::stats::{Cpuset, IoEntry, MemoryCounter, Pressure, Stall};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// The value of `data` in a line about what a container uses.
#[derive(Debug, Serialize)]
pub(crate) struct Counters {
    cpu: Cpu,
    cpuset: Map<String, Value>,
    memory: Memory,
    pids: Map<String, Value>,
    blkio: Map<String, Value>,
    hugetlb: BTreeMap<String, Value>,
    intel_rdt: Map<String, Value>,
    network_interfaces: Option<Vec<Value>>,
}

#[derive(Debug, Serialize)]
struct Cpu {
    usage: Usage,
    throttling: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Value>,
}

#[derive(Debug, Serialize)]
struct Usage {
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_user: Vec<u64>,
    kernel: u64,
    user: u64,
}

#[derive(Debug, Serialize)]
struct Memory {
    #[serde(skip_serializing_if = "is_zero")]
    cache: u64,
    usage: Entry,
    swap: Entry,
    kernel: Entry,
    #[serde(rename = "kernelTCP")]
    kernel_tcp: Entry,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Value>,
}

#[derive(Debug, Serialize)]
struct Entry {
    limit: u64,
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    failcnt: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl From<Stats> for Counters {
    fn from(stats: Stats) -> Self {
        // Version 1 counts memory and swap together, and knows no pressure.
        let swap = if stats.memory_and_swap.is_kept { stats.memory_and_swap } else { stats.swap };
        let one = stats.memory_and_swap.is_kept || !stats.cpu_each.is_empty();
        let total = MemoryCounter {
            bytes: stats.memory_bytes,
            peak_bytes: stats.memory_peak_bytes,
            limit_bytes: stats.memory_limit_bytes,
            failures: stats.memory_failures,
            is_kept: true,
        };
        Self {
            cpu: cpu(&stats),
            cpuset: cpuset(&stats),
            memory: Memory {
                cache: stats.memory_cache_bytes,
                usage: entry(total, one),
                swap: entry(swap, one),
                kernel: entry(stats.kernel, one),
                kernel_tcp: entry(stats.kernel_tcp, one),
                raw: stats.memory_counters.clone(),
                psi: stats.memory_pressure.map(pressure),
            },
            pids: filled([
                ("current", stats.pids),
                ("limit", stats.pids_limit.unwrap_or_default()),
            ]),
            blkio: blkio(&stats),
            hugetlb: stats
                .huge_pages
                .iter()
                .map(|(size, pages)| {
                    let mut shown = filled([("usage", pages.bytes), ("max", pages.peak_bytes)]);
                    shown.insert("failcnt".into(), json!(pages.failures));
                    (size.clone(), Value::Object(shown))
                })
                .collect(),
            intel_rdt: Map::new(),
            network_interfaces: None,
        }
    }
}

/// Those that are not zero.
fn filled<const N: usize>(numbers: [(&str, u64); N]) -> Map<String, Value> {
    let numbers = numbers.into_iter().filter(|(_, number)| *number != 0);
    numbers.map(|(name, number)| (name.to_owned(), json!(number))).collect()
}

fn cpu(stats: &Stats) -> Cpu {
    Cpu {
        usage: Usage {
            total: stats.cpu_nanos,
            percpu: stats.cpu_each.iter().map(|each| each.nanos).collect(),
            percpu_kernel: stats.cpu_each.iter().map(|each| each.system_nanos).collect(),
            percpu_user: stats.cpu_each.iter().map(|each| each.user_nanos).collect(),
            kernel: stats.cpu_system_nanos,
            user: stats.cpu_user_nanos,
        },
        throttling: filled([
            ("periods", stats.periods),
            ("throttledPeriods", stats.throttled_periods),
            ("throttledTime", stats.throttled_nanos),
        ]),
        psi: stats.cpu_pressure.map(pressure),
    }
}

fn cpuset(stats: &Stats) -> Map<String, Value> {
    let flags = &stats.cpuset.flags;
    let flag = |name: &str| (name.to_owned(), json!(flags.get(name).copied().unwrap_or_default()));
    let mut shown: Map<String, Value> = Cpuset::FLAGS.into_iter().map(flag).collect();
    for (name, numbers) in [("cpus", &stats.cpuset.cpus), ("mems", &stats.cpuset.mems)] {
        if !numbers.is_empty() {
            shown.insert(name.into(), json!(numbers));
        }
    }
    shown
}

/// No limit is the largest number there is, on version 1 of whole pages: callers know both.
/// A counter that is not kept has none at all.
fn entry(counter: MemoryCounter, is_version_one: bool) -> Entry {
    const PAGES: u64 = i64::MAX.cast_unsigned() & !4095;
    let none = if is_version_one { PAGES } else { u64::MAX };
    let limit = if counter.is_kept { counter.limit_bytes.unwrap_or(none) } else { 0 };
    Entry { limit, usage: counter.bytes, max: counter.peak_bytes, failcnt: counter.failures }
}

fn blkio(stats: &Stats) -> Map<String, Value> {
    let io = &stats.io;
    let tables = [
        ("ioServiceBytesRecursive", &io.service_bytes),
        ("ioServicedRecursive", &io.serviced),
        ("ioQueueRecursive", &io.queued),
        ("ioServiceTimeRecursive", &io.service_time),
        ("ioWaitTimeRecursive", &io.wait_time),
        ("ioMergedRecursive", &io.merged),
        ("ioTimeRecursive", &io.time),
        ("sectorsRecursive", &io.sectors),
    ];
    let mut shown = Map::new();
    for (name, table) in tables {
        if !table.is_empty() {
            shown.insert(name.into(), table.iter().map(device).collect());
        }
    }
    shown.extend(stats.io_pressure.map(|waits| ("psi".to_owned(), pressure(waits))));
    shown
}

fn device(entry: &IoEntry) -> Value {
    let mut shown =
        filled([("major", entry.major), ("minor", entry.minor), ("value", entry.value)]);
    if !entry.operation.is_empty() {
        shown.insert("op".into(), json!(entry.operation));
    }
    Value::Object(shown)
}

fn pressure(waits: Pressure) -> Value {
    let stall = |stall: Stall| {
        json!({
            "avg10": stall.avg10,
            "avg60": stall.avg60,
            "avg300": stall.avg300,
            "total": stall.total_micros,
        })
    };
    json!({ "some": stall(waits.some), "full": stall(waits.full) })
}

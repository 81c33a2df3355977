//! What a group has used: the counters of both versions in one shape.
//!
//! ```text
//! files of version 1 ─┐
//!                     ├─▶ Stats
//! files of version 2 ─┘
//! ```
//!
//! What one version does not count is zero, empty or `None`, and so is what this kernel or
//! this group has no controller for.

mod parse;
mod v1;
mod v2;

use std::collections::BTreeMap;

pub(super) use v1::read as read_v1;
pub(super) use v2::read as read_v2;

/// What a group has used. A counter this machine lacks is zero.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Processor time, in nanoseconds.
    pub cpu_nanos: u64,
    /// Of it, in programs.
    pub cpu_user_nanos: u64,
    /// Of it, in the kernel.
    pub cpu_system_nanos: u64,
    /// The same for each processor, in their order. Version 1 only.
    pub cpu_each: Vec<ProcessorTime>,
    /// Periods of the quota that have passed.
    pub periods: u64,
    /// Periods in which the quota ran out.
    pub throttled_periods: u64,
    /// Time spent waiting for the next period, in nanoseconds.
    pub throttled_nanos: u64,
    /// Periods in which saved time was used.
    pub burst_periods: u64,
    /// Saved time used, in nanoseconds.
    pub burst_nanos: u64,
    /// Waiting for a processor. Version 2 only.
    pub cpu_pressure: Option<Pressure>,
    /// Placement.
    pub cpuset: Cpuset,
    /// Memory in use, in bytes, with the page cache.
    pub memory_bytes: u64,
    /// Of it, page cache.
    pub memory_cache_bytes: u64,
    /// Of it, page cache that could be dropped at once.
    pub memory_inactive_file_bytes: u64,
    /// The most memory ever in use.
    pub memory_peak_bytes: u64,
    /// The limit on memory; `None` without.
    pub memory_limit_bytes: Option<u64>,
    /// How often the limit was reached.
    pub memory_failures: u64,
    /// Memory and swap together, which version 2 counts apart.
    pub memory_and_swap: MemoryCounter,
    /// Swap alone, which version 1 counts together with memory.
    pub swap: MemoryCounter,
    /// Memory of the kernel. Version 1 only.
    pub kernel: MemoryCounter,
    /// Memory of the kernel for TCP. Version 1 only.
    pub kernel_tcp: MemoryCounter,
    /// Every counter of `memory.stat`, by its name there.
    pub memory_counters: BTreeMap<String, u64>,
    /// Waiting for memory. Version 2 only.
    pub memory_pressure: Option<Pressure>,
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
    /// Block devices, one by one.
    pub io: IoTables,
    /// Waiting for block devices. Version 2 only.
    pub io_pressure: Option<Pressure>,
    /// Huge pages by their size, such as `2MB`.
    pub huge_pages: BTreeMap<String, HugePages>,
    /// RDMA by device.
    pub rdma: BTreeMap<String, Rdma>,
    /// Resources of the `misc` controller by name.
    pub misc: BTreeMap<String, Misc>,
}

/// Time on one processor, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessorTime {
    /// All of it.
    pub nanos: u64,
    /// In programs.
    pub user_nanos: u64,
    /// In the kernel.
    pub system_nanos: u64,
}

/// A counter of memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryCounter {
    /// In use.
    pub bytes: u64,
    /// The most ever in use.
    pub peak_bytes: u64,
    /// The limit; `None` without.
    pub limit_bytes: Option<u64>,
    /// How often the limit was reached.
    pub failures: u64,
    /// Whether this kernel keeps the counter.
    pub is_kept: bool,
}

/// How much of the time something waited: shares in percent, and the sum.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// When at least one task waited.
    pub some: Stall,
    /// When all did.
    pub full: Stall,
}

/// Shares of the last 10, 60 and 300 seconds, in percent, and all of it in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stall {
    /// Of the last 10 seconds.
    pub avg10: f64,
    /// Of the last 60 seconds.
    pub avg60: f64,
    /// Of the last 300 seconds.
    pub avg300: f64,
    /// All of it, in microseconds.
    pub total_micros: u64,
}

/// Where a group may run and allocate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpuset {
    /// Processors, one by one.
    pub cpus: Vec<u16>,
    /// Memory nodes, one by one.
    pub mems: Vec<u16>,
    /// Flags and numbers of version 1 by their names there, without `cpuset.`, such as
    /// `cpu_exclusive` and `sched_relax_domain_level`.
    pub flags: BTreeMap<String, i64>,
}

impl Cpuset {
    /// The names of the flags and numbers.
    pub const FLAGS: [&str; 9] = [
        "cpu_exclusive",
        "mem_hardwall",
        "mem_exclusive",
        "memory_migrate",
        "memory_spread_page",
        "memory_spread_slab",
        "memory_pressure",
        "sched_load_balance",
        "sched_relax_domain_level",
    ];
}

/// Work of block devices, one table for each thing counted. All include groups below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IoTables {
    /// Bytes moved.
    pub service_bytes: Vec<IoEntry>,
    /// Requests done.
    pub serviced: Vec<IoEntry>,
    /// Requests that wait.
    pub queued: Vec<IoEntry>,
    /// Time the device worked, in nanoseconds.
    pub service_time: Vec<IoEntry>,
    /// Time requests waited, in nanoseconds.
    pub wait_time: Vec<IoEntry>,
    /// Requests put together.
    pub merged: Vec<IoEntry>,
    /// Time the device was ours, in milliseconds.
    pub time: Vec<IoEntry>,
    /// Sectors moved.
    pub sectors: Vec<IoEntry>,
}

/// One number of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoEntry {
    /// The device's major number.
    pub major: u64,
    /// The device's minor number.
    pub minor: u64,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard`, `Total`; empty where it is not told.
    pub operation: String,
    /// The number.
    pub value: u64,
}

/// Huge pages of one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HugePages {
    /// Bytes in use.
    pub bytes: u64,
    /// The most ever in use. Version 1 only.
    pub peak_bytes: u64,
    /// How often the limit was reached.
    pub failures: u64,
}

/// One RDMA device; a limit of `None` is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rdma {
    /// Handles in use.
    pub handles: u64,
    /// Objects in use.
    pub objects: u64,
    /// The most handles.
    pub handles_limit: Option<u64>,
    /// The most objects.
    pub objects_limit: Option<u64>,
}

/// One resource of the `misc` controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Misc {
    /// How much is in use.
    pub used: u64,
    /// How often the limit was reached.
    pub failures: u64,
}

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::DeviceRule;

/// What a group may use. What is not set stays as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// Memory and swap.
    pub memory: Memory,
    /// Processor time and placement.
    pub cpu: Cpu,
    /// Processes and threads; a negative number means no limit, zero says nothing.
    pub pids: Option<i64>,
    /// Block devices.
    pub io: Io,
    /// Huge pages in bytes, by page size as the kernel spells it (`2MB`).
    pub huge_pages: Vec<(String, u64)>,
    /// Class identifier put on packets. Version 1 only.
    pub network_class: Option<u32>,
    /// Priority of packets by interface. Version 1 only.
    pub network_priorities: Vec<(String, u32)>,
    /// RDMA handles and objects by device.
    pub rdma: BTreeMap<String, (Option<u32>, Option<u32>)>,
    /// Which devices may be used; the last rule that matches decides.
    pub devices: Option<Vec<DeviceRule>>,
    /// Version 2 files and what to write into them, last.
    pub unified: BTreeMap<String, String>,
}

impl Limits {
    /// What is asked for, by its name in a configuration, and the controller it needs; devices
    /// are not among it, as they need none on version 2.
    pub fn needs(&self) -> Vec<(String, String)> {
        let (cpu, io) = (&self.cpu, &self.io);
        let placed = cpu.cpus.is_some() || cpu.mems.is_some();
        let timed = Cpu { cpus: None, mems: None, ..cpu.clone() } != Cpu::default();
        let limited = Memory { check_before_update: false, ..self.memory.clone() };
        let asked = [
            (limited != Memory::default(), "memory", "memory"),
            (timed, "cpu", "cpu"),
            (placed, "cpu.cpus and cpu.mems", "cpuset"),
            (self.pids.is_some_and(|pids| pids != 0), "pids", "pids"),
            (*io != Io::default(), "blockIO", "io"),
            (!self.huge_pages.is_empty(), "hugepageLimits", "hugetlb"),
            (self.network_class.is_some(), "network.classID", "net_cls"),
            (!self.network_priorities.is_empty(), "network.priorities", "net_prio"),
            (!self.rdma.is_empty(), "rdma", "rdma"),
        ];
        let asked = asked.into_iter().filter(|(asked, ..)| *asked);
        let asked = asked.map(|(_, field, controller)| (field.to_owned(), controller.to_owned()));
        let unified = self.unified.keys().map(|file| {
            let controller = file.split('.').next().unwrap_or_default();
            (format!("unified.{file}"), controller.to_owned())
        });
        asked.chain(unified).collect()
    }
}

/// Limits on memory, in bytes. `-1` means none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Memory at most.
    pub limit: Option<i64>,
    /// Memory to leave when others are short of it.
    pub reservation: Option<i64>,
    /// Memory and swap together at most.
    pub swap: Option<i64>,
    /// Readiness to swap, 0 to 100. Version 1 only.
    pub swappiness: Option<u64>,
    /// Stop at the limit instead of killing. Version 1 only.
    pub disable_oom_killer: Option<bool>,
    /// Refuse a limit below what is in use, which would kill at once. Version 1 always does.
    pub check_before_update: bool,
}

/// Limits on processor time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// Share when processors are contended, 2 to 262144; 1024 is everybody's.
    pub shares: Option<u64>,
    /// Microseconds of processor time in each period; negative means no limit.
    pub quota: Option<i64>,
    /// The period in microseconds.
    pub period: Option<u64>,
    /// Microseconds that may be saved up.
    pub burst: Option<u64>,
    /// Run only when nobody else wants to.
    pub idle: Option<i64>,
    /// Real-time microseconds in each period. Version 1 only.
    pub realtime_runtime: Option<i64>,
    /// The real-time period in microseconds. Version 1 only.
    pub realtime_period: Option<u64>,
    /// Processors to run on, such as `0-2,7`.
    pub cpus: Option<String>,
    /// Memory nodes to allocate from.
    pub mems: Option<String>,
}

/// Limits on block devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Io {
    /// Share of the device when contended, 10 to 1000.
    pub weight: Option<u16>,
    /// Share of the group's own processes against the groups below. Version 1 only.
    pub leaf_weight: Option<u16>,
    /// Share by device.
    pub weight_devices: Vec<DeviceWeight>,
    /// Bytes read per second.
    pub read_bytes: Vec<DeviceRate>,
    /// Bytes written per second.
    pub write_bytes: Vec<DeviceRate>,
    /// Reads per second.
    pub read_operations: Vec<DeviceRate>,
    /// Writes per second.
    pub write_operations: Vec<DeviceRate>,
}

/// A share of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceWeight {
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// The share, 10 to 1000.
    pub weight: Option<u16>,
    /// The share against the groups below. Version 1 only.
    pub leaf_weight: Option<u16>,
}

/// A rate on one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRate {
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// How much a second.
    pub rate: u64,
}

use carrack_linux::cgroup::{
    Cpu, DeviceAccess, DeviceKind, DeviceRate, DeviceRule, DeviceWeight, Io, Limits, Memory,
};
use carrack_oci::runtime as oci;

use super::Problems;

/// The limits that the configuration sets.
pub(super) fn of_container(linux: &oci::Linux, problems: &mut Problems) -> Limits {
    let resources = linux.resources.as_ref();
    resources.map_or_else(Limits::default, |resources| limits(resources, problems))
}

/// Resources in the words of control groups; rules on devices with the default ones, which
/// hold whenever there are any, in an update too.
pub(super) fn limits(resources: &oci::LinuxResources, problems: &mut Problems) -> Limits {
    let devices = Some(&resources.devices).filter(|rules| !rules.is_empty());
    Limits {
        memory: resources
            .memory
            .as_ref()
            .map_or_else(Memory::default, |memory| self::memory(memory, problems)),
        cpu: resources.cpu.as_ref().map_or_else(Cpu::default, cpu),
        pids: resources.pids.and_then(|pids| pids.limit),
        io: resources.block_io.as_ref().map_or_else(Io::default, io),
        huge_pages: resources
            .hugepage_limits
            .iter()
            .map(|limit| (limit.page_size.clone(), limit.limit))
            .collect(),
        network_class: resources.network.as_ref().and_then(|network| network.class_id),
        network_priorities: resources
            .network
            .iter()
            .flat_map(|network| &network.priorities)
            .map(|priority| (priority.name.clone(), priority.priority))
            .collect(),
        rdma: resources
            .rdma
            .iter()
            .map(|(device, limit)| (device.clone(), (limit.hca_handles, limit.hca_objects)))
            .collect(),
        devices: devices.map(|rules| {
            let rules = rules.iter().flat_map(|rule| device_rules(rule, problems));
            rules.chain(default_rules()).collect()
        }),
        unified: resources.unified.clone(),
    }
}

fn memory(memory: &oci::LinuxMemory, problems: &mut Problems) -> Memory {
    if memory.swappiness.is_some_and(|swappiness| swappiness > 100) {
        problems.add("linux.resources.memory.swappiness", "is not between 0 and 100");
    }
    for (name, limit) in [("kernel", memory.kernel), ("kernelTCP", memory.kernel_tcp)] {
        if limit.is_some_and(|limit| limit != 0) {
            // On no kernel in use; other runtimes leave it out, too.
            problems.warn(
                format!("linux.resources.memory.{name}"),
                "has no effect: kernel memory counts as memory; limit memory as a whole",
            );
        }
    }
    // Zero means "not set" for these, as every caller writes it.
    let set = |value: Option<i64>| value.filter(|&value| value != 0);
    for (name, limit) in [("kernel", memory.kernel), ("kernelTCP", memory.kernel_tcp)] {
        if set(limit).is_some() {
            problems.warn(
                format!("linux.resources.memory.{name}"),
                "has no effect: kernel memory counts as memory; limit memory as a whole",
            );
        }
    }
    Memory {
        limit: set(memory.limit),
        reservation: set(memory.reservation),
        swap: set(memory.swap),
        swappiness: memory.swappiness,
        disable_oom_killer: memory.disable_oom_killer,
        check_before_update: memory.check_before_update == Some(true),
    }
}

fn cpu(cpu: &oci::LinuxCpu) -> Cpu {
    let text = |value: &str| Some(value.to_owned()).filter(|value| !value.is_empty());
    Cpu {
        // Zero means "not set" for these, as every caller writes it.
        shares: cpu.shares.filter(|&value| value != 0),
        quota: cpu.quota.filter(|&value| value != 0),
        period: cpu.period.filter(|&value| value != 0),
        burst: cpu.burst,
        idle: cpu.idle,
        realtime_runtime: cpu.realtime_runtime.filter(|&value| value != 0),
        realtime_period: cpu.realtime_period.filter(|&value| value != 0),
        cpus: text(&cpu.cpus),
        mems: text(&cpu.mems),
    }
}

fn io(io: &oci::LinuxBlockIo) -> Io {
    let set = |weight: Option<u16>| weight.filter(|&weight| weight != 0);
    let rates = |rates: &[oci::LinuxThrottleDevice]| {
        let rate = |rate: &oci::LinuxThrottleDevice| DeviceRate {
            major: rate.major,
            minor: rate.minor,
            rate: rate.rate,
        };
        rates.iter().map(rate).collect()
    };
    Io {
        weight: set(io.weight),
        leaf_weight: set(io.leaf_weight),
        weight_devices: io
            .weight_device
            .iter()
            .map(|device| DeviceWeight {
                major: device.major,
                minor: device.minor,
                weight: set(device.weight),
                leaf_weight: set(device.leaf_weight),
            })
            .collect(),
        read_bytes: rates(&io.throttle_read_bps_device),
        write_bytes: rates(&io.throttle_write_bps_device),
        read_operations: rates(&io.throttle_read_iops_device),
        write_operations: rates(&io.throttle_write_iops_device),
    }
}

fn device_rules(rule: &oci::LinuxDeviceCgroup, problems: &mut Problems) -> Vec<DeviceRule> {
    let mut access = DeviceAccess::empty();
    for letter in access_of(rule).chars() {
        access |= match letter {
            'r' => DeviceAccess::READ,
            'w' => DeviceAccess::WRITE,
            'm' => DeviceAccess::MAKE,
            other => {
                problems.add(
                    "linux.resources.devices",
                    format!("access {other:?} is none of r, w and m"),
                );
                DeviceAccess::empty()
            }
        };
    }
    let number = |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok());
    let (major, minor) = (number(rule.major), number(rule.minor));
    let kinds: &[DeviceKind] = match rule.kind.as_str() {
        "" | "a" if major.is_none() && minor.is_none() && access == DeviceAccess::all() => {
            &[DeviceKind::All]
        }
        // The kernel takes "all" only for everything at once; less is said for each kind.
        "" | "a" => &[DeviceKind::Block, DeviceKind::Character],
        "b" => &[DeviceKind::Block],
        "c" | "u" => &[DeviceKind::Character],
        other => {
            problems
                .add("linux.resources.devices", format!("type {other:?} is none of a, b and c"));
            &[]
        }
    };
    kinds.iter().map(|&kind| DeviceRule { allow: rule.allow, kind, major, minor, access }).collect()
}

/// Nothing said is everything.
fn access_of(rule: &oci::LinuxDeviceCgroup) -> &str {
    if rule.access.is_empty() { "rwm" } else { &rule.access }
}

/// Nodes may be made, and the harmless ones used.
fn default_rules() -> impl Iterator<Item = DeviceRule> {
    let node = |kind| DeviceRule {
        allow: true,
        kind,
        major: None,
        minor: None,
        access: DeviceAccess::MAKE,
    };
    let device = |major, minor| DeviceRule {
        allow: true,
        kind: DeviceKind::Character,
        major: Some(major),
        minor,
        access: DeviceAccess::all(),
    };
    let devices = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)];
    [node(DeviceKind::Character), node(DeviceKind::Block)]
        .into_iter()
        .chain(devices.into_iter().map(move |(major, minor)| device(major, Some(minor))))
        .chain([device(136, None)])
}

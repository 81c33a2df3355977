use std::collections::BTreeMap;

use super::field::words;

words! {
    /// Limits on what a container may use.
    #[derive(Default)]
    pub struct LinuxResources {
        /// Which devices may be used; the last rule that matches decides.
        devices ("devices"): Vec<LinuxDeviceCgroup>,
        /// Memory.
        memory ("memory"): Option<LinuxMemory>,
        /// Processor time.
        cpu ("cpu"): Option<LinuxCpu>,
        /// Processes and threads.
        pids ("pids"): Option<LinuxPids>,
        /// Block devices.
        block_io ("blockIO"): Option<LinuxBlockIo>,
        /// Huge pages.
        hugepage_limits ("hugepageLimits"): Vec<LinuxHugepageLimit>,
        /// Packets.
        network ("network"): Option<LinuxNetwork>,
        /// RDMA, by device.
        rdma ("rdma"): BTreeMap<String, LinuxRdma>,
        /// Files of version 2 and what to write to them.
        unified ("unified"): BTreeMap<String, String>,
    }
}

words! {
    /// A rule on devices.
    #[derive(Default)]
    pub struct LinuxDeviceCgroup {
        /// Whether it permits or forbids.
        kept allow ("allow"): bool,
        /// `a`, `b` or `c`; all when empty.
        kind ("type"): String,
        /// Major number; all when absent or negative.
        major ("major"): Option<i64>,
        /// Minor number; all when absent or negative.
        minor ("minor"): Option<i64>,
        /// Some of `rwm`.
        access ("access"): String,
    }
}

words! {
    /// Limits on memory, in bytes; `-1` means none.
    #[derive(Copy, Default)]
    pub struct LinuxMemory {
        /// Memory.
        limit ("limit"): Option<i64>,
        /// Memory to leave when others are short of it.
        reservation ("reservation"): Option<i64>,
        /// Memory and swap together.
        swap ("swap"): Option<i64>,
        /// Kernel memory, which kernels since 5.4 do not limit.
        kernel ("kernel"): Option<i64>,
        /// Kernel memory for TCP.
        kernel_tcp ("kernelTCP"): Option<i64>,
        /// Readiness to swap, 0 to 100.
        swappiness ("swappiness"): Option<u64>,
        /// Stop at the limit instead of killing.
        disable_oom_killer ("disableOOMKiller"): Option<bool>,
        /// Count what groups below use.
        use_hierarchy ("useHierarchy"): Option<bool>,
        /// Refuse a new limit below what is in use.
        check_before_update ("checkBeforeUpdate"): Option<bool>,
    }
}

words! {
    /// Limits on processor time.
    #[derive(Default)]
    pub struct LinuxCpu {
        /// Share when processors are contended.
        shares ("shares"): Option<u64>,
        /// Microseconds in each period.
        quota ("quota"): Option<i64>,
        /// Microseconds that may be saved up.
        burst ("burst"): Option<u64>,
        /// The period in microseconds.
        period ("period"): Option<u64>,
        /// Real-time microseconds in each real-time period.
        realtime_runtime ("realtimeRuntime"): Option<i64>,
        /// The real-time period in microseconds.
        realtime_period ("realtimePeriod"): Option<u64>,
        /// Processors, as `0-2,7`.
        cpus ("cpus"): String,
        /// Memory nodes.
        mems ("mems"): String,
        /// 1: run only when nobody else wants to.
        idle ("idle"): Option<i64>,
    }
}

words! {
    /// A limit on processes and threads.
    #[derive(Copy, Default)]
    pub struct LinuxPids {
        /// The most; none when zero or less.
        limit ("limit"): Option<i64>,
    }
}

words! {
    /// Limits on block devices.
    #[derive(Default)]
    pub struct LinuxBlockIo {
        /// Share when a device is contended, 10 to 1000.
        weight ("weight"): Option<u16>,
        /// Share against groups below.
        leaf_weight ("leafWeight"): Option<u16>,
        /// Share by device.
        weight_device ("weightDevice"): Vec<LinuxWeightDevice>,
        /// Bytes read a second.
        throttle_read_bps_device ("throttleReadBpsDevice"): Vec<LinuxThrottleDevice>,
        /// Bytes written a second.
        throttle_write_bps_device ("throttleWriteBpsDevice"): Vec<LinuxThrottleDevice>,
        /// Reads a second.
        throttle_read_iops_device ("throttleReadIOPSDevice"): Vec<LinuxThrottleDevice>,
        /// Writes a second.
        throttle_write_iops_device ("throttleWriteIOPSDevice"): Vec<LinuxThrottleDevice>,
    }
}

words! {
    /// A share of one device.
    #[derive(Copy, Default)]
    pub struct LinuxWeightDevice {
        /// Major number.
        kept major ("major"): i64,
        /// Minor number.
        kept minor ("minor"): i64,
        /// The share.
        weight ("weight"): Option<u16>,
        /// The share against groups below.
        leaf_weight ("leafWeight"): Option<u16>,
    }
}

words! {
    /// A rate on one device.
    #[derive(Copy, Default)]
    pub struct LinuxThrottleDevice {
        /// Major number.
        kept major ("major"): i64,
        /// Minor number.
        kept minor ("minor"): i64,
        /// How much a second.
        kept rate ("rate"): u64,
    }
}

words! {
    /// A limit on huge pages.
    #[derive(Default)]
    pub struct LinuxHugepageLimit {
        /// Their size, such as `2MB`.
        kept page_size ("pageSize"): String,
        /// Bytes.
        kept limit ("limit"): u64,
    }
}

words! {
    /// Marks on packets.
    #[derive(Default)]
    pub struct LinuxNetwork {
        /// The class.
        class_id ("classID"): Option<u32>,
        /// Priorities by interface.
        priorities ("priorities"): Vec<LinuxInterfacePriority>,
    }
}

words! {
    /// A priority on one interface.
    #[derive(Default)]
    pub struct LinuxInterfacePriority {
        /// The interface.
        kept name ("name"): String,
        /// The priority.
        kept priority ("priority"): u32,
    }
}

words! {
    /// Limits on one RDMA device.
    #[derive(Copy, Default)]
    pub struct LinuxRdma {
        /// Handles.
        hca_handles ("hcaHandles"): Option<u32>,
        /// Objects.
        hca_objects ("hcaObjects"): Option<u32>,
    }
}

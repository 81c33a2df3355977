use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:7 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:32 / /mnt/again rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

#[test]
fn on_a_hybrid_system_the_controllers_of_version_one_are_used() {
    let layout = Layout::from_mounts(HYBRID).unwrap();
    assert_eq!(layout.version(), Version::One);
    assert_eq!(layout.hierarchies().len(), 3);
    let cpu = layout.with_controller("cpuacct").unwrap();
    assert_eq!(cpu.mount, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
    assert_eq!(layout.hierarchies()[2].controllers, ["name=systemd"]);
}

#[test]
fn a_lone_unified_mount_is_version_two() {
    let line = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
    let layout = Layout::from_mounts(line).unwrap();
    assert_eq!(layout.version(), Version::Two);
    assert!(matches!(Layout::from_mounts(""), Err(CgroupError::NotMounted)));
}

#[test]
fn a_path_that_climbs_or_names_the_root_is_refused() {
    let layout = Layout::from_mounts(HYBRID).unwrap();
    for path in ["/", "", "/a/../..", ".."] {
        let refused = Group::new(layout.clone(), Path::new(path));
        assert!(matches!(refused, Err(CgroupError::Path { .. })), "for {path:?}");
    }
}

fn lines(settings: Result<Vec<Setting>, CgroupError>) -> Vec<String> {
    settings.unwrap().iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect()
}

fn sample() -> Limits {
    Limits {
        memory: Memory {
            limit: Some(64 << 20),
            swap: Some(96 << 20),
            reservation: Some(1 << 20),
            ..Memory::default()
        },
        cpu: Cpu {
            shares: Some(1024),
            quota: Some(50_000),
            period: Some(100_000),
            ..Cpu::default()
        },
        pids: Some(32),
        ..Limits::default()
    }
}

#[test]
fn limits_become_version_one_settings_with_memory_before_swap() {
    assert_eq!(
        lines(v1::settings(&sample(), Current::default())),
        [
            "memory.limit_in_bytes=67108864",
            "memory.memsw.limit_in_bytes=100663296",
            "memory.soft_limit_in_bytes=1048576",
            "cpu.shares=1024",
            "cpu.cfs_period_us=100000",
            "cpu.cfs_quota_us=50000",
            "pids.max=32",
        ]
    );
}

#[test]
fn limits_become_version_two_settings_with_swap_counted_alone() {
    assert_eq!(
        lines(v2::settings(&sample(), Current::default())),
        [
            "memory.swap.max=33554432",
            "memory.max=67108864",
            "memory.low=1048576",
            "cpu.weight=100",
            "cpu.max=50000 100000",
            "pids.max=32",
        ]
    );
}

#[test]
fn everybodys_share_is_everybodys_weight_and_ends_are_kept() {
    for (shares, weight) in
        [(2, 1), (3, 2), (256, 35), (512, 59), (1024, 100), (2048, 174), (262_144, 10_000)]
    {
        assert_eq!(v2::cpu_weight(shares), weight, "for {shares}");
    }
    assert_eq!([v2::io_weight(10), v2::io_weight(1000)], [1, 10_000]);
}

#[test]
fn every_weight_is_what_a_library_of_mathematics_makes_of_the_formula() {
    for shares in 3..262_144u32 {
        let log = f64::from(shares).log2();
        let weight = 10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0);
        let expected = (weight - 1e-9).ceil();
        assert_eq!(v2::cpu_weight(shares.into()).to_string(), expected.to_string(), "{shares}");
    }
}

fn memory(limit: Option<i64>, swap: Option<i64>) -> Memory {
    Memory { limit, swap, ..Memory::default() }
}

#[test]
fn swap_on_version_two_is_what_is_left_beside_memory() {
    let (fresh, held) = (Current::default(), |memory, swap| Current {
        memory: Some(memory),
        swap: Some(swap),
        ..Current::default()
    });
    for (limit, swap, current, expected) in [
        (Some(10), Some(30), fresh, Some(Some(20))),
        (Some(10), Some(10), fresh, Some(Some(0))),
        (Some(10), Some(-1), fresh, Some(Some(-1))),
        (Some(10), None, fresh, Some(None)),
        (Some(-1), None, fresh, Some(Some(-1))),
        (Some(-1), Some(30), fresh, Some(Some(30))),
        (None, Some(-1), fresh, Some(Some(-1))),
        (None, Some(30), fresh, None),
        (Some(30), Some(10), fresh, None),
        // An update of one of them, where the other was set before.
        (None, Some(30), held(10, 0), Some(Some(20))),
        (Some(15), None, held(10, 20), Some(Some(15))),
        (Some(40), None, held(10, 20), None),
        (Some(15), None, held(10, -1), Some(None)),
        (Some(-1), None, held(10, 20), Some(Some(-1))),
    ] {
        let answer = v2::swap(&memory(limit, swap), current).ok();
        assert_eq!(answer, expected, "for {limit:?} {swap:?} after {current:?}");
    }
}

#[test]
fn on_version_one_the_limit_that_rises_is_written_first() {
    const SWAP: &str = "memory.memsw.limit_in_bytes";
    const LIMIT: &str = "memory.limit_in_bytes";
    for (limit, swap, held, order) in [
        (Some(10), Some(20), None, vec![LIMIT, SWAP]),
        (Some(10), Some(20), Some(-1), vec![LIMIT, SWAP]),
        (Some(30), Some(40), Some(10), vec![SWAP, LIMIT]),
        (Some(10), Some(20), Some(30), vec![LIMIT, SWAP]),
        (Some(10), Some(-1), Some(30), vec![SWAP, LIMIT]),
        (Some(-1), None, Some(30), vec![SWAP, LIMIT]),
    ] {
        let limits = Limits { memory: memory(limit, swap), ..Limits::default() };
        let current = Current { memory: held, ..Current::default() };
        let files: Vec<String> = v1::settings(&limits, current)
            .unwrap()
            .into_iter()
            .map(|setting| setting.file)
            .collect();
        assert_eq!(files, order, "for {limit:?} {swap:?} after {held:?}");
    }
}

#[test]
fn one_of_quota_and_period_leaves_the_other_as_it_was() {
    let limits = |quota, period| Limits {
        cpu: Cpu { quota, period, ..Cpu::default() },
        ..Limits::default()
    };
    let held = Current { quota: Some(5000), ..Current::default() };
    for (quota, period, current, expected) in [
        (Some(1000), Some(2000), held, "cpu.max=1000 2000"),
        (Some(1000), None, held, "cpu.max=1000"),
        (None, Some(2000), held, "cpu.max=5000 2000"),
        (None, Some(2000), Current::default(), "cpu.max=max 2000"),
        (Some(-1), Some(2000), held, "cpu.max=max 2000"),
        (Some(-1), None, held, "cpu.max=max"),
    ] {
        assert_eq!(lines(v2::settings(&limits(quota, period), current)), [expected]);
    }
}

#[test]
fn a_group_is_idle_after_its_weight_and_busy_before() {
    let limits = |idle| Limits {
        cpu: Cpu { shares: Some(1024), idle: Some(idle), ..Cpu::default() },
        ..Limits::default()
    };
    let settings = |idle| lines(v2::settings(&limits(idle), Current::default()));
    assert_eq!(settings(1), ["cpu.weight=100", "cpu.idle=1"]);
    assert_eq!(settings(0), ["cpu.idle=0", "cpu.weight=100"]);
}

#[test]
fn huge_pages_are_limited_when_reserved_too() {
    let limits = Limits { huge_pages: vec![("2MB".into(), 4)], ..Limits::default() };
    assert_eq!(
        lines(v2::settings(&limits, Current::default())),
        ["hugetlb.2MB.max=4", "hugetlb.2MB.rsvd.max=4"]
    );
    assert_eq!(
        lines(v1::settings(&limits, Current::default())),
        ["hugetlb.2MB.limit_in_bytes=4", "hugetlb.2MB.rsvd.limit_in_bytes=4"]
    );
}

#[test]
fn weights_of_block_devices_go_to_the_file_that_is_there() {
    let limits = Limits {
        io: Io {
            weight: Some(500),
            weight_devices: vec![DeviceWeight {
                major: 8,
                minor: 0,
                weight: Some(100),
                leaf_weight: None,
            }],
            ..Io::default()
        },
        ..Limits::default()
    };
    for (file, expected) in
        [("io.weight", "default 4950 8:0 910"), ("io.bfq.weight", "500 8:0 100")]
    {
        let directory = tempfile::tempdir().unwrap();
        let mut seen = Vec::new();
        for setting in v2::settings(&limits, Current::default()).unwrap() {
            std::fs::write(directory.path().join(file), "").unwrap();
            assert!(setting.write(directory.path(), true).unwrap());
            seen.push(std::fs::read_to_string(directory.path().join(file)).unwrap());
        }
        assert_eq!(seen.join(" "), expected);
    }
}

#[test]
fn a_limit_below_what_is_in_use_is_refused_when_asked_to() {
    let mut limits = Limits { memory: memory(Some(10), None), ..Limits::default() };
    let current = Current { used: Some(20), ..Current::default() };
    assert!(v2::settings(&limits, current).is_ok());
    limits.memory.check_before_update = true;
    let error = v2::settings(&limits, current).unwrap_err();
    assert!(matches!(error, CgroupError::InUse { used: 20, .. }), "{error}");
}

#[test]
fn memory_and_swap_rise_and_fall_together() {
    let Some(running) = Running::start(&sample()) else { return };
    for (limit, swap) in [(128, 256), (64, 64), (-1, -1), (32, 48)] {
        let bytes = |number: i64| if number < 0 { number } else { number << 20 };
        let limits =
            Limits { memory: memory(Some(bytes(limit)), Some(bytes(swap))), ..Limits::default() };
        running.group.apply(&limits).unwrap_or_else(|error| panic!("{limit} {swap}: {error}"));
        let held = running.group.stats().unwrap().memory_limit_bytes;
        assert_eq!(held, u64::try_from(bytes(limit)).ok());
    }
}

#[test]
fn what_a_version_cannot_do_is_refused_by_name() {
    let unified = Limits { unified: [("pids.max".into(), "1".into())].into(), ..Limits::default() };
    assert!(
        v1::settings(&unified, Current::default()).unwrap_err().to_string().contains("pids.max")
    );
    let mut swappiness = Limits::default();
    swappiness.memory.swappiness = Some(10);
    assert!(
        v2::settings(&swappiness, Current::default())
            .unwrap_err()
            .to_string()
            .contains("swappiness")
    );
}

fn unique() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    PathBuf::from(format!("/carrack-test-{}-{count}/inner", std::process::id()))
}

/// A group with a sleeping process in it, on whatever this machine has.
struct Running {
    group: Group,
    child: std::process::Child,
}

impl Running {
    fn start(limits: &Limits) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: control groups can only be made by root here");
            return None;
        }
        let group = Group::new(Layout::detect().unwrap(), &unique()).unwrap();
        group.create().unwrap();
        group.apply(limits).unwrap();
        let child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        group.add(Pid::from_child(&child)).unwrap();
        Some(Self { group, child })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.group.kill_all().ok();
        self.child.wait().ok();
        self.group.delete().ok();
        let parent = self.group.path.parent().unwrap();
        Group::new(self.group.layout.clone(), parent).unwrap().delete().ok();
    }
}

#[test]
fn a_process_in_a_group_is_listed_counted_frozen_and_killed() {
    let Some(mut running) = Running::start(&sample()) else { return };
    assert_eq!(running.group.processes().unwrap(), [Pid::from_child(&running.child)]);
    let stats = running.group.stats().unwrap();
    assert_eq!((stats.pids, stats.pids_limit), (1, Some(32)));
    assert_eq!(stats.memory_limit_bytes, Some(64 << 20));

    running.group.freeze().unwrap();
    assert!(running.group.is_frozen().unwrap());
    running.group.thaw().unwrap();
    assert!(!running.group.is_frozen().unwrap());

    // Even a frozen process is killed.
    running.group.freeze().unwrap();
    let killer = running.group.clone();
    let killing = std::thread::spawn(move || killer.kill_all());
    running.child.wait().unwrap();
    killing.join().unwrap().unwrap();
    running.group.delete().unwrap();
    assert!(!running.group.exists());
}

fn readable(watch: &OomWatch) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut polled = [PollFd::new(watch, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec { tv_sec: 20, tv_nsec: 0 })).unwrap() == 1
}

#[test]
fn running_out_of_memory_is_told_through_a_descriptor() {
    let mut limits = Limits::default();
    limits.memory.limit = Some(4 << 20);
    limits.memory.swap = Some(4 << 20);
    let Some(running) = Running::start(&limits) else { return };
    let mut watch = running.group.watch_oom().unwrap();
    assert_eq!(watch.take().unwrap(), OomEvents::default());
    let procs = running.group.directories().map(|directory| directory.join("cgroup.procs"));
    let joins: String = procs.map(|procs| format!("echo $$ > {}; ", procs.display())).collect();
    let script = format!("{joins} exec dd if=/dev/zero of=/dev/null bs=64M count=1");
    let mut greedy = std::process::Command::new("sh");
    let status = greedy.args(["-c", &script]).stderr(std::process::Stdio::null()).status();
    assert!(!status.unwrap().success());
    assert!(readable(&watch));
    assert!(watch.take().unwrap().count >= 1);
    let stats = running.group.stats().unwrap();
    assert!(stats.oom_kills >= 1, "{stats:?}");
    drop(running);
    assert!(watch.take().unwrap().is_over);
}

fn rule(allow: bool, kind: DeviceKind, minor: Option<u32>, access: DeviceAccess) -> DeviceRule {
    let major = minor.map(|_| 1);
    DeviceRule { allow, kind, major, minor, access }
}

#[test]
fn device_rules_are_spelled_as_version_one_reads_them() {
    let deny = rule(false, DeviceKind::All, None, DeviceAccess::all());
    let null = rule(true, DeviceKind::Character, Some(3), DeviceAccess::READ | DeviceAccess::WRITE);
    let any = rule(true, DeviceKind::Block, None, DeviceAccess::MAKE);
    assert_eq!([deny, null, any].map(|rule| rule.v1_text()), ["a", "c 1:3 rw", "b *:* m"]);
}

#[test]
fn the_kernel_accepts_the_device_filter() {
    let mount = Path::new("/sys/fs/cgroup/unified");
    let mount = if mount.is_dir() { mount } else { Path::new("/sys/fs/cgroup") };
    if !mount.join("cgroup.controllers").exists() {
        eprintln!("skipped: no version 2 hierarchy is mounted");
        return;
    }
    let directory = mount.join(format!("carrack-test-device-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let rules = [
        rule(false, DeviceKind::All, None, DeviceAccess::all()),
        rule(true, DeviceKind::Character, None, DeviceAccess::MAKE),
        rule(true, DeviceKind::Character, Some(3), DeviceAccess::READ | DeviceAccess::WRITE),
        rule(false, DeviceKind::Character, Some(5), DeviceAccess::WRITE),
    ];
    let attached = device::attach(&directory, &rules);
    let try_open = |device: &str| {
        let procs = directory.join("cgroup.procs");
        let script = format!("echo 0 > {} && exec head -c1 {device} >/dev/null", procs.display());
        let mut shell = std::process::Command::new("sh");
        shell
            .args(["-c", &script])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        shell.stdin(std::process::Stdio::null()).status().unwrap().success()
    };
    let verdicts = [try_open("/dev/null"), try_open("/dev/random")];
    // Other rules take the place of these; they do not merely add to them.
    let other = rule(true, DeviceKind::Character, Some(8), DeviceAccess::READ);
    let replaced = device::attach(
        &directory,
        &[other, rule(true, DeviceKind::Character, Some(3), DeviceAccess::WRITE)],
    );
    let after = try_open("/dev/random");
    std::fs::remove_dir(&directory).unwrap();
    attached.unwrap();
    replaced.unwrap();
    assert_eq!(verdicts, [true, false]);
    assert!(after);
}

#[test]
fn a_unified_setting_names_a_file_of_the_group() {
    let unified = |file: &str| Limits {
        unified: [(file.to_owned(), "5".to_owned())].into(),
        ..Limits::default()
    };
    assert!(v2::settings(&unified("memory.high"), Current::default()).is_ok());
    for name in ["../other/pids.max", "memory", ".high"] {
        let refused = v2::settings(&unified(name), Current::default());
        assert!(matches!(refused, Err(CgroupError::Name { .. })), "for {name}");
    }
    let mut lines = unified("io.max");
    lines.unified.insert("io.max".into(), "8:0 rbps=1\n8:16 wbps=2\n".into());
    let settings = v2::settings(&lines, Current::default()).unwrap();
    assert_eq!(settings.len(), 2);
}

#[test]
fn a_process_is_found_in_its_version_two_group() {
    let hybrid = "5:pids:/one\n0::/carrack/a/inner\n";
    assert_eq!(unified_path(hybrid), Some(Path::new("carrack/a/inner")));
    assert_eq!(unified_path("5:pids:/one\n"), None);
}

use super::parse;
use super::*;

/// A group as the kernel shows it.
fn group(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

#[test]
fn version_two_counters_are_all_read() {
    let group = group(&[
        (
            "cpu.stat",
            "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 9\nnr_throttled 4\nthrottled_usec 7\nnr_bursts 1\nburst_usec 8\n",
        ),
        (
            "cpu.pressure",
            "some avg10=1.50 avg60=0.25 avg300=0.00 total=77\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=5\n",
        ),
        ("cpuset.cpus.effective", "0-1,4\n"),
        ("cpuset.mems.effective", "0\n"),
        ("memory.current", "100\n"),
        ("memory.peak", "200\n"),
        ("memory.max", "300\n"),
        ("memory.events", "low 0\nmax 6\noom 2\noom_kill 1\n"),
        ("memory.stat", "anon 10\nfile 40\ninactive_file 30\n"),
        ("memory.swap.current", "11\n"),
        ("memory.swap.max", "50\n"),
        ("memory.swap.peak", "12\n"),
        ("pids.current", "3\n"),
        ("pids.max", "max\n"),
        (
            "io.stat",
            "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n7:1 rbytes=10 wbytes=0 rios=1 wios=0 dbytes=5 dios=1\n",
        ),
        ("hugetlb.2MB.current", "2\n"),
        ("hugetlb.2MB.rsvd.current", "4\n"),
        ("hugetlb.2MB.events", "max 3\n"),
        ("rdma.current", "mlx4_0 hca_handle=2 hca_object=20\n"),
        ("rdma.max", "mlx4_0 hca_handle=5 hca_object=max\n"),
        ("misc.current", "sev 1\n"),
        ("misc.events", "sev.max 2\n"),
    ]);
    let stats = read_v2(group.path()).unwrap();
    assert_eq!((stats.cpu_nanos, stats.periods, stats.throttled_nanos), (5000, 9, 7000));
    assert_eq!((stats.burst_periods, stats.burst_nanos), (1, 8000));
    let pressure = stats.cpu_pressure.unwrap();
    assert_eq!((pressure.some.avg10, pressure.some.total_micros), (1.5, 77));
    assert_eq!((pressure.full.avg10, stats.io_pressure), (0.5, None));
    assert_eq!((stats.cpuset.cpus, stats.cpuset.mems), (vec![0, 1, 4], vec![0]));
    assert_eq!((stats.memory_bytes, stats.memory_cache_bytes, stats.oom_kills), (100, 40, 1));
    assert_eq!((stats.memory_peak_bytes, stats.memory_failures), (200, 6));
    assert_eq!(stats.memory_counters["anon"], 10);
    assert_eq!((stats.swap.bytes, stats.swap.limit_bytes), (11, Some(50)));
    assert_eq!(stats.memory_and_swap.bytes, 111);
    assert_eq!(stats.memory_and_swap.limit_bytes, Some(350));
    assert_eq!((stats.pids, stats.pids_limit), (3, None));
    assert_eq!((stats.io_read_bytes, stats.io_write_bytes), (11, 2));
    assert_eq!(stats.io.service_bytes.len(), 6);
    assert_eq!(stats.huge_pages["2MB"], HugePages { bytes: 4, peak_bytes: 0, failures: 3 });
    let rdma = Rdma { handles: 2, objects: 20, handles_limit: Some(5), objects_limit: None };
    assert_eq!(stats.rdma["mlx4_0"], rdma);
    assert_eq!(stats.misc["sev"], Misc { used: 1, failures: 2 });
}

#[test]
fn version_one_counters_are_all_read() {
    let group = group(&[
        ("cpuacct.usage", "900\n"),
        ("cpuacct.stat", "user 2\nsystem 1\n"),
        ("cpuacct.usage_percpu", "500 400 \n"),
        ("cpuacct.usage_all", "cpu user system\n0 300 200\n1 300 100\n"),
        ("cpu.stat", "nr_periods 3\nnr_throttled 2\nthrottled_time 44\n"),
        ("cpuset.cpus", "1-2\n"),
        ("cpuset.mems", "0\n"),
        ("cpuset.cpu_exclusive", "0\n"),
        ("cpuset.sched_relax_domain_level", "-1\n"),
        ("memory.usage_in_bytes", "100\n"),
        ("memory.max_usage_in_bytes", "150\n"),
        ("memory.limit_in_bytes", "9223372036854771712\n"),
        ("memory.failcnt", "1\n"),
        ("memory.memsw.usage_in_bytes", "130\n"),
        ("memory.memsw.limit_in_bytes", "400\n"),
        ("memory.memsw.failcnt", "3\n"),
        ("memory.kmem.usage_in_bytes", "7\n"),
        ("memory.kmem.tcp.usage_in_bytes", "2\n"),
        ("memory.stat", "cache 9\ntotal_inactive_file 8\n"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"),
        ("pids.current", "4\n"),
        ("pids.max", "8\n"),
        (
            "blkio.throttle.io_service_bytes_recursive",
            "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\nTotal 30\n",
        ),
        ("blkio.throttle.io_serviced_recursive", "8:0 Read 1\n8:0 Write 2\nTotal 3\n"),
        ("blkio.bfq.sectors_recursive", "8:0 6\n"),
        ("hugetlb.2MB.usage_in_bytes", "2\n"),
        ("hugetlb.2MB.max_usage_in_bytes", "6\n"),
        ("hugetlb.2MB.failcnt", "1\n"),
    ]);
    let stats = read_v1(|_| Some(group.path().to_owned())).unwrap();
    assert_eq!((stats.cpu_nanos, stats.cpu_user_nanos), (900, 20_000_000));
    let second = ProcessorTime { nanos: 400, user_nanos: 300, system_nanos: 100 };
    assert_eq!((stats.cpu_each.len(), stats.cpu_each[1]), (2, second));
    assert_eq!((stats.periods, stats.throttled_periods, stats.throttled_nanos), (3, 2, 44));
    assert_eq!(stats.cpuset.cpus, [1, 2]);
    assert_eq!(stats.cpuset.flags["sched_relax_domain_level"], -1);
    assert_eq!((stats.memory_bytes, stats.memory_limit_bytes), (100, None));
    assert_eq!((stats.memory_and_swap.bytes, stats.swap.bytes, stats.swap.failures), (130, 30, 2));
    assert_eq!((stats.kernel.bytes, stats.kernel_tcp.bytes, stats.oom_kills), (7, 2, 5));
    assert_eq!((stats.io_read_bytes, stats.io_write_bytes), (10, 20));
    assert_eq!((stats.io.service_bytes.len(), stats.io.serviced.len()), (3, 2));
    let sector = IoEntry { major: 8, minor: 0, operation: String::new(), value: 6 };
    assert_eq!(stats.io.sectors, [sector]);
    assert_eq!(stats.huge_pages["2MB"], HugePages { bytes: 2, peak_bytes: 6, failures: 1 });
}

#[test]
fn lists_of_processors_are_spelled_out() {
    for (text, expected) in
        [("0-2,7\n", vec![0, 1, 2, 7]), ("\n", vec![]), ("5", vec![5]), ("a-3", vec![])]
    {
        assert_eq!(parse::list(text), expected, "for {text:?}");
    }
}

//! A container's use of the machine, as containerd's clients read it: `io.containerd.cgroups.v1.Metrics`
//! or `v2`, whichever the machine has.
//!
//! Counters are taken from the files as they are; one that is not there is left out.

use std::fs;
use std::path::{Path, PathBuf};

use carrack_linux::cgroup::{Group, Version};

use super::wire::{Any, Message};

/// The group's counters.
pub(super) fn of(group: &Group) -> Any {
    let files = |controller: &str| Files(group.directory(controller));
    match group.version() {
        Version::One => Any::of("io.containerd.cgroups.v1.Metrics", version_one(files)),
        Version::Two => Any::of("io.containerd.cgroups.v2.Metrics", version_two(&files("memory"))),
    }
}

/// A directory of counters; everything in one that is missing is missing.
struct Files(Option<PathBuf>);

impl Files {
    fn text(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.0.as_ref()?.join(name)).ok()
    }

    fn number(&self, name: &str) -> Option<u64> {
        number(&self.text(name)?)
    }

    fn names(&self) -> Vec<String> {
        let entries = self.0.as_ref().and_then(|path| fs::read_dir::<&Path>(path.as_ref()).ok());
        entries
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect()
    }
}

/// `max` is no limit: the largest number.
fn number(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(u64::MAX),
        text => text.parse().ok(),
    }
}

/// The number of `key number` in a line of its own.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| number(line.strip_prefix(key)?.strip_prefix(' ')?))
}

/// Puts counters by their keys into fields.
fn fields(message: Message, text: &str, keys: &[(u32, &str)]) -> Message {
    keys.iter().fold(message, |message, &(field, key)| {
        message.number(field, keyed(text, key).unwrap_or(0))
    })
}

trait Optional {
    fn optional(self, field: u32, number: Option<u64>) -> Self;
}

impl Optional for Message {
    fn optional(self, field: u32, number: Option<u64>) -> Self {
        self.number(field, number.unwrap_or(0))
    }
}

fn version_one(files: impl Fn(&str) -> Files) -> Message {
    let (pids, memory, blkio) = (files("pids"), files("memory"), files("blkio"));
    let mut metrics = Message::new()
        .messages(1, huge_pages_one(&files("hugetlb")))
        .message(2, &pids_of(&pids, |limit| if limit == u64::MAX { 0 } else { limit }))
        .message(3, &cpu_one(&files("cpuacct"), &files("cpu")));
    if let Some(stat) = memory.text("memory.stat") {
        metrics = metrics.message(4, &memory_one(&memory, &stat));
    }
    metrics = metrics.message(5, &blkio_one(&blkio));
    if let Some(text) = memory.text("memory.oom_control") {
        let keys = [(1, "oom_kill_disable"), (2, "under_oom"), (3, "oom_kill")];
        metrics = metrics.message(9, &fields(Message::new(), &text, &keys));
    }
    metrics
}

fn pids_of(files: &Files, limit: impl Fn(u64) -> u64) -> Message {
    Message::new()
        .optional(1, files.number("pids.current"))
        .optional(2, files.number("pids.max").map(limit))
}

fn cpu_one(cpuacct: &Files, cpu: &Files) -> Message {
    let each: Vec<u8> = cpuacct
        .text("cpuacct.usage_percpu")
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|one| Some(Message::new().number(1, one.parse::<u64>().ok()?)))
        // Numbers of one field are packed: without their tags.
        .flat_map(|one| one.as_bytes().get(1..).unwrap_or(&[0]).to_vec())
        .collect();
    let usage = Message::new()
        .optional(1, cpuacct.number("cpuacct.usage"))
        .optional(2, cpuacct.number("cpuacct.usage_sys"))
        .optional(3, cpuacct.number("cpuacct.usage_user"))
        .bytes(4, &each);
    let throttling = fields(
        Message::new(),
        &cpu.text("cpu.stat").unwrap_or_default(),
        &[(1, "nr_periods"), (2, "nr_throttled"), (3, "throttled_time")],
    );
    Message::new().message(1, &usage).message(2, &throttling)
}

fn memory_one(files: &Files, stat: &str) -> Message {
    const KEYS: [(u32, &str); 32] = [
        (1, "cache"),
        (2, "rss"),
        (3, "rss_huge"),
        (4, "mapped_file"),
        (5, "dirty"),
        (6, "writeback"),
        (7, "pgpgin"),
        (8, "pgpgout"),
        (9, "pgfault"),
        (10, "pgmajfault"),
        (11, "inactive_anon"),
        (12, "active_anon"),
        (13, "inactive_file"),
        (14, "active_file"),
        (15, "unevictable"),
        (16, "hierarchical_memory_limit"),
        (17, "hierarchical_memsw_limit"),
        (18, "total_cache"),
        (19, "total_rss"),
        (20, "total_rss_huge"),
        (21, "total_mapped_file"),
        (22, "total_dirty"),
        (23, "total_writeback"),
        (24, "total_pgpgin"),
        (25, "total_pgpgout"),
        (26, "total_pgfault"),
        (27, "total_pgmajfault"),
        (28, "total_inactive_anon"),
        (29, "total_active_anon"),
        (30, "total_inactive_file"),
        (31, "total_active_file"),
        (32, "total_unevictable"),
    ];
    let entry = |kind: &str| {
        let of = |name: &str| files.number(&format!("memory.{kind}{name}"));
        Message::new()
            .optional(1, of("limit_in_bytes"))
            .optional(2, of("usage_in_bytes"))
            .optional(3, of("max_usage_in_bytes"))
            .optional(4, of("failcnt"))
    };
    fields(Message::new(), stat, &KEYS)
        .message(33, &entry(""))
        .message(34, &entry("memsw."))
        .message(35, &entry("kmem."))
        .message(36, &entry("kmem.tcp."))
}

fn blkio_one(files: &Files) -> Message {
    // The first name is that of the weight-based scheduler, the second the throttler's.
    const LISTS: [(u32, &str, &str); 2] = [
        (1, "blkio.bfq.io_service_bytes_recursive", "blkio.throttle.io_service_bytes_recursive"),
        (2, "blkio.bfq.io_serviced_recursive", "blkio.throttle.io_serviced_recursive"),
    ];
    let entries = |name: &str| -> Vec<Message> {
        files.text(name).unwrap_or_default().lines().filter_map(blkio_entry).collect()
    };
    LISTS.into_iter().fold(Message::new(), |message, (field, name, fallback)| {
        let found = Some(entries(name)).filter(|found| !found.is_empty());
        message.messages(field, found.unwrap_or_else(|| entries(fallback)))
    })
}

/// `254:0 Read 4096`
fn blkio_entry(line: &str) -> Option<Message> {
    let mut words = line.split_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    let (operation, value) = (words.next()?, words.next()?);
    Some(
        Message::new()
            .text(1, operation)
            .number(3, major.parse::<u64>().ok()?)
            .number(4, minor.parse::<u64>().ok()?)
            .number(5, value.parse::<u64>().ok()?),
    )
}

fn huge_pages_one(files: &Files) -> Vec<Message> {
    let sizes = files.names().into_iter().filter_map(|name| {
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(".usage_in_bytes")?;
        (!size.contains("rsvd")).then(|| size.to_owned())
    });
    let stat = |size: String| {
        let of = |name: &str| files.number(&format!("hugetlb.{size}.{name}"));
        Message::new()
            .optional(1, of("usage_in_bytes"))
            .optional(2, of("max_usage_in_bytes"))
            .optional(3, of("failcnt"))
            .text(4, &size)
    };
    sizes.map(stat).collect()
}

fn version_two(files: &Files) -> Message {
    let text = |name: &str| files.text(name).unwrap_or_default();
    let cpu = fields(
        Message::new(),
        &text("cpu.stat"),
        &[
            (1, "usage_usec"),
            (2, "user_usec"),
            (3, "system_usec"),
            (4, "nr_periods"),
            (5, "nr_throttled"),
            (6, "throttled_usec"),
            (8, "nr_bursts"),
            (9, "burst_usec"),
        ],
    );
    let events = fields(
        Message::new(),
        &text("memory.events"),
        &[(1, "low"), (2, "high"), (3, "max"), (4, "oom"), (5, "oom_kill"), (6, "oom_group_kill")],
    );
    let io = text("io.stat");
    Message::new()
        .message(1, &pids_of(files, |limit| limit))
        .message(2, &cpu)
        .message(4, &memory_two(files))
        .message(6, &Message::new().messages(1, io.lines().filter_map(io_entry)))
        .messages(7, huge_pages_two(files))
        .message(8, &events)
}

fn memory_two(files: &Files) -> Message {
    const KEYS: [(u32, &str); 31] = [
        (1, "anon"),
        (2, "file"),
        (3, "kernel_stack"),
        (4, "slab"),
        (5, "sock"),
        (6, "shmem"),
        (7, "file_mapped"),
        (8, "file_dirty"),
        (9, "file_writeback"),
        (10, "anon_thp"),
        (11, "inactive_anon"),
        (12, "active_anon"),
        (13, "inactive_file"),
        (14, "active_file"),
        (15, "unevictable"),
        (16, "slab_reclaimable"),
        (17, "slab_unreclaimable"),
        (18, "pgfault"),
        (19, "pgmajfault"),
        (20, "workingset_refault"),
        (21, "workingset_activate"),
        (22, "workingset_nodereclaim"),
        (23, "pgrefill"),
        (24, "pgscan"),
        (25, "pgsteal"),
        (26, "pgactivate"),
        (27, "pgdeactivate"),
        (28, "pglazyfree"),
        (29, "pglazyfreed"),
        (30, "thp_fault_alloc"),
        (31, "thp_collapse_alloc"),
    ];
    fields(Message::new(), &files.text("memory.stat").unwrap_or_default(), &KEYS)
        .optional(32, files.number("memory.current"))
        .optional(33, files.number("memory.max"))
        .optional(34, files.number("memory.swap.current"))
        .optional(35, files.number("memory.swap.max"))
        .optional(36, files.number("memory.peak"))
        .optional(37, files.number("memory.swap.peak"))
}

/// `254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`
fn io_entry(line: &str) -> Option<Message> {
    let mut words = line.split_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    let entry =
        Message::new().number(1, major.parse::<u64>().ok()?).number(2, minor.parse::<u64>().ok()?);
    let pairs: Vec<_> = words.filter_map(|word| word.split_once('=')).collect();
    let keys = [(3, "rbytes"), (4, "wbytes"), (5, "rios"), (6, "wios")];
    Some(keys.into_iter().fold(entry, |entry, (field, key)| {
        let value = pairs.iter().find(|(name, _)| *name == key);
        entry.optional(field, value.and_then(|(_, value)| value.parse().ok()))
    }))
}

fn huge_pages_two(files: &Files) -> Vec<Message> {
    let sizes = files.names().into_iter().filter_map(|name| {
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(".current")?;
        (!size.contains("rsvd")).then(|| size.to_owned())
    });
    let stat = |size: String| {
        let of = |name: &str| files.text(&format!("hugetlb.{size}.{name}"));
        Message::new()
            .optional(1, of("current").and_then(|text| number(&text)))
            .optional(2, of("max").and_then(|text| number(&text)))
            .text(3, &size)
            .optional(4, of("events").and_then(|text| keyed(&text, "max")))
    };
    sizes.map(stat).collect()
}

#[cfg(test)]
mod tests {
    use super::super::wire::{Malformed, Value, for_each};
    use super::*;

    fn field<'a>(bytes: &'a [u8], path: &[u64]) -> Option<Value<'a>> {
        let (first, rest) = path.split_first()?;
        let mut found = None;
        for_each(bytes, |field, value| -> Result<(), Malformed> {
            if field == *first {
                found = Some(value);
            }
            Ok(())
        })
        .expect("whole");
        if rest.is_empty() { found } else { field(found?.bytes().expect("a message"), rest) }
    }

    fn files(all: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("directory");
        for (name, text) in all {
            fs::write(directory.path().join(name), text).expect("written");
        }
        let path = directory.path().to_owned();
        (directory, path)
    }

    #[test]
    fn counters_of_version_one_are_where_clients_look() {
        let (_directory, path) = files(&[
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
            ("cpuacct.usage", "1000\n"),
            ("cpuacct.usage_percpu", "0 300 700\n"),
            ("memory.stat", "cache 5\nrss 6\ntotal_inactive_file 7\n"),
            ("memory.usage_in_bytes", "4096\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
            ("blkio.throttle.io_service_bytes_recursive", "254:0 Read 512\nTotal 512\n"),
        ]);
        let metrics = version_one(|_| Files(Some(path.clone()))).into_bytes();
        let number = |path: &[u64]| field(&metrics, path).map(|value| value.number().expect("n"));
        assert_eq!(number(&[2, 1]), Some(3));
        assert_eq!(number(&[2, 2]), None, "no limit is zero");
        assert_eq!(number(&[3, 1, 1]), Some(1000));
        assert_eq!(field(&metrics, &[3, 1, 4]), Some(Value::Bytes(b"\x00\xac\x02\xbc\x05")));
        assert_eq!((number(&[4, 2]), number(&[4, 29])), (Some(6), None));
        assert_eq!((number(&[4, 30]), number(&[4, 33, 2])), (Some(7), Some(4096)));
        assert_eq!(number(&[9, 3]), Some(2));
        assert_eq!((number(&[5, 1, 3]), number(&[5, 1, 5])), (Some(254), Some(512)));
    }

    #[test]
    fn counters_of_version_two_are_where_clients_look() {
        let (_directory, path) = files(&[
            ("pids.current", "2\n"),
            ("pids.max", "max\n"),
            ("cpu.stat", "usage_usec 10\nuser_usec 4\nnr_bursts 1\n"),
            ("memory.stat", "anon 1\nfile 2\npgfault 9\n"),
            ("memory.current", "8192\n"),
            ("memory.max", "max\n"),
            ("memory.events", "low 0\noom_kill 1\n"),
            ("io.stat", "254:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n"),
        ]);
        let metrics = version_two(&Files(Some(path))).into_bytes();
        let number = |path: &[u64]| field(&metrics, path).map(|value| value.number().expect("n"));
        assert_eq!((number(&[1, 1]), number(&[1, 2])), (Some(2), Some(u64::MAX)));
        assert_eq!(
            (number(&[2, 1]), number(&[2, 2]), number(&[2, 8])),
            (Some(10), Some(4), Some(1))
        );
        assert_eq!(
            (number(&[4, 1]), number(&[4, 18]), number(&[4, 32])),
            (Some(1), Some(9), Some(8192))
        );
        assert_eq!(number(&[4, 33]), Some(u64::MAX));
        assert_eq!((number(&[6, 1, 2]), number(&[6, 1, 6])), (Some(16), Some(4)));
        assert_eq!(number(&[8, 5]), Some(1));
    }
}

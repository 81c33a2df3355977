//! What holds already, as far as new limits depend on it.

use std::path::Path;

use super::{Limits, read_file};

/// What holds in a group. Limits of `-1` are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Current {
    /// The limit on memory.
    pub(super) memory: Option<i64>,
    /// Version 2: the limit on swap alone.
    pub(super) swap: Option<i64>,
    /// The quota.
    pub(super) quota: Option<i64>,
    /// The period of the quota.
    pub(super) period: Option<u64>,
    /// Memory in use.
    pub(super) used: Option<i64>,
}

impl Current {
    /// Reads what `limits` depend on from version 1 groups.
    pub(super) fn one(memory: Option<&Path>, cpu: Option<&Path>, limits: &Limits) -> Self {
        let mut current = Self::default();
        if limits.memory.limit.is_some() && limits.memory.swap.is_some() {
            let file = memory.map(|memory| memory.join("memory.limit_in_bytes"));
            current.memory = file.and_then(|file| number(&file));
        }
        if limits.cpu.quota.is_some() != limits.cpu.period.is_some() {
            let of = |file: &str| number(&cpu?.join(file));
            current.quota = of("cpu.cfs_quota_us");
            current.period = of("cpu.cfs_period_us").and_then(|period| u64::try_from(period).ok());
        }
        current
    }

    /// Reads what `limits` depend on from a version 2 group.
    pub(super) fn two(directory: &Path, limits: &Limits) -> Self {
        let mut current = Self::default();
        if limits.memory.limit.is_some() || limits.memory.swap.is_some() {
            current.memory = number(&directory.join("memory.max"));
            current.swap = number(&directory.join("memory.swap.max"));
        }
        if limits.memory.check_before_update {
            current.used = number(&directory.join("memory.current"));
        }
        if limits.cpu.period.is_some() != limits.cpu.quota.is_some() {
            let text = read_file(&directory.join("cpu.max")).unwrap_or_default();
            let mut words = text.split_ascii_whitespace().map(word);
            current.quota = words.next().flatten();
            current.period = words.next().flatten().and_then(|period| u64::try_from(period).ok());
        }
        current
    }
}

/// The first word of a file.
fn number(file: &Path) -> Option<i64> {
    word(read_file(file).ok()?.split_ascii_whitespace().next()?)
}

/// A number, where `max` is `-1`.
fn word(text: &str) -> Option<i64> {
    match text {
        "max" => Some(-1),
        // Version 1 spells "none" as a number that need not fit, or as a negative one.
        text => text.parse::<i64>().ok().or_else(|| text.parse::<u64>().ok().map(|_| -1)),
    }
}

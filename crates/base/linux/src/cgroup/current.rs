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
    /// Version 2: the quota.
    pub(super) quota: Option<i64>,
    /// Memory in use.
    pub(super) used: Option<i64>,
}

impl Current {
    /// Reads what `limits` depend on from a version 1 memory group.
    pub(super) fn one(memory: Option<&Path>, limits: &Limits) -> Self {
        let both = limits.memory.limit.is_some() && limits.memory.swap.is_some();
        let file = memory.filter(|_| both).map(|memory| memory.join("memory.limit_in_bytes"));
        Self { memory: file.and_then(|file| number(&file)), ..Self::default() }
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
        if limits.cpu.period.is_some() && limits.cpu.quota.is_none() {
            current.quota = number(&directory.join("cpu.max"));
        }
        current
    }
}

/// The first word of a file, where `max` is `-1`.
fn number(file: &Path) -> Option<i64> {
    let text = read_file(file).ok()?;
    match text.split_ascii_whitespace().next()? {
        "max" => Some(-1),
        // Version 1 spells "none" as a number that need not fit.
        number => number.parse::<u64>().ok().map(|number| i64::try_from(number).unwrap_or(-1)),
    }
}

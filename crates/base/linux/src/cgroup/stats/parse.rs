//! The forms in which the kernel tells counters. Pure.

use std::collections::BTreeMap;

use super::{IoEntry, Pressure, Rdma, Stall};

/// Version 1 reports "no limit" as the largest number of whole pages.
const UNLIMITED: u64 = 1 << 62;

/// A lone number; zero when it is none.
pub(super) fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// A limit: none when it reads `max`, or too large to be meant.
pub(super) fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|&limit| limit < UNLIMITED)
}

/// Lines of `key number`.
pub(super) fn table(text: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// The number after `key` in lines of `key number`.
pub(super) fn keyed(text: &str, key: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .map_or(0, |(_, value)| number(value))
}

/// A list such as `0-2,7`.
pub(super) fn list(text: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

/// Lines of `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and of `full`.
pub(super) fn pressure(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    let mut told = false;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let stall = match words.next() {
            Some("some") => &mut pressure.some,
            Some("full") => &mut pressure.full,
            _ => continue,
        };
        *stall = self::stall(words);
        told = true;
    }
    told.then_some(pressure)
}

fn stall<'a>(words: impl Iterator<Item = &'a str>) -> Stall {
    let mut stall = Stall::default();
    for (key, value) in words.filter_map(|word| word.split_once('=')) {
        match key {
            "avg10" => stall.avg10 = value.parse().unwrap_or(0.0),
            "avg60" => stall.avg60 = value.parse().unwrap_or(0.0),
            "avg300" => stall.avg300 = value.parse().unwrap_or(0.0),
            "total" => stall.total_micros = number(value),
            _ => {}
        }
    }
    stall
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Version 1: lines of `254:0 Read 4096` or `254:0 4096`; sums (`Total 4096`) are left out.
pub(super) fn io_v1(text: &str) -> Vec<IoEntry> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (place, operation, value) = match *words.as_slice() {
            [place, operation, value] => (place, operation, value),
            [place, value] => (place, "", value),
            _ => return None,
        };
        let (major, minor) = device(place)?;
        Some(IoEntry { major, minor, operation: operation.into(), value: value.parse().ok()? })
    };
    text.lines().filter_map(line).collect()
}

/// Version 2: lines of `254:0 rbytes=1 wbytes=2 rios=3 …`, of which `keys` are taken under
/// the names that version 1 has for them.
pub(super) fn io_v2(text: &str, keys: &[(&str, &str)]) -> Vec<IoEntry> {
    let mut entries = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some((major, minor)) = words.next().and_then(device) else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let Some((_, operation)) = keys.iter().find(|(known, _)| *known == key) else {
                continue;
            };
            let value = number(value);
            entries.push(IoEntry { major, minor, operation: (*operation).to_owned(), value });
        }
    }
    entries
}

/// The sum over all devices of one operation.
pub(super) fn sum(entries: &[IoEntry], operation: &str) -> u64 {
    entries.iter().filter(|entry| entry.operation == operation).map(|entry| entry.value).sum()
}

/// Lines of `mlx4_0 hca_handle=2 hca_object=max`, from both files.
pub(super) fn rdma(current: &str, most: &str) -> BTreeMap<String, Rdma> {
    let mut devices: BTreeMap<String, Rdma> = BTreeMap::new();
    for (device, key, value) in rdma_fields(current) {
        let rdma = devices.entry(device.to_owned()).or_default();
        match key {
            "hca_handle" => rdma.handles = number(value),
            "hca_object" => rdma.objects = number(value),
            _ => {}
        }
    }
    for (device, key, value) in rdma_fields(most) {
        let rdma = devices.entry(device.to_owned()).or_default();
        match key {
            "hca_handle" => rdma.handles_limit = limit(value),
            "hca_object" => rdma.objects_limit = limit(value),
            _ => {}
        }
    }
    devices
}

fn rdma_fields(text: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    text.lines().flat_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let device = words.next().unwrap_or_default();
        words
            .filter_map(move |word| word.split_once('='))
            .map(move |(key, value)| (device, key, value))
    })
}

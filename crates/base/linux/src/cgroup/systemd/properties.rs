//! Limits in systemd's words. Pure.

use super::{Property, Scope};
use crate::cgroup::current::Current;
use crate::cgroup::device_list::List;
use crate::cgroup::{CgroupError, DeviceRule, Limits, Version, v2};
use crate::dbus::{Value, parse_text};

/// What systemd's own word for "no limit" is.
const INFINITY: u64 = u64::MAX;

/// A period that was not set is this many microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

/// Limits for systemd, and what is left to write into files in agreement with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The properties.
    pub properties: Vec<Property>,
    /// The limits, with the quota as systemd rounds it.
    pub limits: Limits,
}

/// What a scope starts with, besides its limits; `annotated` may say otherwise.
pub fn start_properties(
    scope: &Scope,
    description: &str,
    version: Version,
    annotated: &[Property],
) -> Vec<Property> {
    let io = match version {
        Version::One => "BlockIOAccounting",
        Version::Two => "IOAccounting",
    };
    let mut all = vec![
        text("Description", description),
        text("Slice", &scope.slice),
        ("Delegate".into(), Value::Bool(true)),
        ("DefaultDependencies".into(), Value::Bool(false)),
        // One that failed is no use to anybody, and its name should be free again.
        text("CollectMode", "inactive-or-failed"),
    ];
    let accounting = ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"];
    all.extend(accounting.map(|name| (name.to_owned(), Value::Bool(true))));
    all.retain(|(name, _)| annotated.iter().all(|(other, _)| other != name));
    all.extend(annotated.iter().cloned());
    all
}

/// What a unit does when memory runs out in it, which can only be said at its start.
pub fn oom_policy(limits: &Limits, release: u32) -> Option<Property> {
    let group = limits.unified.get("memory.oom.group").filter(|_| release >= 253)?;
    let policy = match group.trim() {
        "0" => "continue",
        "1" => "kill",
        _ => return None,
    };
    Some(text("OOMPolicy", policy))
}

/// The properties that `org.systemd.property.NAME` annotations ask for. Names that end in
/// `Sec` are turned into those in microseconds, which the bus has.
///
/// # Errors
///
/// The annotation, and what is wrong with it.
pub fn annotated<'a>(
    annotations: impl Iterator<Item = (&'a String, &'a String)>,
) -> Result<Vec<Property>, (String, String)> {
    let mut all = Vec::new();
    for (key, value) in annotations {
        let Some(name) = key.strip_prefix("org.systemd.property.") else { continue };
        let failed = |why: String| (key.clone(), why);
        if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(failed(format!("{name:?} is not the name of a property")));
        }
        let value = parse_text(value).map_err(failed)?;
        let bare = name
            .strip_suffix("Sec")
            .filter(|bare| bare.ends_with(|c: char| c.is_ascii_lowercase()));
        all.push(match bare {
            Some(bare) => {
                let micros =
                    micros(&value).ok_or_else(|| failed("is not a number of seconds".into()))?;
                (format!("{bare}USec"), Value::U64(micros))
            }
            None => (name.to_owned(), value),
        });
    }
    Ok(all)
}

fn micros(seconds: &Value) -> Option<u64> {
    const MICROS: u64 = 1_000_000;
    let whole = match *seconds {
        Value::Byte(number) => number.into(),
        Value::U16(number) => number.into(),
        Value::U32(number) => number.into(),
        Value::U64(number) => number,
        Value::I16(number) => u64::try_from(number).ok()?,
        Value::I32(number) => u64::try_from(number).ok()?,
        Value::I64(number) => u64::try_from(number).ok()?,
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a time that does not fit is the longest there is, a negative one none"
        )]
        Value::Double(number) => return Some((number * 1e6) as u64),
        _ => return None,
    };
    whole.checked_mul(MICROS)
}

fn text(name: &str, value: &str) -> Property {
    (name.to_owned(), Value::Text(value.to_owned()))
}

/// A limit, where anything negative is none.
fn number(value: i64) -> Value {
    Value::U64(u64::try_from(value).unwrap_or(INFINITY))
}

/// The limits in the words that a systemd of `release` knows; those it knows no word for
/// are only written into files.
///
/// # Errors
///
/// As the settings of version 2, for limits that contradict each other.
pub(in crate::cgroup) fn unit_properties(
    limits: &Limits,
    version: Version,
    release: u32,
    current: Current,
) -> Result<Told, CgroupError> {
    let mut told = Told { properties: Vec::new(), limits: limits.clone() };
    let mut push = |name: &str, value: Option<Value>| {
        told.properties.extend(value.map(|value| (name.to_owned(), value)));
    };
    let memory = &limits.memory;
    let idle = limits.cpu.idle == Some(1) && release >= 252;
    match version {
        Version::One => {
            push("MemoryLimit", memory.limit.map(number));
            push("CPUShares", limits.cpu.shares.map(Value::U64));
            push("BlockIOWeight", limits.io.weight.map(|weight| Value::U64(weight.into())));
        }
        Version::Two => {
            push("MemoryMax", memory.limit.map(number));
            push("MemoryLow", memory.reservation.map(number));
            push("MemorySwapMax", v2::swap(memory, current)?.map(number));
            let weight = limits.cpu.shares.map(|shares| Value::U64(v2::cpu_weight(shares)));
            // No weight at all is how systemd is told to let a unit idle.
            push("CPUWeight", if idle { Some(Value::U64(0)) } else { weight });
            push("IOWeight", limits.io.weight.map(|weight| Value::U64(v2::io_weight(weight))));
            if release >= 244 {
                push("AllowedCPUs", limits.cpu.cpus.as_deref().and_then(mask));
                push("AllowedMemoryNodes", limits.cpu.mems.as_deref().and_then(mask));
            }
        }
    }
    push("TasksMax", limits.pids.filter(|&pids| pids != 0).map(number));
    quota(&mut told, release, current);
    if let Some(rules) = &limits.devices {
        told.properties.extend(devices(rules, version, release));
    }
    unified(&mut told, release)?;
    Ok(told)
}

/// systemd keeps hundredths of a processor: the quota is rounded up to one, in the files too.
fn quota(told: &mut Told, release: u32, current: Current) {
    let cpu = &mut told.limits.cpu;
    if cpu.quota.is_none() && cpu.period.is_none() {
        return;
    }
    let period = cpu.period.or(current.period).unwrap_or(DEFAULT_PERIOD).max(1);
    let quota = cpu.quota.or(current.quota).unwrap_or(-1);
    if cpu.period.is_some() && release >= 242 {
        told.properties.push(("CPUQuotaPeriodUSec".into(), Value::U64(period)));
    }
    let mut each_second = INFINITY;
    if let Ok(quota) = u64::try_from(quota)
        && quota > 0
    {
        let exact = u128::from(quota) * 1_000_000 / u128::from(period);
        let rounded = u64::try_from(exact.next_multiple_of(10_000)).unwrap_or(INFINITY);
        each_second = rounded;
        if u128::from(rounded) != exact {
            let rounded = u128::from(rounded) * u128::from(period) / 1_000_000;
            cpu.quota = i64::try_from(rounded).ok();
        }
    }
    told.properties.push(("CPUQuotaPerSecUSec".into(), Value::U64(each_second)));
}

/// A list such as `0-2,7` as bits, the lowest first.
fn mask(list: &str) -> Option<Value> {
    let mut bytes: Vec<u8> = Vec::new();
    for part in list.trim().split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        // More than any machine has is left to the kernel to refuse.
        let range = first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?;
        for number in range {
            let byte = usize::from(number / 8);
            if bytes.len() <= byte {
                bytes.resize(byte + 1, 0);
            }
            *bytes.get_mut(byte)? |= 1 << (number % 8);
        }
    }
    (!bytes.is_empty()).then(|| Value::bytes(&bytes))
}

/// Devices in a list of what is allowed. What cannot be said so is left to our own filter on
/// version 2; version 1 has no second one, so that there systemd is told to allow none.
fn devices(rules: &[DeviceRule], version: Version, release: u32) -> Vec<Property> {
    let allow = |entries: Vec<(String, String)>| {
        let entry = |(path, access)| Value::Struct(vec![Value::Text(path), Value::Text(access)]);
        Value::Array("(ss)".into(), entries.into_iter().map(entry).collect())
    };
    let all = |policy: &str, entries: Vec<(String, String)>| {
        // An empty list takes back what an earlier one allowed.
        let mut all =
            vec![("DeviceAllow".to_owned(), allow(Vec::new())), text("DevicePolicy", policy)];
        if !entries.is_empty() {
            all.push(("DeviceAllow".to_owned(), allow(entries)));
        }
        all
    };
    // Before 240, systemd looked devices up among the nodes there are.
    let list = List::wanted(rules).ok().filter(|_| release >= 240);
    match (list.and_then(|list| list.allowed()), version) {
        (Some(entries), _) => all("strict", entries),
        (None, Version::Two) => all("auto", Vec::new()),
        (None, Version::One) => all("strict", Vec::new()),
    }
}

/// Files of version 2 that systemd has words for.
fn unified(told: &mut Told, release: u32) -> Result<(), CgroupError> {
    let idles = |told: &Told| {
        told.limits.unified.get("cpu.idle").is_some_and(|idle| idle.trim() == "1") && release >= 252
    };
    let mut all = Vec::new();
    for (file, value) in &told.limits.unified {
        let value = value.trim();
        let wrong = || CgroupError::Value { file: file.clone(), value: value.to_owned() };
        let limit = || match value {
            "max" => Ok(INFINITY),
            value => value.parse::<u64>().map_err(|_| wrong()),
        };
        let mut push = |name: &str, value: Value| all.push((name.to_owned(), value));
        match file.as_str() {
            "memory.high" => push("MemoryHigh", Value::U64(limit()?)),
            "memory.low" => push("MemoryLow", Value::U64(limit()?)),
            "memory.min" => push("MemoryMin", Value::U64(limit()?)),
            "memory.max" => push("MemoryMax", Value::U64(limit()?)),
            "memory.swap.max" => push("MemorySwapMax", Value::U64(limit()?)),
            "pids.max" => push("TasksMax", Value::U64(limit()?.max(1))),
            "cpu.idle" if idles(told) => push("CPUWeight", Value::U64(0)),
            "cpu.weight" if !idles(told) => push("CPUWeight", Value::U64(limit()?)),
            "io.weight" => {
                let weight = value.strip_prefix("default ").unwrap_or(value);
                // Weights of single devices have no word that takes their numbers.
                if let Ok(weight) = weight.parse() {
                    push("IOWeight", Value::U64(weight));
                }
            }
            "cpuset.cpus" if release >= 244 => push("AllowedCPUs", mask(value).ok_or_else(wrong)?),
            "cpuset.mems" if release >= 244 => {
                push("AllowedMemoryNodes", mask(value).ok_or_else(wrong)?);
            }
            "cpu.max" => {
                let mut words = value.split_ascii_whitespace();
                let quota = match words.next() {
                    Some("max") => -1,
                    Some(quota) => quota.parse().map_err(|_| wrong())?,
                    None => return Err(wrong()),
                };
                let period = words.next().map(|period| period.parse().map_err(|_| wrong()));
                let mut inner = Told { properties: Vec::new(), limits: Limits::default() };
                inner.limits.cpu.quota = Some(quota);
                inner.limits.cpu.period = period.transpose()?;
                self::quota(&mut inner, release, Current::default());
                all.extend(inner.properties);
            }
            _ => {}
        }
    }
    told.properties.extend(all);
    Ok(())
}

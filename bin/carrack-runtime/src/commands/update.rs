use std::process::ExitCode;

use carrack_oci::runtime as oci;
use serde_json::{Map, Value, json};

use super::{Command, Context, Failed};
use crate::options::{Arguments, Count, Flag, Usage, as_number};

pub(super) const UPDATE: Command = Command {
    name: "update",
    arguments: "ID",
    about: "change a container's limits",
    details: "Sizes are bytes, or end in b, k, m, g, t or p, such as 512m; -1 is no limit.\n\
              FILE holds what linux.resources of a config.json does; what is missing stays as it\n\
              is, and the other options are then ignored.",
    flags: &[
        Flag::valued("resources", "FILE", "read the limits from FILE, - for standard input")
            .short('r'),
        Flag::valued("blkio-weight", "WEIGHT", "share of block devices, 10 to 1000"),
        Flag::valued("cpu-period", "MICROS", "period of the processor quota"),
        Flag::valued("cpu-quota", "MICROS", "processor time in a period; -1 for no limit"),
        Flag::valued("cpu-burst", "MICROS", "unused quota that may be saved up"),
        Flag::valued("cpu-share", "SHARES", "share of processors, 2 to 262144"),
        Flag::valued("cpu-rt-period", "MICROS", "period of the real-time budget"),
        Flag::valued("cpu-rt-runtime", "MICROS", "real-time budget in a period"),
        Flag::valued("cpu-idle", "0|1", "run only when nobody else wants to"),
        Flag::valued("cpuset-cpus", "LIST", "processors to use, such as 0-3,6"),
        Flag::valued("cpuset-mems", "LIST", "memory nodes to use"),
        Flag::valued("kernel-memory", "SIZE", "(obsolete, ignored with a warning)"),
        Flag::valued("kernel-memory-tcp", "SIZE", "(obsolete, ignored with a warning)"),
        Flag::valued("memory", "SIZE", "limit on memory"),
        Flag::valued("memory-reservation", "SIZE", "memory that is taken away last"),
        Flag::valued("memory-swap", "SIZE", "limit on memory and swap together"),
        Flag::valued("pids-limit", "N", "limit on processes; -1 for none"),
        Flag::valued("l3-cache-schema", "SCHEMA", "(refused: there is no support for Intel RDT)"),
        Flag::valued("mem-bw-schema", "SCHEMA", "(refused: there is no support for Intel RDT)"),
    ],
    words: Count::Exactly(1),
    run: update,
};

fn update(context: &Context, arguments: &mut Arguments) -> Result<ExitCode, Failed> {
    for flag in ["l3-cache-schema", "mem-bw-schema"] {
        if arguments.value(flag).is_some() {
            return Err(Usage(format!(
                "--{flag}: Intel RDT is not enabled: this runtime does not set it; leave it out"
            ))
            .into());
        }
    }
    let id = arguments.id()?;
    let mut resources = match arguments.text("resources")? {
        Some("-") => serde_json::from_reader(std::io::stdin().lock())?,
        Some(file) => {
            let bytes = carrack_linux::fs::read_bounded(std::path::Path::new(file), 1 << 20);
            serde_json::from_slice(&bytes.map_err(|error| {
                std::io::Error::new(error.kind(), format!("reading {file}: {error}"))
            })?)?
        }
        None => flagged(arguments)?,
    };
    if drop_kernel_memory(&mut resources)
        || arguments.value("kernel-memory").is_some()
        || arguments.value("kernel-memory-tcp").is_some()
    {
        context.log().warn("Kernel memory settings are ignored and will be removed");
    }
    let resources: oci::LinuxResources = serde_json::from_value(resources)?;
    for warning in context.runtime.update(&id, &resources)? {
        context.log().warn(&warning.to_string());
    }
    Ok(ExitCode::SUCCESS)
}

/// Says whether there was any.
fn drop_kernel_memory(resources: &mut Value) -> bool {
    let Some(memory) = resources["memory"].as_object_mut() else { return false };
    let kernel = memory.remove("kernel").is_some_and(|value| !value.is_null());
    memory.remove("kernelTCP").is_some_and(|value| !value.is_null()) || kernel
}

/// The flags, as `linux.resources` has them.
fn flagged(arguments: &Arguments) -> Result<Value, Usage> {
    let mut cpu = Map::new();
    for (flag, field) in [
        ("cpu-period", "period"),
        ("cpu-burst", "burst"),
        ("cpu-share", "shares"),
        ("cpu-rt-period", "realtimePeriod"),
    ] {
        set(&mut cpu, field, arguments.number::<u64>(flag)?);
    }
    for (flag, field) in
        [("cpu-quota", "quota"), ("cpu-rt-runtime", "realtimeRuntime"), ("cpu-idle", "idle")]
    {
        set(&mut cpu, field, arguments.number::<i64>(flag)?);
    }
    set(&mut cpu, "cpus", arguments.text("cpuset-cpus")?);
    set(&mut cpu, "mems", arguments.text("cpuset-mems")?);
    let mut memory = Map::new();
    for (flag, field) in
        [("memory", "limit"), ("memory-reservation", "reservation"), ("memory-swap", "swap")]
    {
        let size = arguments.text(flag)?.map(|text| size(flag, text)).transpose()?;
        set(&mut memory, field, size);
    }
    let mut resources = Map::new();
    let weight = arguments.number::<u16>("blkio-weight")?.filter(|&weight| weight != 0);
    let parts = [
        ("cpu", Value::Object(cpu)),
        ("memory", Value::Object(memory)),
        ("blockIO", weight.map_or(json!({}), |weight| json!({ "weight": weight }))),
    ];
    for (name, part) in parts {
        if part.as_object().is_some_and(|part| !part.is_empty()) {
            resources.insert(name.into(), part);
        }
    }
    if let Some(limit) = arguments.number::<i64>("pids-limit")? {
        resources.insert("pids".into(), json!({ "limit": limit }));
    }
    Ok(Value::Object(resources))
}

fn set<V: Into<Value>>(into: &mut Map<String, Value>, field: &str, value: Option<V>) {
    if let Some(value) = value {
        into.insert(field.into(), value.into());
    }
}

/// Bytes, with a binary unit: `512m`, `1.5GiB`, `100`; `-1` for no limit.
fn size(flag: &str, text: &str) -> Result<i64, Usage> {
    if text == "-1" {
        return Ok(-1);
    }
    let wrong = || Usage(format!("invalid value for {flag}: invalid size: '{text}'"));
    let split = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let (number, unit) = text.split_at(split.unwrap_or(text.len()));
    let unit = unit.trim_start().to_ascii_lowercase();
    let prefix = unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit);
    let shift = match prefix {
        "" if unit != "ib" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(wrong()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: i64 = as_number(flag, whole).map_err(|_| wrong())?;
    let bytes = whole.checked_mul(1_i64 << shift).ok_or_else(wrong)?;
    Ok(bytes + part(fraction, shift).ok_or_else(wrong)?)
}

/// The part of `1 << shift` that decimal places say, rounded down.
fn part(places: &str, shift: u32) -> Option<i64> {
    // More places than this say nothing about bytes.
    let places = places.get(..places.len().min(18))?;
    if places.is_empty() {
        return Some(0);
    }
    let numerator: u64 = places.parse().ok()?;
    let denominator = 10_u128.pow(u32::try_from(places.len()).ok()?);
    i64::try_from((u128::from(numerator) << shift) / denominator).ok()
}

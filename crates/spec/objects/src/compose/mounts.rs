//! `volumes` and `tmpfs` of a service.

use super::application::{Mount, MountKind};
use super::reading::Reading;
use super::units;
use crate::cursor::Cursor;

/// Reads one entry of `volumes`.
pub(super) fn read(reading: &mut Reading<'_>, at: &Cursor<'_>) -> Option<Mount> {
    if at.is_mapping() { long(reading, at) } else { short(reading, at) }
}

/// Reads one entry of `tmpfs`: a path, and options after a colon.
pub(super) fn tmpfs(reading: &mut Reading<'_>, at: &Cursor<'_>) -> Option<Mount> {
    let written = reading.text(at)?;
    let (target, options) = written.split_once(':').unwrap_or((&written, ""));
    let target = reading.container_path(at, target)?;
    let (mut size, mut mode, mut read_only) = (None, None, false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let understood = match name {
            "size" => {
                size = units::bytes(value);
                size.is_some()
            }
            "mode" => {
                mode = octal(value);
                mode.is_some()
            }
            "ro" => {
                read_only = true;
                true
            }
            // What every tmpfs here is anyway.
            "rw" | "nosuid" | "nodev" | "noexec" => true,
            _ => false,
        };
        if !understood {
            reading
                .wrong(at, format_args!("has the option `{option}`, which is not supported yet"));
        }
    }
    Some(Mount { target, read_only, kind: MountKind::Tmpfs { size, mode } })
}

/// `[SOURCE:]TARGET[:OPTIONS]`.
fn short(reading: &mut Reading<'_>, at: &Cursor<'_>) -> Option<Mount> {
    let written = reading.text(at)?;
    let parts: Vec<_> = written.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => {
            reading.wrong(at, format_args!("takes `[SOURCE:]TARGET[:OPTIONS]`, not `{written}`"));
            return None;
        }
    };
    let target = reading.container_path(at, target)?;
    let (mut read_only, mut nocopy) = (false, false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            "nocopy" => nocopy = true,
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" | "rprivate" | "private" => {}
            _ => reading
                .wrong(at, format_args!("has the option `{option}`, which is not supported yet")),
        }
    }
    let kind = match source {
        Some("") => {
            reading.wrong(at, "names nothing before the colon");
            return None;
        }
        Some(source) if source.starts_with(['/', '.', '~']) => {
            MountKind::Bind { source: reading.host_path(source), create: true }
        }
        Some(name) => MountKind::Volume { name: Some(name.to_owned()), nocopy },
        None => MountKind::Volume { name: None, nocopy },
    };
    Some(Mount { target, read_only, kind })
}

fn long(reading: &mut Reading<'_>, at: &Cursor<'_>) -> Option<Mount> {
    let (Some(kind_at), Some(target_at)) = (at.get("type"), at.get("target")) else {
        reading.wrong(at, "needs `type` and `target`");
        return None;
    };
    let kind = reading.text(&kind_at)?;
    let target = reading.text(&target_at)?;
    let target = reading.container_path(&target_at, &target)?;
    let read_only = at.get("read_only").and_then(|at| reading.boolean(&at)).unwrap_or(false);
    let source = match at.get("source") {
        Some(at) => Some(reading.text(&at)?),
        None => None,
    };
    for other in ["bind", "volume", "tmpfs"].into_iter().filter(|other| *other != kind) {
        if let Some(at) = at.get(other) {
            reading.wrong(&at, format_args!("says nothing about a mount of type `{kind}`"));
        }
    }
    let kind = match (kind.as_str(), source) {
        ("bind", Some(source)) => MountKind::Bind {
            source: reading.host_path(&source),
            create: flag(reading, at, "bind", "create_host_path").unwrap_or(true),
        },
        ("bind", None) => {
            reading.wrong(at, "lacks `source`");
            return None;
        }
        ("volume", name) => MountKind::Volume {
            name,
            nocopy: flag(reading, at, "volume", "nocopy").unwrap_or(false),
        },
        ("tmpfs", None) => long_tmpfs(reading, at),
        ("tmpfs", Some(_)) => {
            reading.wrong(at, "has a `source`, which a tmpfs does not");
            return None;
        }
        (other, _) => {
            reading.wrong(
                &kind_at,
                format_args!("takes `bind`, `volume` or `tmpfs`; `{other}` is not supported yet"),
            );
            return None;
        }
    };
    Some(Mount { target, read_only, kind })
}

fn flag(reading: &mut Reading<'_>, at: &Cursor<'_>, group: &str, name: &str) -> Option<bool> {
    let at = at.get(group)?.get(name)?;
    reading.boolean(&at)
}

fn long_tmpfs(reading: &mut Reading<'_>, at: &Cursor<'_>) -> MountKind {
    let options = at.get("tmpfs");
    let size = options.as_ref().and_then(|at| at.get("size")).and_then(|at| reading.bytes(&at));
    let mode = options
        .as_ref()
        .and_then(|at| at.get("mode"))
        .and_then(|at| reading.parsed(&at, "permission bits in octal, such as `1777`", octal));
    MountKind::Tmpfs { size, mode }
}

fn octal(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o7777)
}

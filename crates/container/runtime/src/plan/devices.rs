use std::path::{Path, PathBuf};

use carrack_oci::runtime as oci;

use super::Problems;

/// A device node, or a pipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DevicePlan {
    pub(crate) path: PathBuf,
    pub(crate) kind: rustix::fs::FileType,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The nodes to make: those every container has, and those asked for.
pub(super) fn plan(linux: &oci::Linux, problems: &mut Problems) -> Vec<DevicePlan> {
    use rustix::fs::FileType;
    let mut devices = default_devices();
    for (index, device) in linux.devices.iter().enumerate() {
        let field = format!("linux.devices[{index}]");
        let kind = match device.kind.as_str() {
            "b" => FileType::BlockDevice,
            "c" | "u" => FileType::CharacterDevice,
            "p" => FileType::Fifo,
            other => {
                problems.add(field, format!("type {other:?} is none of b, c, u and p"));
                continue;
            }
        };
        let path = device.path.clone();
        if !path.is_absolute() {
            problems.add(&field, format!("{} is not absolute", path.display()));
        }
        let number = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
        devices.retain(|known| known.path != path);
        devices.push(DevicePlan {
            path,
            kind,
            major: number(device.major),
            minor: number(device.minor),
            mode: device.file_mode.unwrap_or(0o666) & 0o7777,
            uid: device.uid.unwrap_or(0),
            gid: device.gid.unwrap_or(0),
        });
    }
    devices
}

/// What the specification says is always there.
fn default_devices() -> Vec<DevicePlan> {
    [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ]
    .into_iter()
    .map(|(name, major, minor)| DevicePlan {
        path: Path::new("/dev").join(name),
        kind: rustix::fs::FileType::CharacterDevice,
        major,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    })
    .collect()
}

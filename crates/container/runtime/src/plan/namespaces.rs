use std::path::{Path, PathBuf};

use carrack_linux::namespace::Kinds;
use carrack_oci::runtime as oci;

use super::Problems;

/// Namespaces to make and to join.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    pub(crate) new: Kinds,
    /// By their files.
    pub(crate) joined: Vec<(Kinds, PathBuf)>,
    /// Lines for `timens_offsets`; empty without.
    pub(crate) time_offsets: String,
}

impl Namespaces {
    /// All that are not the caller's.
    pub(crate) fn own(&self) -> Kinds {
        self.joined.iter().fold(self.new, |all, (kind, _)| all | *kind)
    }

    /// The file of a namespace that is joined.
    pub(crate) fn path_of(&self, kind: Kinds) -> Option<&Path> {
        self.joined.iter().find(|(other, _)| *other == kind).map(|(_, path)| path.as_path())
    }
}

fn kind_of(kind: oci::LinuxNamespaceType) -> Kinds {
    use oci::LinuxNamespaceType as Type;
    match kind {
        Type::Mount => Kinds::MOUNT,
        Type::Cgroup => Kinds::CGROUP,
        Type::Uts => Kinds::UTS,
        Type::Ipc => Kinds::IPC,
        Type::User => Kinds::USER,
        Type::Pid => Kinds::PID,
        Type::Network => Kinds::NETWORK,
        Type::Time => Kinds::TIME,
    }
}

pub(super) fn plan(linux: &oci::Linux, problems: &mut Problems) -> Namespaces {
    let mut plan = Namespaces::default();
    for namespace in &linux.namespaces {
        let kind = kind_of(namespace.kind);
        if plan.own().contains(kind) {
            problems.add("linux.namespaces", format!("{} is listed twice", namespace.kind));
        }
        let path = &namespace.path;
        if path.as_os_str().is_empty() {
            plan.new |= kind;
            continue;
        }
        if !path.is_absolute() {
            problems.add("linux.namespaces", format!("{} is not absolute", path.display()));
        }
        plan.joined.push((kind, path.clone()));
    }
    plan.time_offsets = time_offsets(linux, plan.new, problems);
    plan
}

/// `monotonic 3600 0`, a line for each clock.
fn time_offsets(linux: &oci::Linux, new: Kinds, problems: &mut Problems) -> String {
    let mut lines = String::new();
    for (clock, offset) in &linux.time_offsets {
        let field = format!("linux.timeOffsets.{clock}");
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            problems.add(&field, "is no clock with an offset; there are monotonic and boottime");
        }
        if offset.nanosecs > 999_999_999 {
            problems.add(&field, format!("{} nanoseconds are a second or more", offset.nanosecs));
        }
        if !new.contains(Kinds::TIME) {
            problems.add(&field, "needs a new time namespace in linux.namespaces");
        }
        lines.push_str(&format!("{clock} {} {}\n", offset.secs, offset.nanosecs));
    }
    lines
}

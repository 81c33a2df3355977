use std::path::{Path, PathBuf};

use carrack_linux::mount::{Attributes, Change, Propagation};
use carrack_linux::namespace::Kinds;
use carrack_oci::runtime as oci;

use super::Problems;

/// One mount to make.
#[derive(Clone, Debug)]
pub(crate) struct MountPlan {
    pub(crate) destination: PathBuf,
    pub(crate) source: MountSource,
    /// For the mount itself.
    pub(crate) change: Change,
    /// For it and all mounts below it.
    pub(crate) recursive: Change,
    pub(crate) propagation: Option<(Propagation, bool)>,
    /// Whom the owners of its files are shown as; for all mounts below too, with `true`.
    pub(crate) id_map: Option<(IdMap, bool)>,
    /// Whether it starts with what the image has there.
    pub(crate) copy_up: bool,
    /// The SELinux label of a file system that is made for it.
    pub(crate) label: Option<String>,
}

/// A map of owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IdMap {
    /// That of the container's user namespace.
    Container,
    /// One of its own, as lines of `uid_map` and `gid_map`.
    Own { uids: String, gids: String },
}

/// Where a mount comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MountSource {
    /// A file or directory of the host.
    Bind { path: PathBuf, recursive: bool },
    /// The control groups as the container may see them.
    Cgroup,
    /// A mount made earlier, to be changed.
    Remount { bind: bool, options: Vec<(String, Option<String>)> },
    /// A new file system.
    New { kind: String, source: String, options: Vec<(String, Option<String>)> },
}

impl MountPlan {
    /// A directory of the host, to be looked at only.
    pub(crate) fn shown(source: &Path, destination: &Path) -> Self {
        let set =
            Attributes::READ_ONLY | Attributes::NO_SUID | Attributes::NO_DEV | Attributes::NO_EXEC;
        Self {
            destination: destination.to_owned(),
            source: MountSource::Bind { path: source.to_owned(), recursive: false },
            change: Change { set, ..Change::default() },
            recursive: Change::default(),
            propagation: None,
            id_map: None,
            copy_up: false,
            label: None,
        }
    }

    pub(crate) fn is_bind(&self) -> bool {
        matches!(self.source, MountSource::Bind { .. })
    }
}

/// Plain options and the attribute each sets or clears.
const ATTRIBUTES: &[(&str, bool, Attributes)] = &[
    ("ro", true, Attributes::READ_ONLY),
    ("rw", false, Attributes::READ_ONLY),
    ("nosuid", true, Attributes::NO_SUID),
    ("suid", false, Attributes::NO_SUID),
    ("nodev", true, Attributes::NO_DEV),
    ("dev", false, Attributes::NO_DEV),
    ("noexec", true, Attributes::NO_EXEC),
    ("exec", false, Attributes::NO_EXEC),
    ("noatime", true, Attributes::NO_ATIME),
    ("atime", false, Attributes::NO_ATIME),
    ("strictatime", true, Attributes::STRICT_ATIME),
    ("nostrictatime", false, Attributes::STRICT_ATIME),
    ("nodiratime", true, Attributes::NO_DIR_ATIME),
    ("diratime", false, Attributes::NO_DIR_ATIME),
    ("nosymfollow", true, Attributes::NO_SYMFOLLOW),
    ("symfollow", false, Attributes::NO_SYMFOLLOW),
];

/// Options that are the kernel's default and change nothing.
const DEFAULTS: [&str; 11] = [
    "defaults",
    "async",
    "relatime",
    "rrelatime",
    "nomand",
    "norelatime",
    "rnorelatime",
    "loud",
    "silent",
    "noiversion",
    "nolazytime",
];

/// Options we refuse, with what to do instead.
const REFUSED: &[(&str, &str)] = &[("mand", "mandatory locks are gone from Linux; remove it")];

/// Every mount option with a meaning here, for `features`.
pub(crate) const OPTION_NAMES: &[&str] = &[
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];

/// `[r]private` and its like; with the `r`, for all mounts below too.
pub(super) fn propagation(text: &str) -> Option<(Propagation, bool)> {
    Some(match text {
        "private" => (Propagation::Private, false),
        "rprivate" => (Propagation::Private, true),
        "slave" => (Propagation::Slave, false),
        "rslave" => (Propagation::Slave, true),
        "shared" => (Propagation::Shared, false),
        "rshared" => (Propagation::Shared, true),
        "unbindable" => (Propagation::Unbindable, false),
        "runbindable" => (Propagation::Unbindable, true),
        _ => return None,
    })
}

pub(super) fn plan(
    mounts: &[oci::Mount],
    own: Kinds,
    label: &str,
    problems: &mut Problems,
) -> Vec<MountPlan> {
    mounts
        .iter()
        .enumerate()
        .map(|(index, mount)| {
            let field = format!("mounts[{index}]");
            let mut planned = one(mount, &field, problems);
            planned.id_map = id_map(mount, own, &field, problems);
            planned.label = Some(label.to_owned()).filter(|label| !label.is_empty());
            planned
        })
        .collect()
}

fn one(mount: &oci::Mount, field: &str, problems: &mut Problems) -> MountPlan {
    // A relative destination counts from the root, as older configurations have it.
    let destination = Path::new("/").join(&mount.destination);
    if destination == Path::new("/") {
        problems.add(field, "a mount over / is not supported; set root.path instead");
    }
    let mut change = Change::default();
    let mut recursive = Change::default();
    let mut propagated = None;
    let mut bind = None;
    let (mut copy_up, mut remount) = (false, false);
    let mut data = Vec::new();
    for option in &mount.options {
        if let Some(found) = propagation(option) {
            propagated = Some(found);
        } else if let Some((change, set, attribute)) =
            attribute(option, &mut change, &mut recursive)
        {
            let (add, remove) = if set {
                (&mut change.set, &mut change.clear)
            } else {
                (&mut change.clear, &mut change.set)
            };
            *add |= attribute;
            *remove -= attribute;
        } else if let Some((_, remedy)) = REFUSED.iter().find(|(name, _)| name == option) {
            problems.add(field, format!("option {option:?}: {remedy}"));
        } else if option == "bind" {
            bind = bind.or(Some(false));
        } else if option == "rbind" {
            bind = Some(true);
        } else if option == "remount" {
            remount = true;
        } else if option == "tmpcopyup" {
            copy_up = true;
        } else if matches!(option.as_str(), "idmap" | "ridmap") {
            // Read with the mappings.
        } else if !DEFAULTS.contains(&option.as_str()) {
            data.push(match option.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (option.clone(), None),
            });
        }
    }
    let kind = mount.kind.clone();
    let bind = bind.or((kind == "bind").then_some(true));
    if copy_up && (kind != "tmpfs" || bind.is_some()) {
        problems.add(field, "option \"tmpcopyup\" has a meaning for tmpfs only");
    }
    let source = if remount {
        MountSource::Remount { bind: bind.is_some(), options: data }
    } else {
        source(mount, kind, bind, data, field, problems)
    };
    let propagation = propagated;
    MountPlan {
        destination,
        source,
        change,
        recursive,
        propagation,
        id_map: None,
        copy_up,
        label: None,
    }
}

/// The map of owners that a mount asks for, by its ranges or by the word.
fn id_map(
    mount: &oci::Mount,
    own: Kinds,
    field: &str,
    problems: &mut Problems,
) -> Option<(IdMap, bool)> {
    let has = |name: &str| mount.options.iter().any(|option| option == name);
    let (uids, gids) = (&mount.uid_mappings, &mount.gid_mappings);
    let ranges = !(uids.is_empty() && gids.is_empty());
    if !(ranges || has("idmap") || has("ridmap")) {
        return None;
    }
    if !(has("bind") || has("rbind") || mount.kind == "bind") {
        problems.add(field, "owners can be mapped on a bind mount only");
    }
    if !ranges {
        if !own.contains(Kinds::USER) {
            let message = "option idmap without uidMappings and gidMappings needs a user namespace";
            problems.add(field, message);
        }
        return Some((IdMap::Container, has("ridmap")));
    }
    if uids.is_empty() || gids.is_empty() {
        problems.add(field, "uidMappings and gidMappings need each other");
    }
    let map = IdMap::Own { uids: super::map_lines(uids), gids: super::map_lines(gids) };
    Some((map, has("ridmap")))
}

/// The change an option belongs to; `r` in front makes it recursive.
fn attribute<'a>(
    option: &str,
    change: &'a mut Change,
    recursive: &'a mut Change,
) -> Option<(&'a mut Change, bool, Attributes)> {
    let find = |name: &str| ATTRIBUTES.iter().find(|(known, ..)| *known == name);
    if let Some(&(_, set, attribute)) = find(option) {
        return Some((change, set, attribute));
    }
    let &(_, set, attribute) = find(option.strip_prefix('r')?)?;
    Some((recursive, set, attribute))
}

fn source(
    mount: &oci::Mount,
    kind: String,
    bind: Option<bool>,
    options: Vec<(String, Option<String>)>,
    field: &str,
    problems: &mut Problems,
) -> MountSource {
    if let Some(recursive) = bind {
        let path = mount.source.clone();
        if path.as_os_str().is_empty() {
            problems.add(field, "a bind mount needs a source");
        }
        // Callers hand over options of file systems for every mount alike, and the kernel
        // takes them with a bind and does nothing. A lone word is more likely a mistake.
        for (key, _) in options.iter().filter(|(_, value)| value.is_none()) {
            problems.add(field, format!("option {key:?} has no meaning for a bind mount"));
        }
        return MountSource::Bind { path, recursive };
    }
    match kind.as_str() {
        "cgroup" | "cgroup2" => MountSource::Cgroup,
        "" => {
            problems.add(field, "has no type, and neither bind nor rbind among its options");
            MountSource::Cgroup
        }
        _ => {
            let source = mount.source.display().to_string();
            let source = if source.is_empty() { kind.clone() } else { source };
            MountSource::New { kind, source, options }
        }
    }
}

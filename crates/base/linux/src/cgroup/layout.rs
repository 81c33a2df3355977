use std::fs;
use std::path::{Path, PathBuf};

use super::CgroupError;

/// The two interfaces the kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy for each controller.
    One,
    /// One hierarchy for all of them.
    Two,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Its interface.
    pub version: Version,
    /// Version 1 only: its controllers, such as `cpu`, or its `name=`.
    pub controllers: Vec<String>,
}

/// The hierarchies of this machine that groups are made in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    hierarchies: Vec<Hierarchy>,
}

impl Layout {
    /// Looks at what is mounted.
    ///
    /// # Errors
    ///
    /// [`CgroupError::NotMounted`] when nothing is.
    pub fn detect() -> Result<Self, CgroupError> {
        let path = Path::new("/proc/self/mountinfo");
        let mounts = fs::read_to_string(path)
            .map_err(|source| CgroupError::Detect { path: path.to_owned(), source })?;
        Self::from_mounts(&mounts)
    }

    /// No hierarchy at all: a group in it is none, and limits nothing.
    pub fn none() -> Self {
        Self { hierarchies: Vec::new() }
    }

    /// Those hierarchies that `wanted` is true of.
    pub(super) fn filtered(&self, mut wanted: impl FnMut(&Hierarchy) -> bool) -> Self {
        let wanted = |hierarchy: &&Hierarchy| wanted(hierarchy);
        Self { hierarchies: self.hierarchies.iter().filter(wanted).cloned().collect() }
    }

    /// Finds the hierarchies in the text of a `mountinfo` file.
    ///
    /// Controllers mounted on version 1 win: a version 2 mount beside them (hybrid) has
    /// nothing to limit with. Each hierarchy counts once, at its first mount.
    ///
    /// # Errors
    ///
    /// [`CgroupError::NotMounted`] when there is none.
    pub fn from_mounts(mounts: &str) -> Result<Self, CgroupError> {
        let mut one: Vec<Hierarchy> = Vec::new();
        let mut two = None;
        for (mount, kind, options) in mounts.lines().filter_map(fields) {
            match kind {
                "cgroup" => {
                    let controllers = controllers(options);
                    if !one.iter().any(|known| known.controllers == controllers) {
                        one.push(Hierarchy { mount, version: Version::One, controllers });
                    }
                }
                "cgroup2" if two.is_none() => {
                    two = Some(Hierarchy { mount, version: Version::Two, controllers: Vec::new() });
                }
                _ => {}
            }
        }
        let hierarchies = match two {
            Some(unified) if one.is_empty() => vec![unified],
            Some(_) | None => one,
        };
        if hierarchies.is_empty() {
            return Err(CgroupError::NotMounted);
        }
        Ok(Self { hierarchies })
    }

    /// The interface in use.
    pub fn version(&self) -> Version {
        self.hierarchies.first().map_or(Version::One, |hierarchy| hierarchy.version)
    }

    /// All hierarchies in use; one on version 2.
    pub fn hierarchies(&self) -> &[Hierarchy] {
        &self.hierarchies
    }

    /// The version 1 hierarchy of a controller.
    pub fn with_controller(&self, controller: &str) -> Option<&Hierarchy> {
        self.hierarchies
            .iter()
            .find(|hierarchy| hierarchy.controllers.iter().any(|own| own == controller))
    }
}

/// Mount point, type and super block options of a line:
/// `31 23 0:28 / /sys/fs/cgroup rw shared:1 - tmpfs tmpfs rw,mode=755`.
fn fields(line: &str) -> Option<(PathBuf, &str, &str)> {
    let (before, after) = line.split_once(" - ")?;
    let mount = before.split(' ').nth(4)?;
    let mut after = after.split(' ');
    let kind = after.next()?;
    let options = after.nth(1)?;
    Some((PathBuf::from(mount.replace("\\040", " ")), kind, options))
}

/// The options that name controllers; the rest are flags of the mount.
fn controllers(options: &str) -> Vec<String> {
    const FLAGS: [&str; 7] =
        ["rw", "ro", "xattr", "noprefix", "clone_children", "favordynmods", "nsdelegate"];
    options
        .split(',')
        .filter(|option| !FLAGS.contains(option) && !option.starts_with("release_agent="))
        .map(str::to_owned)
        .collect()
}

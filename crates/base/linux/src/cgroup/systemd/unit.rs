//! Names of slices and scopes. Pure.

use std::path::{Path, PathBuf};

/// A scope to be, and the slice it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The slice, such as `system.slice`.
    pub slice: String,
    /// The scope, such as `docker-0123.scope`.
    pub name: String,
}

impl Scope {
    /// The scope that `cgroups_path` asks for, in the form `SLICE:PREFIX:NAME`; the slice may
    /// be empty for `default_slice`. An empty path is a scope named after `id`.
    ///
    /// # Errors
    ///
    /// What is wrong with the path.
    pub fn parse(cgroups_path: &str, id: &str, default_slice: &str) -> Result<Self, String> {
        let (slice, prefix, name) = match cgroups_path.split(':').collect::<Vec<_>>().as_slice() {
            [""] => ("", "carrack", id),
            [slice, prefix, name] => (*slice, *prefix, *name),
            _ => {
                return Err(format!(
                    "{cgroups_path:?} is not of the form SLICE:PREFIX:NAME, which systemd's driver needs"
                ));
            }
        };
        let slice = if slice.is_empty() { default_slice } else { slice };
        if expand_slice(slice).is_none() {
            return Err(format!("{slice:?} is not the name of a slice, such as a-b.slice"));
        }
        if name.ends_with(".slice") {
            return Err(format!(
                "{name:?} is a slice, and processes are in scopes; leave .slice out"
            ));
        }
        let name = if prefix.is_empty() {
            format!("{name}.scope")
        } else {
            format!("{prefix}-{name}.scope")
        };
        // What systemd itself takes as a unit's name.
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        if name == ".scope" || name.len() > 255 || !name.bytes().all(allowed) {
            return Err(format!("{name:?} is not a name that systemd takes for a unit"));
        }
        Ok(Self { slice: slice.to_owned(), name })
    }

    /// The group below the manager's own.
    pub fn path(&self) -> PathBuf {
        expand_slice(&self.slice).unwrap_or_default().join(&self.name)
    }
}

/// The group of a slice: `a-b.slice` is in `a.slice`. `None` when it is no slice's name.
pub fn expand_slice(slice: &str) -> Option<PathBuf> {
    let bare = slice.strip_suffix(".slice")?;
    if bare == "-" {
        return Some(PathBuf::from("/"));
    }
    let mut path = PathBuf::from("/");
    let mut name = String::new();
    for part in bare.split('-') {
        if part.is_empty() || part.contains('/') {
            return None;
        }
        if !name.is_empty() {
            name.push('-');
        }
        name.push_str(part);
        path.push(Path::new(&format!("{name}.slice")));
    }
    Some(path)
}

/// The number in a version such as `252.38-1~deb12u1` or `v245.4-1.fc32`.
pub(super) fn version(text: &str) -> u32 {
    let text = text.trim_start_matches(['"', 'v']);
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

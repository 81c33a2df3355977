//! The database of installed packages, as dpkg itself would have written it, so that
//! dpkg and scanners see what the image holds.

use std::fmt::Write as _;

use md5::{Digest as _, Md5};

use super::deb::Control;
use super::deb822::{self, Malformed};
use super::index::Package;
use super::tree::{Metadata, Tree, TreeError};

const DIRECTORY: &str = "var/lib/dpkg";

/// One unpacked package, ready to be entered.
#[derive(Clone, Debug)]
pub(crate) struct Installed {
    stanza: String,
    /// The stem of its files under `info`.
    stem: String,
    /// The paths it brought, as the package writes them.
    files: Vec<String>,
    control: Control,
}

/// Why a package's own description cannot be entered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// It is not fields.
    #[error("its control file is not one paragraph of fields")]
    Form(#[source] Option<Malformed>),
    /// It describes another package than its index said.
    #[error("its control file says {found}, its index {wanted}")]
    Other {
        /// What the file says.
        found: String,
        /// What the index says.
        wanted: String,
    },
    /// A configuration file it names cannot be read back.
    #[error("reading a configuration file back")]
    Tree(#[from] TreeError),
}

impl Installed {
    /// Describes a package whose content is in `tree` already.
    ///
    /// # Errors
    ///
    /// [`ControlError`] when the package is not what its index said.
    pub(crate) fn new(
        package: &Package,
        control: Control,
        files: Vec<String>,
        tree: &Tree,
    ) -> Result<Self, ControlError> {
        let text = control.get("control").map(|bytes| String::from_utf8_lossy(bytes));
        let text = text.unwrap_or_default();
        let paragraph = deb822::parse(&text)
            .next()
            .ok_or(ControlError::Form(None))?
            .map_err(|error| ControlError::Form(Some(error)))?;
        let field = |name| paragraph.get(name).unwrap_or_default();
        let found = [field("Package"), field("Version"), field("Architecture")].join(" ");
        let wanted = format!("{} {} {}", package.name, package.version, package.architecture);
        if found != wanted {
            return Err(ControlError::Other { found, wanted });
        }
        let mut stanza = String::new();
        for (name, value) in paragraph.fields() {
            if name == "Description" {
                stanza.push_str(&conffiles(&control, tree)?);
            }
            stanza.push_str(&format!("{name}: {value}\n"));
            if name == "Package" {
                stanza.push_str("Status: install ok installed\n");
            }
        }
        let stem = match package.multi_arch.as_deref() {
            Some("same") => format!("{}:{}", package.name, package.architecture),
            _ => package.name.clone(),
        };
        Ok(Self { stanza, stem, files, control })
    }
}

/// The `Conffiles` field: each file and what it was like when it was installed.
fn conffiles(control: &Control, tree: &Tree) -> Result<String, TreeError> {
    let listed = control.get("conffiles").map(|bytes| String::from_utf8_lossy(bytes));
    let mut field = String::new();
    for path in listed.unwrap_or_default().lines().map(str::trim_ascii) {
        // A line may begin with a flag, such as `remove-on-upgrade`.
        if !path.starts_with('/') {
            continue;
        }
        if let Some(bytes) = tree.read(path)? {
            // Writing to a string cannot fail.
            write!(field, "\n {path} {}", hex::encode(Md5::digest(&bytes))).ok();
        }
    }
    Ok(if field.is_empty() { field } else { format!("Conffiles:{field}\n") })
}

/// Writes the database of all packages, which come in the order of their names.
///
/// # Errors
///
/// [`TreeError`] when it cannot be put into the tree.
pub(crate) fn install(tree: &mut Tree, packages: &[Installed]) -> Result<(), TreeError> {
    let plain = Metadata::of_root(0o644);
    let mut status = String::new();
    for package in packages {
        status.push_str(&package.stanza);
        status.push('\n');
        let info = format!("{DIRECTORY}/info/{}", package.stem);
        let mut list = package.files.join("\n");
        list.push('\n');
        tree.put_file(&format!("{info}.list"), list.as_bytes(), plain)?;
        for name in ["md5sums", "conffiles"] {
            if let Some(bytes) = package.control.get(name) {
                tree.put_file(&format!("{info}.{name}"), bytes, plain)?;
            }
        }
    }
    for (name, content) in [("status", status.as_str()), ("info/format", "1\n")] {
        tree.put_file(&format!("{DIRECTORY}/{name}"), content.as_bytes(), plain)?;
    }
    for name in ["available", "diversions", "statoverride"] {
        tree.put_file(&format!("{DIRECTORY}/{name}"), b"", plain)?;
    }
    for name in ["updates", "triggers", "alternatives", "parts"] {
        tree.put_directory(&format!("{DIRECTORY}/{name}"), Metadata::of_root(0o755))?;
    }
    Ok(())
}

/// A path as dpkg lists it: `./usr/bin/x` is `/usr/bin/x`, and the root is `/.`.
pub(crate) fn listed_path(path: &[u8]) -> String {
    let path = String::from_utf8_lossy(path);
    match path.trim_start_matches("./").trim_matches('/') {
        "" => "/.".to_owned(),
        path => format!("/{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_listed_as_dpkg_lists_them() {
        assert_eq!(listed_path(b"./"), "/.");
        assert_eq!(listed_path(b"./usr/bin/x"), "/usr/bin/x");
        assert_eq!(listed_path(b"./usr/"), "/usr");
    }
}

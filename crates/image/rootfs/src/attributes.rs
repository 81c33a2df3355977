//! Extended attributes: which ones travel in a layer.
//!
//! | attribute | from an archive | into an archive |
//! |---|---|---|
//! | `security.capability` | applied | kept |
//! | `user.*` | applied | kept |
//! | `trusted.*`, `user.overlay.*` | refused: it would steer the overlay | left out |
//! | anything else (labels, access lists) | left out: it belongs to a machine | left out |

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::fs::{XattrFlags, lgetxattr, llistxattr, lsetxattr};
use rustix::io::Errno;

/// What makes a directory of an overlay hide everything below it.
pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";

/// The most the kernel lets one attribute hold, and all their names together.
const LARGEST: usize = 64 * 1024;

/// What becomes of an attribute found in an archive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Applied,
    LeftOut,
    Refused,
}

pub(crate) fn fate(name: &[u8]) -> Fate {
    if name.starts_with(b"trusted.") || name.starts_with(b"user.overlay.") {
        Fate::Refused
    } else if name == b"security.capability" || name.starts_with(b"user.") {
        Fate::Applied
    } else {
        Fate::LeftOut
    }
}

/// The path of `name` in an open directory, for the calls that only take paths. The
/// directory is not looked up again; `name` is one component and is not followed.
pub(crate) fn path_in(directory: impl AsFd, name: &OsStr) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd()));
    path.push(name);
    path
}

/// Sets the attributes that travel; the caller has refused those to be refused.
pub(crate) fn set(
    directory: impl AsFd,
    name: &OsStr,
    attributes: &BTreeMap<Vec<u8>, Vec<u8>>,
) -> io::Result<()> {
    let path = path_in(directory, name);
    for (attribute, value) in attributes {
        if fate(attribute) == Fate::Applied {
            lsetxattr(&path, CString::new(attribute.as_slice())?, value, XattrFlags::empty())?;
        }
    }
    Ok(())
}

/// The attributes that travel.
pub(crate) fn get(directory: impl AsFd, name: &OsStr) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let path = path_in(directory, name);
    let mut names = vec![0; LARGEST];
    let length = match llistxattr(&path, names.as_mut_slice()) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    names.truncate(length);
    let mut found = BTreeMap::new();
    for attribute in names.split(|byte| *byte == 0) {
        if fate(attribute) == Fate::Applied {
            found.insert(attribute.to_vec(), value(&path, attribute)?);
        }
    }
    Ok(found)
}

/// Whether the overlay hides what is below this directory.
pub(crate) fn is_opaque(directory: impl AsFd, name: &OsStr) -> io::Result<bool> {
    match value(&path_in(directory, name), OPAQUE.as_bytes()) {
        Ok(value) => Ok(value == b"y"),
        Err(error) if error.raw_os_error() == Some(Errno::NODATA.raw_os_error()) => Ok(false),
        Err(error) if error.raw_os_error() == Some(Errno::NOTSUP.raw_os_error()) => Ok(false),
        Err(error) => Err(error),
    }
}

fn value(path: &std::path::Path, attribute: &[u8]) -> io::Result<Vec<u8>> {
    let mut value = vec![0; LARGEST];
    let length = lgetxattr(path, OsStr::from_bytes(attribute), value.as_mut_slice())?;
    value.truncate(length);
    Ok(value)
}

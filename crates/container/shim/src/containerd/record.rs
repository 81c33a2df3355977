//! What the shim leaves in a bundle, for the `delete` command that comes when it is gone.
//!
//! | file | holds |
//! |---|---|
//! | `init.pid` | the container's first process |
//! | `address` | where the shim answers |
//! | `shim.pid` | the shim, in the bundle it was started for |
//! | `carrack-root` | where the runtime keeps the container's record |
//! | `carrack-exit` | how the first process ended: status, seconds and nanoseconds since 1970 |

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::task::Exit;

pub(super) const PID: &str = "init.pid";
pub(super) const ADDRESS: &str = "address";
pub(super) const SHIM_PID: &str = "shim.pid";
const ROOT: &str = "carrack-root";
const EXIT: &str = "carrack-exit";

/// Where records are kept unless told otherwise.
const DEFAULT_ROOT: &str = "/run/containerd/carrack";

/// Where a namespace's containers are recorded.
pub(super) fn runtime_root(configured: Option<&Path>, namespace: &str) -> PathBuf {
    configured.unwrap_or(Path::new(DEFAULT_ROOT)).join(namespace)
}

pub(super) fn keep_root(bundle: &Path, root: &Path) -> io::Result<()> {
    fs::write(bundle.join(ROOT), root.as_os_str().as_bytes())
}

pub(super) fn read_root(bundle: &Path) -> io::Result<Option<PathBuf>> {
    match fs::read_to_string(bundle.join(ROOT)) {
        Ok(root) => Ok(Some(root.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn keep_exit(bundle: &Path, exit: Exit) -> io::Result<()> {
    let at = exit.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let text = format!("{} {} {}", exit.status, at.as_secs(), at.subsec_nanos());
    carrack_linux::fs::replace(&bundle.join(EXIT), text.as_bytes(), 0o600)
}

/// `None` when it never ended while the shim lived.
pub(super) fn read_exit(bundle: &Path) -> Option<Exit> {
    let text = fs::read_to_string(bundle.join(EXIT)).ok()?;
    let mut words = text.split(' ');
    let status = words.next()?.parse().ok()?;
    let seconds = Duration::from_secs(words.next()?.parse().ok()?);
    let nanos = Duration::from_nanos(words.next()?.parse().ok()?);
    Some(Exit { status, at: UNIX_EPOCH.checked_add(seconds)?.checked_add(nanos)? })
}

pub(super) fn read_pid(bundle: &Path) -> Option<u32> {
    fs::read_to_string(bundle.join(PID)).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_read_as_it_was_kept() {
        let bundle = tempfile::tempdir().expect("directory");
        assert_eq!(read_exit(bundle.path()), None);
        let exit = Exit { status: 137, at: UNIX_EPOCH + Duration::new(1_700_000_000, 42) };
        keep_exit(bundle.path(), exit).expect("kept");
        assert_eq!(read_exit(bundle.path()), Some(exit));
    }

    #[test]
    fn records_of_namespaces_are_apart() {
        let path = |configured| runtime_root(configured, "moby");
        assert_eq!(path(None), Path::new("/run/containerd/carrack/moby"));
        assert_eq!(path(Some(Path::new("/r"))), Path::new("/r/moby"));
    }
}

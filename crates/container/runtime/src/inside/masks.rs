use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use carrack_linux::mount::{self, Attributes, Change};
use carrack_linux::rooted::RootedDir;
use rustix::fs::FileType;

use super::mounts::empty_directory;
use crate::failure::{Attempt, Failure};

/// A handle; `None` where there is nothing to protect.
fn existing(root: &RootedDir, path: &std::path::Path) -> Result<Option<OwnedFd>, Failure> {
    match root.handle(path) {
        Ok(found) => Ok(Some(found)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(Failure::new(format!("looking at {}", path.display()), &error)),
    }
}

/// Makes paths read-only, with all that is mounted below.
pub(super) fn read_only(root: &RootedDir, paths: &[PathBuf]) -> Result<(), Failure> {
    for path in paths {
        let Some(found) = existing(root, path)? else { continue };
        let change = Change { set: Attributes::READ_ONLY, ..Change::default() };
        mount::clone_tree(found.as_fd(), true)
            .and_then(|tree| {
                mount::set_attributes(tree.as_fd(), true, change)?;
                mount::attach(tree.as_fd(), found.as_fd())
            })
            .attempt(|| format!("making {} read-only", path.display()))?;
    }
    Ok(())
}

/// Hides paths: directories behind an empty one, files behind the host's `/dev/null`.
pub(super) fn mask(root: &RootedDir, paths: &[PathBuf], null: &OwnedFd) -> Result<(), Failure> {
    let mut null_attached = false;
    for path in paths {
        let Some(found) = existing(root, path)? else { continue };
        let stat =
            rustix::fs::fstat(&found).attempt(|| format!("looking at {}", path.display()))?;
        let hidden = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            empty_directory().and_then(|empty| mount::attach(empty.as_fd(), found.as_fd()))
        } else if null_attached {
            mount::clone_tree(null.as_fd(), false)
                .and_then(|copy| mount::attach(copy.as_fd(), found.as_fd()))
        } else {
            null_attached = true;
            mount::attach(null.as_fd(), found.as_fd())
        };
        hidden.attempt(|| format!("hiding {}", path.display()))?;
    }
    Ok(())
}

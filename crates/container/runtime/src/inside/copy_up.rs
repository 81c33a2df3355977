//! `tmpcopyup`: a new file system that starts with what the image has in its place.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use carrack_linux::rooted::RootedDir;
use rustix::fs::Mode;

use crate::failure::{Attempt, Failure};

/// Copies what `path` of the root holds into the root of `tree`, by descriptors all the way.
pub(super) fn contents(root: &RootedDir, path: &Path, tree: &OwnedFd) -> Result<(), Failure> {
    let attempt = || format!("copying {} into its new file system", path.display());
    let from = root.directory(path).attempt(attempt)?;
    let to = RootedDir::from_fd(tree.try_clone().attempt(attempt)?);
    let to = to.directory(Path::new("/")).attempt(attempt)?;
    // Its own mode is what the options say, or else the image's already.
    let mode = rustix::fs::fstat(&to).attempt(attempt)?.st_mode;
    carrack_linux::copy::contents(from.as_fd(), to.as_fd()).attempt(attempt)?;
    rustix::fs::fchmod(&to, Mode::from_raw_mode(mode)).attempt(attempt)
}

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use carrack_linux::{mount, trusted};

use crate::failure::{Attempt, Failure};
use crate::prepared::Bind;

/// Two places of the host's tree, which is dropped once the root was changed.
///
/// Since Linux 6.8 `mountinfo` lists mounts in the order in which they were made. The host's
/// were copied before the container's own file systems existed, and so would all come
/// first, mount points behind what is mounted on them. A tree that belongs to no namespace cannot be
/// copied again, so it is attached here for a moment and copied when its turn comes.
pub(super) struct Stage {
    directory: OwnedFd,
    file: OwnedFd,
}

impl Stage {
    pub(super) fn open() -> Result<Self, Failure> {
        let open = |path: &str| {
            trusted::handle_nofollow(Path::new(path))
                .attempt(|| format!("opening the host's {path}"))
        };
        Ok(Self { directory: open("/dev")?, file: open("/dev/null")? })
    }

    /// A copy of the tree, newer than every mount made so far.
    pub(super) fn renew(
        &self,
        bind: &Bind,
        shown: impl Fn() -> String,
    ) -> Result<OwnedFd, Failure> {
        let place = if bind.is_directory { &self.directory } else { &self.file };
        // Attached on top of the last one, nothing else is below it to be copied with it.
        mount::attach(bind.tree.as_fd(), place.as_fd())
            .and_then(|()| mount::clone_tree(bind.tree.as_fd(), true))
            .attempt(|| format!("copying the mount for {}", shown()))
    }
}

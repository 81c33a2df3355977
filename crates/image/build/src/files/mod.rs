//! Files on their way into an image.
//!
//! ```text
//! directory ──Tree::pick──▶ Pick: what matched, with content digests ──place──▶ root filesystem
//! ```
//!
//! Both ends are held by descriptor, and every path in them is resolved by the
//! kernel below its root, so that no link in a build context or an image leads
//! out of it. What is copied is compared with what was picked: a file that
//! changes in between stops the build instead of poisoning its cache.

pub(crate) mod accounts;
mod archive;
mod pick;
mod place;
mod tree;

use std::io;
use std::path::{Path, PathBuf};

pub(crate) use pick::{Kind, Node, Pick, digest as pick_digest};
pub(crate) use place::{Placement, Writer};
pub(crate) use tree::Tree;

/// Why files could not be brought in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// A source that names nothing.
    #[error("there is no `{path}` in {tree}{hint}")]
    Missing {
        /// As written.
        path: String,
        /// Where it was looked for.
        tree: String,
        /// What may be the matter.
        hint: &'static str,
    },
    /// A wildcard that cannot be read.
    #[error("`{0}` is not a pattern")]
    Pattern(String),
    /// A device, pipe or socket.
    #[error("`{}` in {tree} is neither file, directory nor link; name it in .dockerignore", path.display())]
    Special {
        /// Its path.
        path: PathBuf,
        /// Where it is.
        tree: String,
    },
    /// A file whose content is not what it was a moment ago.
    #[error("`{}` changed while it was being copied", .0.display())]
    Changed(PathBuf),
    /// A source that could not be read.
    #[error("reading `{}` of {tree}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// Where it is.
        tree: String,
        /// Why.
        source: io::Error,
    },
    /// A destination that could not be written.
    #[error("writing `{}` of the image", path.display())]
    Write {
        /// Its path in the image.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something of another kind is where a file or directory should go.
    #[error("`{}` of the image is {found}, and {wanted} should go there", path.display())]
    InTheWay {
        /// Its path in the image.
        path: PathBuf,
        /// What is there.
        found: &'static str,
        /// What should be.
        wanted: &'static str,
    },
    /// A user or group the image does not know.
    #[error("the image knows no {kind} `{name}`; add it first, or give its number")]
    Account {
        /// `user` or `group`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// An archive given to `ADD` that cannot be unpacked.
    #[error("unpacking `{}`: {message}", path.display())]
    Archive {
        /// Its path in the build context.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The ignore file.
    #[error(transparent)]
    Ignore(#[from] crate::frontend::dockerfile::ignore::IgnoreError),
}

impl FilesError {
    fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Write { path, source }
    }
}

#[cfg(test)]
mod tests;

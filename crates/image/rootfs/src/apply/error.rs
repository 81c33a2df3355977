//! Why an archive was not unpacked.

use std::io;

use carrack_oci::archive::ArchiveError;

/// Why an archive could not be unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The archive cannot be read.
    #[error("reading the layer's archive")]
    Archive(#[source] ArchiveError),
    /// It has an entry no honest archive has.
    #[error("entry `{path}` is refused: {reason}")]
    Refused {
        /// The entry's path.
        path: String,
        /// What is wrong with it.
        reason: Refusal,
    },
    /// It has more entries than allowed.
    #[error("the archive has more than {limit} entries")]
    TooManyEntries {
        /// The bound.
        limit: u64,
    },
    /// It unpacks to more than allowed.
    #[error("the archive unpacks to more than {limit} bytes, which looks like a bomb")]
    TooLarge {
        /// The bound.
        limit: u64,
    },
    /// The disk refused.
    #[error("{doing} `{path}`")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which entry.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// What is wrong with an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// `..` in its path.
    #[error("its path has `..` in it")]
    Escapes,
    /// A link or a file where its path has a directory.
    #[error("its path leads through a link or a file")]
    LinkInTheWay,
    /// The root as something other than a directory.
    #[error("it would replace the root directory")]
    Root,
    /// A hard link to something that is not in the archive.
    #[error("it is a hard link to `{0}`, which the archive does not have")]
    HardLink(String),
    /// A device node.
    #[error("it is a device node; devices are given to a container when it starts")]
    Device,
    /// A whiteout that hides everything.
    #[error("it would hide the root directory")]
    WhiteoutOfRoot,
    /// A whiteout in an archive that is not a layer.
    #[error("names that start with `.wh.` have a meaning in layers only")]
    WhiteoutOutsideLayer,
    /// Something another program keeps for itself.
    #[error("names that start with `.wh..wh.` are bookkeeping of AUFS, which is not supported")]
    Bookkeeping,
    /// An attribute that steers the overlay.
    #[error("its attribute `{0}` would steer the overlay file system")]
    Attribute(String),
}

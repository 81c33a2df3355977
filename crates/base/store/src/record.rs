//! Small values by key: the border every record store presents.
//!
//! A change is a list of checks and a list of writes: either every check holds and
//! every write is made, at once and across a crash, or nothing happens. Watching
//! for changes is not here yet; it comes with the first who needs it.

use std::fmt;
use std::path::PathBuf;

/// A point in a store's history. Later commits have greater revisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub(crate) u64);

impl fmt::Display for Revision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A value, its key and the commit that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
    /// The commit that wrote it.
    pub revision: Revision,
}

/// What must hold for a commit to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Nothing is under this key.
    Absent(String),
    /// What is under this key was written by that commit.
    Unchanged(String, Revision),
}

impl Check {
    /// The key it is about.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Absent(key) | Self::Unchanged(key, _) => key,
        }
    }

    /// Whether it holds when `found` wrote what is under the key.
    pub(crate) fn holds(&self, found: Option<Revision>) -> bool {
        match self {
            Self::Absent(_) => found.is_none(),
            Self::Unchanged(_, expected) => found == Some(*expected),
        }
    }
}

/// One change in a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// This value goes under this key.
    Put(String, Vec<u8>),
    /// Nothing remains under this key.
    Delete(String),
}

/// Values under keys.
pub trait RecordStore: Send + Sync {
    /// What is under `key`.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    fn get(&self, key: &str) -> Result<Option<Entry>, RecordError>;

    /// Everything whose key starts with `prefix`, in the order of keys.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    fn scan(&self, prefix: &str) -> Result<Vec<Entry>, RecordError>;

    /// Makes all `writes` if all `checks` hold, and says at which revision.
    ///
    /// # Errors
    ///
    /// [`RecordError::Conflict`] when a check does not hold. Nothing has changed.
    fn commit(&self, checks: &[Check], writes: &[Write]) -> Result<Revision, RecordError>;
}

/// Why records could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Someone else was faster.
    #[error("record `{key}` has changed meanwhile")]
    Conflict {
        /// The key whose check failed.
        key: String,
    },
    /// The file was made by a version that writes it differently.
    #[error(
        "{} has format {found}, and this version reads format {known}; use the version that wrote it, or move the file away",
        file.display()
    )]
    Format {
        /// The file.
        file: PathBuf,
        /// The format it has.
        found: i64,
        /// The format this version reads.
        known: i64,
    },
    /// The database refused.
    #[error("using the records in {}", file.display())]
    Database {
        /// The file.
        file: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

impl RecordError {
    /// Whether someone else changed a record first, so that reading it again and
    /// trying once more may succeed.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }
}

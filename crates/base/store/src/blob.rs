//! Content by digest: the border every blob store presents.
//!
//! ```text
//! ingest() ─write…─▶ Ingest ─commit─▶ a blob under its digest
//! ```
//!
//! Every byte is hashed on its way in, so what a store holds under a digest once
//! hashed to it. Bytes on a disk may rot afterwards; [`BlobStore::read`] checks
//! again, [`BlobStore::open`] leaves that to its caller.

use std::fmt;
use std::io;

use carrack_oci::{Algorithm, Digest, Hasher};

/// An open blob: its bytes, from anywhere in it.
pub trait Blob: io::Read + io::Seek + Send {}

impl<T: io::Read + io::Seek + Send> Blob for T {}

/// Content under its digest.
pub trait BlobStore: Send + Sync {
    /// Opens a blob. Its bytes are as stored, not checked again.
    ///
    /// # Errors
    ///
    /// [`BlobError::NotFound`] when the store does not hold it.
    fn open(&self, digest: &Digest) -> Result<Box<dyn Blob>, BlobError>;

    /// Starts taking in a blob that will be named by `algorithm`.
    ///
    /// # Errors
    ///
    /// When there is no place to write to.
    fn ingest_with(&self, algorithm: Algorithm) -> Result<Ingest, BlobError>;

    /// The size of a blob, if the store holds it.
    ///
    /// # Errors
    ///
    /// When the store cannot tell.
    fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError>;

    /// Every blob, in the order of digests.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    fn list(&self) -> Result<Vec<Digest>, BlobError>;

    /// Forgets a blob, and says whether it was there. Whoever has it open keeps it.
    ///
    /// # Errors
    ///
    /// When the store cannot be changed.
    fn delete(&self, digest: &Digest) -> Result<bool, BlobError>;

    /// Starts taking in a blob that will be named by SHA-256.
    ///
    /// # Errors
    ///
    /// When there is no place to write to.
    fn ingest(&self) -> Result<Ingest, BlobError> {
        self.ingest_with(Algorithm::Sha256)
    }

    /// Reads a small blob whole and checks it against its digest.
    ///
    /// # Errors
    ///
    /// When it is missing, longer than `limit`, or no longer hashes to its digest.
    fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, BlobError> {
        use io::Read as _;
        let mut bytes = Vec::new();
        self.open(digest)?
            .take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|source| BlobError::Read { digest: digest.clone(), source })?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
            return Err(BlobError::TooLarge { digest: digest.clone(), limit });
        }
        if !digest.matches(&bytes) {
            return Err(BlobError::Rotten { digest: digest.clone() });
        }
        Ok(bytes)
    }

    /// Keeps `bytes` and says what they are called.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    fn put(&self, bytes: &[u8]) -> Result<Digest, BlobError> {
        use io::Write as _;
        let mut ingest = self.ingest()?;
        ingest.write_all(bytes).map_err(BlobError::Write)?;
        Ok(ingest.commit(None)?.0)
    }
}

/// Where an implementation keeps the bytes of a blob that has no name yet.
///
/// Dropping it forgets the bytes.
pub trait Pending: io::Write + Send {
    /// Makes all bytes written visible under `digest`, at once and across a crash.
    /// When the store already holds `digest`, the older copy stays.
    ///
    /// # Errors
    ///
    /// When they could not be made to last. Then nobody sees them.
    fn publish(self: Box<Self>, digest: &Digest) -> io::Result<()>;
}

/// A blob on its way in. Dropping it discards what was written.
pub struct Ingest {
    hasher: Hasher,
    size: u64,
    pending: Box<dyn Pending>,
}

impl Ingest {
    /// An ingest that hashes with `algorithm` and hands its bytes to `pending`.
    #[must_use]
    pub fn new(algorithm: Algorithm, pending: Box<dyn Pending>) -> Self {
        Self { hasher: Hasher::new(algorithm), size: 0, pending }
    }

    /// How many bytes were written so far.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// What the bytes written so far hash to.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Makes the bytes written so far visible under their digest.
    ///
    /// Until this returns no reader sees any of them; afterwards every reader sees
    /// all of them, across a crash too. Committing a blob the store already holds
    /// succeeds and keeps the older copy, so two writers may race.
    ///
    /// # Errors
    ///
    /// [`BlobError::Mismatch`] when `expected` is given and the bytes hash to
    /// something else. They are discarded.
    pub fn commit(self, expected: Option<&Digest>) -> Result<(Digest, u64), BlobError> {
        let found = self.hasher.finish();
        if let Some(expected) = expected.filter(|expected| **expected != found) {
            return Err(BlobError::Mismatch { expected: expected.clone(), found });
        }
        self.pending
            .publish(&found)
            .map_err(|source| BlobError::Commit { digest: found.clone(), source })?;
        Ok((found, self.size))
    }
}

impl io::Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.pending.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or(bytes));
        self.size = self.size.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pending.flush()
    }
}

impl fmt::Debug for Ingest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Ingest").field("size", &self.size).finish_non_exhaustive()
    }
}

/// Why a blob could not be kept or found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// The store does not hold it.
    #[error("the store holds no blob {0}")]
    NotFound(Digest),
    /// It holds something, but not what the digest says.
    #[error("blob {digest} no longer matches its digest; delete it and load its image again")]
    Rotten {
        /// The digest asked for.
        digest: Digest,
    },
    /// The bytes given are not the bytes announced.
    #[error("the bytes received hash to {found}, not to {expected}")]
    Mismatch {
        /// What was announced.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// More bytes than the reader can take.
    #[error("blob {digest} is longer than the {limit} bytes expected of it")]
    TooLarge {
        /// The digest asked for.
        digest: Digest,
        /// The bound.
        limit: u64,
    },
    /// Reading failed.
    #[error("reading blob {digest}")]
    Read {
        /// The digest asked for.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// Writing failed before the bytes had a name.
    #[error("writing a blob")]
    Write(#[source] io::Error),
    /// The bytes could not be made to last.
    #[error("committing blob {digest}")]
    Commit {
        /// What they hash to.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// Deleting failed.
    #[error("deleting blob {digest}")]
    Delete {
        /// The blob.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// The store itself is out of reach.
    #[error("using the blob store in {}", directory.display())]
    Store {
        /// Where it is.
        directory: std::path::PathBuf,
        /// Why.
        source: io::Error,
    },
}

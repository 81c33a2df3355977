//! Removing blobs that nothing needs.
//!
//! Whoever writes blobs that no name leads to yet holds a [`Lease`] meanwhile:
//! collecting waits for no one, it says that the store is in use. A lease ends with
//! its process, however that ends.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;

use carrack_oci::{Digest, ImageConfig, LARGEST_DOCUMENT, Manifest};
use carrack_store::{BlobStore as _, LocalBlobs};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::images::{ImageError, Images};

/// Keeps every blob in the store while it lives.
#[derive(Debug)]
pub struct Lease {
    _lock: File,
}

/// What was collected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// How many blobs.
    pub blobs: u64,
    /// How many bytes they had.
    pub bytes: u64,
}

impl Images {
    /// Keeps every blob in the store until the lease is dropped: for who puts blobs
    /// and names them later.
    ///
    /// # Errors
    ///
    /// When the lock cannot be taken.
    pub fn lease(&self) -> Result<Lease, ImageError> {
        self.locked(FlockOperation::LockShared).map_err(|source| ImageError::Directory {
            directory: self.directory.to_path_buf(),
            source,
        })
    }

    /// Removes every blob that no name and nothing in `keep` leads to. `keep` may
    /// list manifests, which keep their parts, and any other blobs.
    ///
    /// # Errors
    ///
    /// [`CollectError::InUse`] when someone holds a lease.
    pub fn gc(&self, keep: &[Digest]) -> Result<Collected, CollectError> {
        self.gc_with(keep, |_| Ok(()))
    }

    /// As [`Images::gc`], then lets `unpacked` remove what was made of the blobs. It
    /// hears the diff ids that are still needed, while nobody else is at work.
    ///
    /// # Errors
    ///
    /// As [`Images::gc`], and when `unpacked` fails.
    pub fn gc_with(
        &self,
        keep: &[Digest],
        unpacked: impl FnOnce(&BTreeSet<Digest>) -> Result<(), Box<dyn Error + Send + Sync>>,
    ) -> Result<Collected, CollectError> {
        let _lock = self.exclusively()?;
        let candidates = self.blobs.list().map_err(ImageError::from)?;
        let needed = self.needed(keep)?;
        let collected = self.remove(&candidates, &needed.blobs)?;
        unpacked(&needed.diff_ids).map_err(CollectError::Unpacked)?;
        Ok(collected)
    }

    /// Removes those of `candidates` that nothing leads to.
    pub(crate) fn remove_unneeded(&self, candidates: &[Digest]) -> Result<Collected, CollectError> {
        let _lock = self.exclusively()?;
        let needed = self.needed(&[])?;
        self.remove(candidates, &needed.blobs)
    }

    fn exclusively(&self) -> Result<Lease, CollectError> {
        self.locked(FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            match Errno::from_io_error(&error) {
                Some(Errno::WOULDBLOCK) => CollectError::InUse,
                _ => CollectError::Lock(error),
            }
        })
    }

    fn needed(&self, keep: &[Digest]) -> Result<Needed, CollectError> {
        let mut needed = Needed::default();
        let named = self.list()?.into_iter().map(|named| named.digest);
        for root in named.chain(keep.iter().cloned()) {
            needed.mark(&self.blobs, root)?;
        }
        Ok(needed)
    }

    fn remove(
        &self,
        candidates: &[Digest],
        needed: &BTreeSet<Digest>,
    ) -> Result<Collected, CollectError> {
        let mut collected = Collected::default();
        for digest in candidates.iter().filter(|digest| !needed.contains(*digest)) {
            let size = self.blobs.stat(digest).map_err(ImageError::from)?.unwrap_or_default();
            if self.blobs.delete(digest).map_err(ImageError::from)? {
                collected.blobs += 1;
                collected.bytes += size;
            }
        }
        Ok(collected)
    }

    fn locked(&self, operation: FlockOperation) -> io::Result<Lease> {
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.directory.join("lease.lock"))?;
        rustix::io::retry_on_intr(|| flock(&lock, operation))?;
        Ok(Lease { _lock: lock })
    }
}

/// What names, and others, lead to.
#[derive(Debug, Default)]
struct Needed {
    blobs: BTreeSet<Digest>,
    diff_ids: BTreeSet<Digest>,
}

impl Needed {
    /// Marks `root` and, when it is a manifest, its parts.
    fn mark(&mut self, blobs: &LocalBlobs, root: Digest) -> Result<(), ImageError> {
        // A layer may be kept too; what is long is not a manifest, and is not read.
        if let Some(bytes) = document(blobs, &root)?
            && let Ok(manifest) = Manifest::parse(&bytes)
        {
            if let Some(config) = document(blobs, &manifest.config.digest)?
                && let Ok(config) = ImageConfig::parse(&config)
            {
                self.diff_ids.extend(config.rootfs.diff_ids);
            }
            self.blobs.insert(manifest.config.digest);
            self.blobs.extend(manifest.layers.into_iter().map(|layer| layer.digest));
        }
        self.blobs.insert(root);
        Ok(())
    }
}

/// A blob, if it is there and no longer than a document may be.
fn document(blobs: &LocalBlobs, digest: &Digest) -> Result<Option<Vec<u8>>, ImageError> {
    let is_short = blobs.stat(digest)?.is_some_and(|size| size <= LARGEST_DOCUMENT);
    Ok(is_short.then(|| blobs.read(digest, LARGEST_DOCUMENT)).transpose()?)
}

/// Why nothing was collected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// Someone may be about to name what no name leads to yet.
    #[error("the store is in use by a build, a load or a save; try again when it is done")]
    InUse,
    /// The lock cannot be taken.
    #[error("locking the store")]
    Lock(#[source] io::Error),
    /// What was made of the blobs could not be removed.
    #[error("removing unpacked layers that no image needs")]
    Unpacked(#[source] Box<dyn Error + Send + Sync>),
    /// The images cannot be read, or a blob not removed.
    #[error("collecting what no image needs")]
    Image(#[from] ImageError),
}

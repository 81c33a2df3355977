//! Removing blobs that nothing needs.
//!
//! Whoever writes blobs that no name leads to yet holds a [`Lease`] meanwhile:
//! collecting waits for no one, it says that the store is in use. A lease ends with
//! its process, however that ends.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;

use carrack_oci::{Digest, LARGEST_DOCUMENT, Manifest};
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
        self.remove_unneeded(keep, &self.blobs.list().map_err(ImageError::from)?)
    }

    /// Removes those of `candidates` that nothing leads to.
    pub(crate) fn remove_unneeded(
        &self,
        keep: &[Digest],
        candidates: &[Digest],
    ) -> Result<Collected, CollectError> {
        let _lock = match self.locked(FlockOperation::NonBlockingLockExclusive) {
            Ok(lock) => lock,
            Err(error) if Errno::from_io_error(&error) == Some(Errno::WOULDBLOCK) => {
                return Err(CollectError::InUse);
            }
            Err(source) => return Err(CollectError::Lock(source)),
        };
        let mut needed = BTreeSet::new();
        let named = self.list()?.into_iter().map(|named| named.digest);
        for root in named.chain(keep.iter().cloned()) {
            mark(&self.blobs, root, &mut needed)?;
        }
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
        flock(&lock, operation)?;
        Ok(Lease { _lock: lock })
    }
}

/// Marks `root` and, when it is a manifest, its parts.
fn mark(blobs: &LocalBlobs, root: Digest, needed: &mut BTreeSet<Digest>) -> Result<(), ImageError> {
    // A layer may be kept too; what is long is not a manifest, and is not read.
    if blobs.stat(&root)?.is_some_and(|size| size <= LARGEST_DOCUMENT)
        && let Ok(manifest) = Manifest::parse(&blobs.read(&root, LARGEST_DOCUMENT)?)
    {
        needed.insert(manifest.config.digest);
        needed.extend(manifest.layers.into_iter().map(|layer| layer.digest));
    }
    needed.insert(root);
    Ok(())
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
    /// The images cannot be read, or a blob not removed.
    #[error("collecting what no image needs")]
    Image(#[from] ImageError),
}

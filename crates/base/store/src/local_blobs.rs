//! Blobs in a directory that several processes share.
//!
//! ```text
//! DIR/ingest/<pid>-<n>     being written; its writer holds a lock on it
//! DIR/blobs/sha256/<hex>   complete, synced, never changed again
//! DIR/oci-layout           DIR is an image layout's blob directory
//! ```
//!
//! A blob appears by rename after its bytes are on the disk, so whatever is under
//! `blobs/` is whole. A writer that dies leaves an unlocked file in `ingest/`,
//! which the next [`LocalBlobs::open`] removes.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use carrack_oci::{Algorithm, Digest, Layout};
use rustix::fs::{FlockOperation, flock};

use crate::blob::{Blob, BlobError, BlobStore, Ingest, Pending};

/// Blobs in one directory.
#[derive(Clone, Debug)]
pub struct LocalBlobs {
    directory: Arc<Path>,
}

/// Tells apart the ingests of one process.
static NEXT_INGEST: AtomicU64 = AtomicU64::new(0);

impl LocalBlobs {
    /// Opens the store in `directory`, making it if it is missing, and removes what
    /// writers that died have left behind.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made or written to.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, BlobError> {
        let directory = directory.into();
        let store = Self { directory: Arc::from(directory.as_path()) };
        store.lay_out().map_err(|source| BlobError::Store { directory, source })?;
        Ok(store)
    }

    /// Where the store is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Opens a blob's file. Its bytes are as stored, not checked again.
    ///
    /// # Errors
    ///
    /// [`BlobError::NotFound`] when the store does not hold it.
    pub fn blob(&self, digest: &Digest) -> Result<File, BlobError> {
        File::open(self.path(digest)).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => BlobError::NotFound(digest.clone()),
            _ => BlobError::Read { digest: digest.clone(), source },
        })
    }

    /// When a blob was committed, if the store holds it.
    ///
    /// # Errors
    ///
    /// When the store cannot tell.
    pub fn committed_at(
        &self,
        digest: &Digest,
    ) -> Result<Option<std::time::SystemTime>, BlobError> {
        match fs::metadata(self.path(digest)).and_then(|found| found.modified()) {
            Ok(time) => Ok(Some(time)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(BlobError::Read { digest: digest.clone(), source }),
        }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs(digest.algorithm()).join(digest.hex())
    }

    fn blobs(&self, algorithm: Algorithm) -> PathBuf {
        self.directory.join("blobs").join(algorithm.name())
    }

    fn ingests(&self) -> PathBuf {
        self.directory.join("ingest")
    }

    fn lay_out(&self) -> io::Result<()> {
        make_private(&self.ingests())?;
        for algorithm in Algorithm::ALL {
            make_private(&self.blobs(algorithm))?;
        }
        sync_directory(&self.directory.join("blobs"))?;
        self.sweep()?;
        self.mark()?;
        sync_directory(&self.directory)
    }

    /// Writes `oci-layout`, whole or not at all.
    fn mark(&self) -> io::Result<()> {
        let marker = self.directory.join(Layout::FILE);
        if marker.exists() {
            return Ok(());
        }
        let mut pending = LocalPending::create(self)?;
        pending.write_all(&Layout::current().to_json())?;
        pending.publish_at(&marker)
    }

    /// Removes every ingest whose writer is gone: nobody holds its lock.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.ingests())? {
            let path = entry?.path();
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                remove_if_there(&path)?;
            }
        }
        Ok(())
    }
}

impl BlobStore for LocalBlobs {
    fn open(&self, digest: &Digest) -> Result<Box<dyn Blob>, BlobError> {
        Ok(Box::new(self.blob(digest)?))
    }

    fn ingest_with(&self, algorithm: Algorithm) -> Result<Ingest, BlobError> {
        let pending = LocalPending::create(self).map_err(BlobError::Write)?;
        Ok(Ingest::new(algorithm, Box::new(pending)))
    }

    fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        match fs::metadata(self.path(digest)) {
            Ok(found) => Ok(Some(found.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(BlobError::Read { digest: digest.clone(), source }),
        }
    }

    fn list(&self) -> Result<Vec<Digest>, BlobError> {
        let mut found = Vec::new();
        for algorithm in Algorithm::ALL {
            list_into(&mut found, algorithm, &self.blobs(algorithm)).map_err(|source| {
                BlobError::Store { directory: self.directory.to_path_buf(), source }
            })?;
        }
        found.sort();
        Ok(found)
    }

    fn delete(&self, digest: &Digest) -> Result<bool, BlobError> {
        remove_if_there(&self.path(digest))
            .map_err(|source| BlobError::Delete { digest: digest.clone(), source })
    }
}

/// A file in `ingest/`, locked as long as this lives.
struct LocalPending {
    store: LocalBlobs,
    path: PathBuf,
    file: File,
    published: bool,
}

impl LocalPending {
    fn create(store: &LocalBlobs) -> io::Result<Self> {
        loop {
            let number = NEXT_INGEST.fetch_add(1, Ordering::Relaxed);
            let path = store.ingests().join(format!("{}-{number}", std::process::id()));
            let file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)
            {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            };
            rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))?;
            // A sweep may have come between the two calls above and removed the name.
            if file.metadata()?.nlink() > 0 {
                return Ok(Self { store: store.clone(), path, file, published: false });
            }
        }
    }

    fn publish_at(mut self, place: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, place)?;
        self.published = true;
        place.parent().map_or(Ok(()), sync_directory)
    }
}

impl io::Write for LocalPending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Pending for LocalPending {
    fn publish(self: Box<Self>, digest: &Digest) -> io::Result<()> {
        let place = self.store.path(digest);
        if place.exists() {
            // The older copy's writer may not have synced the directory yet.
            return place.parent().map_or(Ok(()), sync_directory);
        }
        self.publish_at(&place)
    }
}

impl Drop for LocalPending {
    fn drop(&mut self) {
        if !self.published {
            // A file that cannot be removed now is removed by the next sweep.
            fs::remove_file(&self.path).ok();
        }
    }
}

fn list_into(found: &mut Vec<Digest>, algorithm: Algorithm, place: &Path) -> io::Result<()> {
    for entry in fs::read_dir(place)? {
        let name = entry?.file_name();
        // Whatever is not called like a digest is not ours to list.
        found.extend(OsStr::to_str(&name).and_then(|hex| Digest::new(algorithm, hex).ok()));
    }
    Ok(())
}

fn make_private(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

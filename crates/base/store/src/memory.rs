//! Both stores in memory: the reference the others are compared with, and what
//! tests use that have no need of a disk.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use carrack_oci::{Algorithm, Digest};

use crate::blob::{Blob, BlobError, BlobStore, Ingest, Pending};
use crate::record::{Check, Entry, RecordError, RecordStore, Revision, Write};

type Blobs = Arc<Mutex<BTreeMap<Digest, Arc<[u8]>>>>;

/// Blobs in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryBlobs {
    blobs: Blobs,
}

impl MemoryBlobs {
    /// A store that holds nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl BlobStore for MemoryBlobs {
    fn open(&self, digest: &Digest) -> Result<Box<dyn Blob>, BlobError> {
        match locked(&self.blobs).get(digest) {
            Some(bytes) => Ok(Box::new(io::Cursor::new(Arc::clone(bytes)))),
            None => Err(BlobError::NotFound(digest.clone())),
        }
    }

    fn ingest_with(&self, algorithm: Algorithm) -> Result<Ingest, BlobError> {
        let pending = MemoryPending { blobs: Arc::clone(&self.blobs), bytes: Vec::new() };
        Ok(Ingest::new(algorithm, Box::new(pending)))
    }

    fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        let size = locked(&self.blobs).get(digest).map(|bytes| bytes.len());
        Ok(size.map(|size| u64::try_from(size).unwrap_or(u64::MAX)))
    }

    fn list(&self) -> Result<Vec<Digest>, BlobError> {
        Ok(locked(&self.blobs).keys().cloned().collect())
    }

    fn delete(&self, digest: &Digest) -> Result<bool, BlobError> {
        Ok(locked(&self.blobs).remove(digest).is_some())
    }
}

struct MemoryPending {
    blobs: Blobs,
    bytes: Vec<u8>,
}

impl io::Write for MemoryPending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pending for MemoryPending {
    fn publish(self: Box<Self>, digest: &Digest) -> io::Result<()> {
        let Self { blobs, bytes } = *self;
        locked(&blobs).entry(digest.clone()).or_insert_with(|| Arc::from(bytes));
        Ok(())
    }
}

/// Records in memory.
#[derive(Debug, Default)]
pub struct MemoryRecords {
    state: Mutex<Records>,
}

#[derive(Debug, Default)]
struct Records {
    revision: u64,
    entries: BTreeMap<String, (Vec<u8>, Revision)>,
}

impl MemoryRecords {
    /// A store that holds nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl RecordStore for MemoryRecords {
    fn get(&self, key: &str) -> Result<Option<Entry>, RecordError> {
        let state = locked(&self.state);
        Ok(state.entries.get(key).map(|(value, revision)| Entry {
            key: key.to_owned(),
            value: value.clone(),
            revision: *revision,
        }))
    }

    fn scan(&self, prefix: &str) -> Result<Vec<Entry>, RecordError> {
        let state = locked(&self.state);
        let entries = state.entries.range(prefix.to_owned()..);
        Ok(entries
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, (value, revision))| Entry {
                key: key.clone(),
                value: value.clone(),
                revision: *revision,
            })
            .collect())
    }

    fn commit(&self, checks: &[Check], writes: &[Write]) -> Result<Revision, RecordError> {
        let mut state = locked(&self.state);
        let found = |key: &str| state.entries.get(key).map(|(_, revision)| *revision);
        if let Some(failed) = checks.iter().find(|check| !check.holds(found(check.key()))) {
            return Err(RecordError::Conflict { key: failed.key().to_owned() });
        }
        state.revision += 1;
        let revision = Revision(state.revision);
        for write in writes {
            match write {
                Write::Put(key, value) => {
                    state.entries.insert(key.clone(), (value.clone(), revision));
                }
                Write::Delete(key) => {
                    state.entries.remove(key);
                }
            }
        }
        Ok(revision)
    }
}

/// What a mutex guards. Nothing here panics between two changes that belong
/// together, so a panic elsewhere leaves it sound.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

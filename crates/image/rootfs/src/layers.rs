//! Layers, each unpacked once for all images that have it.
//!
//! ```text
//! DIR/<diff id>/           a whole layer; never changed again
//! DIR/.pending/<pid>-<n>/  being unpacked; its writer holds a lock on it
//! ```
//!
//! A layer appears by rename after its files are on the disk and both its digests
//! matched. What a process that died has left in `.pending/` is removed when the
//! directory is next opened.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use carrack_linux::rooted::RootedDir;
use carrack_oci::{Compression, Descriptor, Digest};
use carrack_store::{BlobError, LocalBlobs};
use rustix::fs::{FlockOperation, flock, syncfs};

use crate::apply::{ApplyError, ApplyOptions, Limits, apply};
use crate::decompress::Decompressed;
use crate::hashing::Hashing;

/// Where layers being unpacked are.
const PENDING: &str = ".pending";

/// Tells apart what one process unpacks.
static NEXT_PENDING: AtomicU64 = AtomicU64::new(0);

/// Unpacked layers in one directory.
#[derive(Clone, Debug)]
pub struct Layers {
    directory: Arc<Path>,
    blobs: Arc<LocalBlobs>,
    limits: Limits,
}

impl Layers {
    /// Opens the layers in `directory`, making it if it is missing, and removes what
    /// processes that died have left half unpacked.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made or written to.
    pub fn open(directory: impl Into<PathBuf>, blobs: Arc<LocalBlobs>) -> Result<Self, LayerError> {
        let directory: PathBuf = directory.into();
        let layers = Self { directory: Arc::from(directory), blobs, limits: Limits::default() };
        layers.lay_out().map_err(|source| layers.unusable(source))?;
        Ok(layers)
    }

    /// The same layers, unpacking with other limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The directory `layer` is unpacked in, unpacking it if it is not.
    ///
    /// When this returns the directory is whole and lasts. Several may ask for the
    /// same layer at once.
    ///
    /// # Errors
    ///
    /// When the blob is missing, is not what `layer` and `diff_id` say, or has
    /// something in it that is refused. Then nothing of it remains.
    pub fn unpacked(&self, layer: &Descriptor, diff_id: &Digest) -> Result<PathBuf, LayerError> {
        let place = self.place(diff_id);
        if place.is_dir() {
            return Ok(place);
        }
        let pending = Pending::make(&self.directory).map_err(|source| self.unusable(source))?;
        self.unpack(layer, diff_id, &pending)?;
        pending.publish(&place).map_err(|source| self.unusable(source))?;
        Ok(place)
    }

    /// The diff ids of all layers unpacked here.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Digest>, LayerError> {
        let mut found = Vec::new();
        let entries = fs::read_dir(&self.directory).map_err(|source| self.unusable(source))?;
        for entry in entries {
            let name = entry.map_err(|source| self.unusable(source))?.file_name();
            let Some(hex) = name.to_str() else { continue };
            found.extend(
                carrack_oci::Algorithm::ALL
                    .into_iter()
                    .find_map(|algorithm| Digest::new(algorithm, hex).ok()),
            );
        }
        found.sort();
        Ok(found)
    }

    /// Removes an unpacked layer, and says whether it was there. The caller sees to
    /// it that no mount has it.
    ///
    /// # Errors
    ///
    /// When it cannot be removed.
    pub fn remove(&self, diff_id: &Digest) -> Result<bool, LayerError> {
        // By way of `.pending`, so that no half of it is ever seen.
        let doomed = next_pending(&self.directory);
        match fs::rename(self.place(diff_id), &doomed) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(self.unusable(source)),
        }
        match fs::remove_dir_all(&doomed) {
            // Another process may be sweeping it away at the same time.
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.unusable(error)),
            _ => Ok(true),
        }
    }

    /// Removes every unpacked layer but those `needed`, and says how many that were.
    /// The caller sees to it that no mount has them, and that nobody is unpacking to
    /// mount.
    ///
    /// # Errors
    ///
    /// When one cannot be removed.
    pub fn retain(&self, needed: &BTreeSet<Digest>) -> Result<u64, LayerError> {
        let mut removed = 0;
        for diff_id in self.list()?.iter().filter(|diff_id| !needed.contains(*diff_id)) {
            removed += u64::from(self.remove(diff_id)?);
        }
        Ok(removed)
    }

    fn place(&self, diff_id: &Digest) -> PathBuf {
        self.directory.join(diff_id.hex())
    }

    fn unpack(
        &self,
        layer: &Descriptor,
        diff_id: &Digest,
        pending: &Pending,
    ) -> Result<(), LayerError> {
        let compression = layer.media_type.layer().ok_or_else(|| LayerError::Kind {
            digest: layer.digest.clone(),
            kind: layer.media_type.to_string(),
        })?;
        if compression == Compression::None && layer.digest != *diff_id {
            return Err(LayerError::DiffId {
                digest: layer.digest.clone(),
                expected: diff_id.clone(),
                found: layer.digest.clone(),
            });
        }
        let blob = self.blobs.blob(&layer.digest).map_err(LayerError::Blob)?;
        let root = RootedDir::open(&pending.path).map_err(|source| self.unusable(source))?;
        let options =
            ApplyOptions { limits: self.limits.for_size(layer.size), ..ApplyOptions::layer() };
        let found = unpack(blob, layer, diff_id, compression, &root, &options)?;
        check(layer, diff_id, found)
    }

    fn lay_out(&self) -> io::Result<()> {
        let pending = self.directory.join(PENDING);
        // Not for others to see: a layer may hold set-user-id programs.
        DirBuilder::new().recursive(true).mode(0o700).create(&pending)?;
        for entry in fs::read_dir(pending)? {
            sweep(&entry?.path())?;
        }
        Ok(())
    }

    fn unusable(&self, source: io::Error) -> LayerError {
        LayerError::Directory { directory: self.directory.to_path_buf(), source }
    }
}

/// The digests of what was read: of the blob, and of the archive in it.
struct Found {
    digest: Digest,
    diff_id: Digest,
}

fn unpack(
    blob: File,
    layer: &Descriptor,
    diff_id: &Digest,
    compression: Compression,
    root: &RootedDir,
    options: &ApplyOptions,
) -> Result<Found, LayerError> {
    let read = |source| LayerError::Read { digest: layer.digest.clone(), source };
    let refused = |source| LayerError::Apply { digest: layer.digest.clone(), source };
    let packed = Hashing::new(blob, layer.digest.algorithm());
    if compression == Compression::None {
        let mut packed = packed;
        apply(&mut packed, root, options).map_err(refused)?;
        let digest = packed.finish().map_err(read)?;
        return Ok(Found { diff_id: digest.clone(), digest });
    }
    let mut decompressed = Decompressed::new(packed, compression).map_err(read)?;
    let mut archive = Hashing::new(&mut decompressed, diff_id.algorithm());
    apply(&mut archive, root, options).map_err(refused)?;
    let diff_id = archive.finish_within(LARGEST_TAIL).map_err(read)?;
    let digest = decompressed.into_inner().finish().map_err(read)?;
    Ok(Found { digest, diff_id })
}

fn check(layer: &Descriptor, diff_id: &Digest, found: Found) -> Result<(), LayerError> {
    if found.digest != layer.digest {
        return Err(LayerError::Blob(BlobError::Rotten { digest: layer.digest.clone() }));
    }
    if found.diff_id != *diff_id {
        return Err(LayerError::DiffId {
            digest: layer.digest.clone(),
            expected: diff_id.clone(),
            found: found.diff_id,
        });
    }
    Ok(())
}

/// What may follow an archive's end: padding, which some programs make generous.
const LARGEST_TAIL: u64 = 64 * 1024 * 1024;

/// A directory in `.pending`, locked as long as this lives.
#[derive(Debug)]
struct Pending {
    path: PathBuf,
    lock: File,
    is_published: bool,
}

impl Pending {
    fn make(directory: &Path) -> io::Result<Self> {
        loop {
            let path = next_pending(directory);
            match DirBuilder::new().mode(0o755).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            let lock = match File::open(&path) {
                Ok(lock) => lock,
                // A sweep came first.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            rustix::io::retry_on_intr(|| flock(&lock, FlockOperation::LockExclusive))?;
            if lock.metadata()?.nlink() > 0 {
                // The layer's root, whatever the umask says.
                lock.set_permissions(fs::Permissions::from_mode(0o755))?;
                return Ok(Self { path, lock, is_published: false });
            }
        }
    }

    /// Moves the directory to `place`, unless someone else was faster.
    fn publish(mut self, place: &Path) -> io::Result<()> {
        syncfs(&self.lock)?;
        match fs::rename(&self.path, place) {
            Ok(()) => self.is_published = true,
            Err(_) if place.is_dir() => {}
            Err(error) => return Err(error),
        }
        place.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.is_published {
            // What cannot be removed now is removed when the directory is next opened.
            fs::remove_dir_all(&self.path).ok();
        }
    }
}

fn next_pending(directory: &Path) -> PathBuf {
    let number = NEXT_PENDING.fetch_add(1, Ordering::Relaxed);
    directory.join(PENDING).join(format!("{}-{number}", std::process::id()))
}

/// Removes a pending directory if whoever made it is gone.
fn sweep(path: &Path) -> io::Result<()> {
    let directory = match File::open(path) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if flock(&directory, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Why a layer is not unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// Its blob is missing or rotten.
    #[error("taking the layer from the store")]
    Blob(#[source] BlobError),
    /// It is not a layer of a filesystem.
    #[error("layer {digest} is of kind `{kind}`, which is not supported")]
    Kind {
        /// The layer.
        digest: Digest,
        /// What it says it is.
        kind: String,
    },
    /// It unpacks to something other than the image's configuration says.
    #[error("layer {digest} unpacks to {found}, and the image says {expected}")]
    DiffId {
        /// The layer.
        digest: Digest,
        /// What the image says.
        expected: Digest,
        /// What is in it.
        found: Digest,
    },
    /// Its bytes cannot be read or decompressed.
    #[error("reading layer {digest}")]
    Read {
        /// The layer.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// Its archive cannot be unpacked.
    #[error("unpacking layer {digest}")]
    Apply {
        /// The layer.
        digest: Digest,
        /// Why.
        source: ApplyError,
    },
    /// The directory of layers is out of reach.
    #[error("using the layers in {}", directory.display())]
    Directory {
        /// Where it is.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
}

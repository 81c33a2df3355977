//! Taking images out of an archive that others wrote.
//!
//! ```text
//! tar ─read once─▶ blobs in the store, documents in memory
//!     ─interpret─▶ manifests and names ─check─▶ all names at once, or none
//! ```
//!
//! Nothing in the archive is ever used as a path on the disk: files become blobs
//! and are called by their digest. An archive that is refused leaves no name, and
//! the blobs it brought are removed again.

mod docker;
mod layout;
mod take_in;

use std::error::Error;
use std::io::{self, Read};

use carrack_oci::archive::ArchiveError;
use carrack_oci::{Digest, DocumentError, Platform, Reference};
use carrack_store::Table;

use crate::images::{Image, ImageError, Images, Name, key};
use take_in::Contents;

/// The caller's say on an image before it has a name.
type Check<'a> = dyn Fn(&Image) -> Result<(), Box<dyn Error + Send + Sync>> + 'a;

/// How much an archive may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadLimits {
    /// Bytes in all its files together.
    pub bytes: u64,
    /// Entries, of whatever kind.
    pub entries: u64,
    /// How many times its own size it may unpack to, beyond one gibibyte.
    pub ratio: u64,
}

impl Default for LoadLimits {
    fn default() -> Self {
        Self { bytes: 256 << 30, entries: 20_000, ratio: 200 }
    }
}

/// An image that was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The digest of its manifest.
    pub digest: Digest,
    /// The names the archive gives it; there may be none.
    pub references: Vec<Reference>,
}

impl Images {
    /// Takes in every image of an archive: an OCI layout or what `docker save`
    /// writes, as it is or compressed with gzip or zstd.
    ///
    /// An image without a name is kept as long as the caller holds a lease, or
    /// until it is collected.
    ///
    /// # Errors
    ///
    /// When the archive is none of these, is broken, goes beyond `limits`, or has an
    /// image that is not whole or not for Linux on this processor. Then no name has
    /// changed.
    pub fn load(&self, input: impl Read, limits: &LoadLimits) -> Result<Vec<Loaded>, LoadError> {
        self.load_checked(input, limits, |_| Ok(()))
    }

    /// As [`Images::load`], letting `check` refuse an image before any has a name:
    /// by unpacking its layers, for instance.
    ///
    /// # Errors
    ///
    /// As [`Images::load`], and [`LoadError::Refused`].
    pub fn load_checked(
        &self,
        input: impl Read,
        limits: &LoadLimits,
        check: impl Fn(&Image) -> Result<(), Box<dyn Error + Send + Sync>>,
    ) -> Result<Vec<Loaded>, LoadError> {
        let mut fresh = Vec::new();
        let loaded = {
            let _lease = self.lease()?;
            self.load_leased(input, limits, &check, &mut fresh)
        };
        if loaded.is_err() {
            // What stays because someone else is at work is removed by a later `gc`.
            self.remove_unneeded(&fresh).ok();
        }
        loaded
    }

    fn load_leased(
        &self,
        input: impl Read,
        limits: &LoadLimits,
        check: &Check<'_>,
        fresh: &mut Vec<Digest>,
    ) -> Result<Vec<Loaded>, LoadError> {
        let contents = take_in::take_in(self, input, limits, fresh)?;
        let loaded = self.interpret(&contents)?;
        if loaded.is_empty() {
            return Err(LoadError::NoImage);
        }
        for image in &loaded {
            self.check_whole(&image.digest)?;
            let whole = self.get(&image.digest)?;
            let platform = whole.config.platform();
            if !platform.runs_on(&Platform::host()) {
                return Err(LoadError::Platform { platform: platform.to_string() });
            }
            check(&whole)
                .map_err(|source| LoadError::Refused { digest: image.digest.clone(), source })?;
        }
        self.name_all(&loaded)?;
        Ok(loaded)
    }

    fn interpret(&self, contents: &Contents) -> Result<Vec<Loaded>, LoadError> {
        if let Some(index) = contents.document("index.json") {
            return layout::interpret(self, contents, index);
        }
        if let Some(manifest) = contents.document("manifest.json") {
            return docker::interpret(self, contents, manifest);
        }
        Err(LoadError::NotAnImageArchive)
    }

    fn name_all(&self, loaded: &[Loaded]) -> Result<(), LoadError> {
        let mut writes = Vec::new();
        for image in loaded {
            let name = Name { digest: image.digest.clone() };
            for reference in &image.references {
                let write = Table::<Name>::write(&key(reference), &name);
                writes.push(write.map_err(ImageError::from)?);
            }
        }
        self.records().commit(&[], &writes).map_err(ImageError::from)?;
        Ok(())
    }
}

/// Why an archive was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The stream fails, or is not what it is packed as.
    #[error("reading the image archive")]
    Read(#[source] io::Error),
    /// It is not a tar archive, or a broken one.
    #[error("reading the image archive")]
    Archive(#[from] ArchiveError),
    /// It is compressed with something we do not undo.
    #[error("the image archive is compressed with {0}; decompress it first")]
    Compression(&'static str),
    /// It is not a tar archive, or has neither `index.json` nor `manifest.json`.
    #[error(
        "this is not an image archive: that is a tar with `index.json` (OCI) or `manifest.json` (Docker)"
    )]
    NotAnImageArchive,
    /// It is one, and there is nothing in it for this machine.
    #[error("the archive has no image for this machine")]
    NoImage,
    /// An image in it did not pass the caller's check.
    #[error("image {digest} of the archive is refused")]
    Refused {
        /// The image.
        digest: Digest,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// An image in it is for another machine.
    #[error("the archive has an image for {platform}, and this machine is {}", Platform::host())]
    Platform {
        /// What it is for.
        platform: String,
    },
    /// It holds more than allowed.
    #[error("the image archive has more than {limit} {what}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// An entry no image archive has.
    #[error("the image archive has an entry `{path}` that {why}")]
    Entry {
        /// The entry.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file's bytes are not what its name says.
    #[error("the image archive has bytes under `{path}` that do not match that digest")]
    Mismatch {
        /// The file.
        path: String,
        /// What was expected and found.
        source: Box<ImageError>,
    },
    /// One of its documents is malformed.
    #[error("reading `{path}` of the image archive")]
    Document {
        /// The document.
        path: String,
        /// What is wrong with it.
        source: DocumentError,
    },
    /// It points at a file it does not have.
    #[error("the image archive names `{path}` and does not have it")]
    Missing {
        /// The file.
        path: String,
    },
    /// A layer is not what the configuration says.
    #[error("layer `{path}` hashes to {found}, and the image's configuration says {expected}")]
    Layer {
        /// The layer.
        path: String,
        /// What the configuration says.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// A name is not one.
    #[error("the image archive has the image name `{name}`")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        source: carrack_oci::ReferenceError,
    },
    /// An image cannot be kept.
    #[error("keeping the image")]
    Image(#[from] ImageError),
}

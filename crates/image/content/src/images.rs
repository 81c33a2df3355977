//! Names and the images they lead to.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use carrack_oci::{
    Descriptor, Digest, DocumentError, ImageConfig, LARGEST_DOCUMENT, Manifest, MediaType,
    Reference,
};
use carrack_store::{
    BlobError, BlobStore as _, LocalBlobs, LocalRecords, Record, RecordError, RecordStore, Table,
    TableError,
};
use serde::{Deserialize, Serialize};

/// The images in one directory, which several processes share.
#[derive(Clone, Debug)]
pub struct Images {
    pub(crate) directory: Arc<Path>,
    pub(crate) blobs: Arc<LocalBlobs>,
    records: Arc<LocalRecords>,
    pub(crate) names: Table<Name>,
}

/// An image: what it is made of and how to run it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The digest of its manifest.
    pub digest: Digest,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its configuration.
    pub config: ImageConfig,
    /// The size of all its blobs, layers as they are packed.
    pub size: u64,
}

impl Image {
    /// Its layers with their diff ids, the lowest first.
    pub fn layers(&self) -> impl DoubleEndedIterator<Item = (&Descriptor, &Digest)> {
        self.manifest.layers.iter().zip(&self.config.rootfs.diff_ids)
    }
}

/// A name and what it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The name.
    pub reference: Reference,
    /// The digest of the manifest it leads to.
    pub digest: Digest,
}

/// What is kept of a name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Name {
    pub(crate) digest: Digest,
}

impl Record for Name {
    const TABLE: &'static str = "names";
    const VERSION: u32 = 1;
}

impl Images {
    /// Opens the images in `directory`, making it if it is missing.
    ///
    /// # Errors
    ///
    /// When it cannot be made or written to.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, ImageError> {
        let directory: PathBuf = directory.into();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|source| ImageError::Directory { directory: directory.clone(), source })?;
        let blobs = Arc::new(LocalBlobs::open(&directory)?);
        let records = Arc::new(LocalRecords::open(directory.join("records.db"))?);
        let names = Table::new(Arc::clone(&records) as Arc<dyn RecordStore>);
        Ok(Self { directory: Arc::from(directory), blobs, records, names })
    }

    /// Where the images' blobs are.
    #[must_use]
    pub fn blobs(&self) -> &Arc<LocalBlobs> {
        &self.blobs
    }

    /// The records beside the images, for others who keep facts about them.
    #[must_use]
    pub fn records(&self) -> Arc<dyn RecordStore> {
        Arc::clone(&self.records) as Arc<dyn RecordStore>
    }

    /// The image `reference` leads to, `latest` when it says nothing else. A digest
    /// in it decides alone.
    ///
    /// # Errors
    ///
    /// When the image is there and broken.
    pub fn resolve(&self, reference: &Reference) -> Result<Option<Image>, ImageError> {
        if let Some(digest) = reference.digest() {
            let is_there = self.blobs.stat(digest)?.is_some();
            return is_there.then(|| self.get(digest)).transpose();
        }
        match self.names.get(&key(reference))? {
            Some(row) => self.get(&row.record.digest).map(Some),
            None => Ok(None),
        }
    }

    /// The image a person means by `text`: a name, or the start of a digest of an
    /// image that has a name, with or without `sha256:`.
    ///
    /// # Errors
    ///
    /// [`ImageError::Ambiguous`] when several digests start so, and when the image
    /// is there and broken.
    pub fn find(&self, text: &str) -> Result<Option<Image>, ImageError> {
        if let Ok(reference) = text.parse::<Reference>()
            && let Some(image) = self.resolve(&reference)?
        {
            return Ok(Some(image));
        }
        let start = text.strip_prefix("sha256:").unwrap_or(text);
        let is_hex = start.bytes().all(|byte| byte.is_ascii_hexdigit());
        if start.len() < 4 || !is_hex {
            return Ok(None);
        }
        let mut digests: Vec<Digest> = self.list()?.into_iter().map(|named| named.digest).collect();
        digests.retain(|digest| digest.hex().starts_with(start));
        digests.sort();
        digests.dedup();
        match digests.as_slice() {
            [] => Ok(None),
            [digest] => self.get(digest).map(Some),
            _ => Err(ImageError::Ambiguous { start: start.to_owned(), count: digests.len() }),
        }
    }

    /// The image whose manifest has this digest.
    ///
    /// # Errors
    ///
    /// When it is not there, or is broken.
    pub fn get(&self, digest: &Digest) -> Result<Image, ImageError> {
        let broken = |source| ImageError::Broken { digest: digest.clone(), source };
        let bytes = self.blobs.read(digest, LARGEST_DOCUMENT)?;
        let manifest = Manifest::parse(&bytes).map_err(broken)?;
        let config = self.blobs.read(&manifest.config.digest, LARGEST_DOCUMENT)?;
        let config = ImageConfig::parse(&config).map_err(broken)?;
        check_layers(&manifest, &config).map_err(broken)?;
        let size = manifest.layers.iter().map(|layer| layer.size).sum::<u64>()
            + manifest.config.size
            + u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(Image { digest: digest.clone(), manifest, config, size })
    }

    /// Makes `reference` lead to the image with this manifest, whatever it led to.
    ///
    /// # Errors
    ///
    /// When the image is not whole.
    pub fn tag(&self, reference: &Reference, digest: &Digest) -> Result<(), ImageError> {
        self.check_whole(digest)?;
        self.names.put(&key(reference), &Name { digest: digest.clone() })?;
        Ok(())
    }

    /// Makes `reference` lead nowhere, and says where it led. The image stays until
    /// it is collected.
    ///
    /// # Errors
    ///
    /// When the name cannot be removed.
    pub fn untag(&self, reference: &Reference) -> Result<Option<Digest>, ImageError> {
        let key = key(reference);
        let mut led_to = None;
        self.names.update(&key, |name| {
            led_to = name.map(|name| name.digest);
            None
        })?;
        Ok(led_to)
    }

    /// Every name, in order.
    ///
    /// # Errors
    ///
    /// When the names cannot be read.
    pub fn list(&self) -> Result<Vec<Named>, ImageError> {
        let named = |row: carrack_store::Row<Name>| {
            // Only references were ever written here.
            let reference = row.key.parse().ok()?;
            Some(Named { reference, digest: row.record.digest })
        };
        Ok(self.names.list()?.into_iter().filter_map(named).collect())
    }

    /// Keeps an image configuration.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn put_config(&self, config: &ImageConfig) -> Result<Descriptor, ImageError> {
        self.put(MediaType::CONFIG, &config.to_json())
    }

    /// Keeps a manifest whose configuration and layers are here.
    ///
    /// # Errors
    ///
    /// When one of them is missing, or does not fit the others.
    pub fn put_manifest(&self, manifest: &Manifest) -> Result<Descriptor, ImageError> {
        let descriptor = self.put(manifest.kind(), &manifest.to_json())?;
        self.check_whole(&descriptor.digest)?;
        Ok(descriptor)
    }

    /// Keeps an image of this configuration and these layers, the lowest first, and
    /// says what it is called. The configuration's diff ids are set from them.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn put_image(
        &self,
        mut config: ImageConfig,
        layers: &[crate::Layer],
    ) -> Result<Image, ImageError> {
        config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let layers = layers.iter().map(|layer| layer.descriptor.clone()).collect();
        let manifest = Manifest::new(self.put_config(&config)?, layers);
        let descriptor = self.put_manifest(&manifest)?;
        self.get(&descriptor.digest)
    }

    pub(crate) fn put(&self, kind: MediaType, bytes: &[u8]) -> Result<Descriptor, ImageError> {
        self.blobs.put(bytes)?;
        Ok(Descriptor::of(kind, bytes))
    }

    /// Checks that every blob of an image is here and has its size.
    pub(crate) fn check_whole(&self, digest: &Digest) -> Result<(), ImageError> {
        let image = self.get(digest)?;
        for part in image.manifest.layers.iter().chain([&image.manifest.config]) {
            let found = self.blobs.stat(&part.digest)?;
            if found != Some(part.size) {
                return Err(ImageError::Incomplete {
                    digest: digest.clone(),
                    part: part.digest.clone(),
                    expected: part.size,
                    found,
                });
            }
        }
        Ok(())
    }
}

/// The key of a name's record.
pub(crate) fn key(reference: &Reference) -> String {
    reference.clone().without_digest().or_latest().to_string()
}

/// Refuses an image to run whose layers and diff ids do not go together.
fn check_layers(manifest: &Manifest, config: &ImageConfig) -> Result<(), DocumentError> {
    let contradiction = |why| Err(DocumentError::Contradiction { what: "image manifest", why });
    if !manifest.config.media_type.is_config() {
        let kind = &manifest.config.media_type;
        return contradiction(format!("it is an artifact (`{kind}`), not an image to run"));
    }
    if let Some(layer) = manifest.layers.iter().find(|layer| layer.media_type.layer().is_none()) {
        let kind = &layer.media_type;
        return contradiction(format!("a layer is of kind `{kind}`, which is not supported"));
    }
    let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if layers != diff_ids {
        return contradiction(format!("it has {layers} layers and {diff_ids} diff ids"));
    }
    Ok(())
}

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The store's directory is out of reach.
    #[error("opening the images in {}", directory.display())]
    Directory {
        /// Where it is.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A blob of it is missing, rotten or out of reach.
    #[error("using an image's content")]
    Blob(#[from] BlobError),
    /// The records cannot be opened.
    #[error("opening the images' names")]
    Records(#[from] RecordError),
    /// The names cannot be read or written.
    #[error("using the images' names")]
    Names(#[from] TableError),
    /// Its manifest or configuration is not one.
    #[error("image {digest} is broken")]
    Broken {
        /// The image.
        digest: Digest,
        /// What is wrong.
        source: DocumentError,
    },
    /// A part of it is not here, or not as long as its descriptor says.
    #[error("image {digest} is not whole: {part} should have {expected} bytes, and {}", stored(*found))]
    Incomplete {
        /// The image.
        digest: Digest,
        /// The part.
        part: Digest,
        /// How long it should be.
        expected: u64,
        /// How long it is, if it is there.
        found: Option<u64>,
    },
    /// More than one image's digest starts so.
    #[error("{count} images start with `{start}`; write more of the digest")]
    Ambiguous {
        /// The start.
        start: String,
        /// How many there are.
        count: usize,
    },
}

fn stored(found: Option<u64>) -> String {
    found.map_or_else(|| "is missing".to_owned(), |size| format!("has {size}"))
}

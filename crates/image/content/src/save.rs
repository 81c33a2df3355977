//! Writing images into an archive that others read.
//!
//! The archive is an OCI image layout in a tar, with Docker's `manifest.json`
//! beside it, so that skopeo, podman, buildah, containerd and Docker all take it.
//! The same images give the same bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};

use carrack_oci::archive::{ArchiveError, Entry, Kind, Writer};
use carrack_oci::{
    Algorithm, Descriptor, Digest, Hasher, Index, Layout, Platform, Reference, annotation,
};
use carrack_store::BlobError;
use serde::Serialize;

use crate::images::{Image, ImageError, Images, key};

/// What was saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// How many images.
    pub images: u64,
    /// How many bytes of blobs, shared ones once.
    pub bytes: u64,
}

/// One image as Docker's `manifest.json` has it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

impl Images {
    /// Writes the images `references` lead to into an archive.
    ///
    /// # Errors
    ///
    /// When a reference leads nowhere, before anything is written; when a blob has
    /// rotted, or the output fails.
    pub fn save(&self, references: &[Reference], output: impl Write) -> Result<Saved, SaveError> {
        let _lease = self.lease()?;
        let images = references
            .iter()
            .map(|reference| {
                let found = self.resolve(reference)?;
                let image = found.ok_or_else(|| SaveError::NotFound(reference.clone()))?;
                Ok((reference.clone().without_digest().or_latest(), image))
            })
            .collect::<Result<Vec<_>, SaveError>>()?;
        let blobs = self.blobs_of(&images)?;
        let mut archive = Writer::new(output);
        write_documents(&mut archive, &images)?;
        for algorithm in Algorithm::ALL {
            if blobs.keys().any(|digest| digest.algorithm() == algorithm) {
                let path = format!("blobs/{}/", algorithm.name());
                archive.append_empty(&Entry::new(path, Kind::Directory, 0o755))?;
            }
        }
        for (digest, size) in &blobs {
            let blob = self.blobs.blob(digest).map_err(ImageError::from)?;
            write_blob(&mut archive, digest, *size, blob)?;
        }
        archive.finish()?;
        let images = u64::try_from(images.len()).unwrap_or(u64::MAX);
        Ok(Saved { images, bytes: blobs.values().sum() })
    }

    fn blobs_of(&self, images: &[(Reference, Image)]) -> Result<BTreeMap<Digest, u64>, ImageError> {
        use carrack_store::BlobStore as _;
        let mut blobs = BTreeMap::new();
        for (_, image) in images {
            let parts = image.manifest.layers.iter().chain([&image.manifest.config]);
            blobs.extend(parts.map(|part| (part.digest.clone(), part.size)));
            let size = self.blobs.stat(&image.digest)?;
            let missing = || BlobError::NotFound(image.digest.clone());
            blobs.insert(image.digest.clone(), size.ok_or_else(missing)?);
        }
        Ok(blobs)
    }
}

fn write_documents(
    archive: &mut Writer<impl Write>,
    images: &[(Reference, Image)],
) -> Result<(), SaveError> {
    archive.append_bytes(Layout::FILE, &Layout::current().to_json())?;
    let index = Index::new(images.iter().map(|(name, image)| entry(name, image)).collect());
    archive.append_bytes(Layout::INDEX, &index.to_json())?;
    let docker: Vec<DockerImage> =
        images.iter().map(|(name, image)| docker_image(name, image)).collect();
    let docker = serde_json::to_vec(&docker).map_err(io::Error::from).map_err(ArchiveError::Io)?;
    archive.append_bytes("manifest.json", &docker)?;
    archive.append_empty(&Entry::new("blobs/", Kind::Directory, 0o755))?;
    Ok(())
}

fn entry(name: &Reference, image: &Image) -> Descriptor {
    let bytes = image.manifest.to_json();
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let mut entry = Descriptor::new(image.manifest.kind(), image.digest.clone(), size);
    let Platform { architecture, os, variant, .. } = image.config.platform();
    entry.platform = Some(Platform { architecture, os, variant, ..Platform::default() });
    entry.annotations.insert(annotation::REF_NAME.to_owned(), key(name));
    entry.annotations.insert(annotation::CONTAINERD_NAME.to_owned(), key(name));
    entry
}

fn docker_image(name: &Reference, image: &Image) -> DockerImage {
    DockerImage {
        config: blob_path(&image.manifest.config.digest),
        repo_tags: vec![key(name)],
        layers: image.manifest.layers.iter().map(|layer| blob_path(&layer.digest)).collect(),
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

fn write_blob(
    archive: &mut Writer<impl Write>,
    digest: &Digest,
    size: u64,
    blob: File,
) -> Result<(), SaveError> {
    let mut hashed = Hashed { inner: blob, hasher: Hasher::new(digest.algorithm()) };
    archive.append(&Entry::file(blob_path(digest), 0o644, size), &mut hashed)?;
    if hashed.hasher.finish() == *digest {
        Ok(())
    } else {
        Err(ImageError::Blob(BlobError::Rotten { digest: digest.clone() }).into())
    }
}

struct Hashed {
    inner: File,
    hasher: Hasher,
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or(buffer));
        Ok(count)
    }
}

/// Why images were not saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// A reference leads nowhere.
    #[error("there is no image `{0}`; `carrack images` lists those there are")]
    NotFound(Reference),
    /// An image cannot be read.
    #[error("saving an image")]
    Image(#[from] ImageError),
    /// The archive cannot be written.
    #[error("writing the image archive")]
    Archive(#[from] ArchiveError),
}

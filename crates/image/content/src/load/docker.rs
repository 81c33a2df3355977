//! What `docker save` wrote before it wrote layouts, and skopeo and podman still do:
//! `manifest.json` leads to configurations and layers.

use carrack_oci::{
    Compression, Descriptor, Digest, DocumentError, ImageConfig, LARGEST_DOCUMENT, Manifest,
    MediaType, Reference,
};
use carrack_store::BlobStore as _;
use serde::Deserialize;

use super::take_in::{Contents, Stored};
use super::{LoadError, Loaded};
use crate::images::{ImageError, Images};

const WHAT: &str = "Docker image list";

/// One image as `manifest.json` has it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

pub(super) fn interpret(
    images: &Images,
    contents: &Contents,
    list: &[u8],
) -> Result<Vec<Loaded>, LoadError> {
    let list: Vec<DockerImage> = serde_json::from_slice(list).map_err(|source| {
        let source = DocumentError::Malformed { what: WHAT, source };
        LoadError::Document { path: "manifest.json".to_owned(), source }
    })?;
    list.iter().map(|image| load(images, contents, image)).collect()
}

fn load(images: &Images, contents: &Contents, image: &DockerImage) -> Result<Loaded, LoadError> {
    let stored = contents.file(&image.config)?;
    let bytes = images.blobs.read(&stored.digest, LARGEST_DOCUMENT).map_err(ImageError::from)?;
    let document = |source| LoadError::Document { path: image.config.clone(), source };
    let config = ImageConfig::parse(&bytes).map_err(document)?;
    let paths = image.layers.as_deref().unwrap_or_default();
    let diff_ids = &config.rootfs.diff_ids;
    if paths.len() != diff_ids.len() {
        let why = format!("{} layers and {} diff ids", paths.len(), diff_ids.len());
        return Err(document(DocumentError::Contradiction { what: WHAT, why }));
    }
    let layers = paths
        .iter()
        .zip(diff_ids)
        .map(|(path, diff_id)| layer(path, contents.file(path)?, diff_id))
        .collect::<Result<_, _>>()?;
    let names = image.repo_tags.as_deref().unwrap_or_default();
    let references = names.iter().map(|name| reference(name)).collect::<Result<_, _>>()?;
    let config = Descriptor::new(MediaType::CONFIG, stored.digest.clone(), stored.size);
    let digest = images.put_manifest(&Manifest::new(config, layers))?.digest;
    Ok(Loaded { digest, references })
}

fn layer(path: &str, stored: &Stored, diff_id: &Digest) -> Result<Descriptor, LoadError> {
    let kind = match stored.compression {
        _ if stored.digest == *diff_id => MediaType::LAYER,
        Compression::None => {
            return Err(LoadError::Layer {
                path: path.escape_debug().to_string(),
                expected: diff_id.clone(),
                found: stored.digest.clone(),
            });
        }
        // Whether what is packed matches is seen when it is unpacked.
        packed => MediaType::of_layer(packed),
    };
    Ok(Descriptor::new(kind, stored.digest.clone(), stored.size))
}

fn reference(name: &str) -> Result<Reference, LoadError> {
    name.parse::<Reference>()
        .map(Reference::or_latest)
        .map_err(|source| LoadError::Name { name: name.escape_debug().to_string(), source })
}

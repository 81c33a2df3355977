//! An OCI image layout: `index.json` leads to manifests.

use carrack_oci::{Descriptor, Index, LARGEST_DOCUMENT, Layout, Platform, Reference, annotation};
use carrack_store::BlobStore as _;

use super::take_in::Contents;
use super::{LoadError, Loaded};
use crate::images::{ImageError, Images};

/// How many indexes may lead from one to the next.
const DEEPEST: u32 = 4;

pub(super) fn interpret(
    images: &Images,
    contents: &Contents,
    index: &[u8],
) -> Result<Vec<Loaded>, LoadError> {
    let marker = contents
        .document(Layout::FILE)
        .ok_or_else(|| LoadError::Missing { path: Layout::FILE.to_owned() })?;
    Layout::parse(marker)
        .map_err(|source| LoadError::Document { path: Layout::FILE.to_owned(), source })?;
    let index = Index::parse(index)
        .map_err(|source| LoadError::Document { path: Layout::INDEX.to_owned(), source })?;
    let mut loaded: Vec<Loaded> = Vec::new();
    for entry in &index.manifests {
        let Some(manifest) = manifest_of(images, entry, DEEPEST)? else { continue };
        let name = name_of(entry)?;
        match loaded.iter_mut().find(|image| image.digest == manifest.digest) {
            Some(image) => image.references.extend(name),
            None => loaded
                .push(Loaded { digest: manifest.digest, references: name.into_iter().collect() }),
        }
    }
    Ok(loaded)
}

/// The manifest `entry` leads to on this machine. `None` for one that is for another
/// machine, as most of a multi-platform index are.
fn manifest_of(
    images: &Images,
    entry: &Descriptor,
    depth: u32,
) -> Result<Option<Descriptor>, LoadError> {
    let machine = Platform::host();
    if entry.platform.as_ref().is_some_and(|platform| !platform.runs_on(&machine)) {
        return Ok(None);
    }
    if entry.media_type.is_manifest() {
        return Ok(Some(entry.clone()));
    }
    let path = format!("blobs/{}/{}", entry.digest.algorithm().name(), entry.digest.hex());
    if !entry.media_type.is_index() || depth == 0 {
        return Err(LoadError::Entry { path, why: "is neither a manifest nor an index" });
    }
    let bytes = images.blobs.read(&entry.digest, LARGEST_DOCUMENT).map_err(ImageError::from)?;
    let index = Index::parse(&bytes).map_err(|source| LoadError::Document { path, source })?;
    match index.select(&machine) {
        Some(inner) => manifest_of(images, inner, depth - 1),
        None => Ok(None),
    }
}

/// What the archive calls an entry. A bare tag, as some programs write, says
/// nothing about the name.
fn name_of(entry: &Descriptor) -> Result<Option<Reference>, LoadError> {
    let full = entry.annotations.get(annotation::CONTAINERD_NAME);
    let short = entry.annotations.get(annotation::REF_NAME);
    let name = full.or_else(|| short.filter(|name| name.contains(['/', ':'])));
    name.map(|name| {
        name.parse::<Reference>()
            .map(Reference::without_digest)
            .map(Reference::or_latest)
            .map_err(|source| LoadError::Name { name: name.escape_debug().to_string(), source })
    })
    .transpose()
}

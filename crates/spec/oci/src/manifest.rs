//! One image: its configuration and its layers.

use serde::{Deserialize, Serialize};

use crate::descriptor::Descriptor;
use crate::document::{self, Annotations, DocumentError, Extra, null_is_default};
use crate::media_type::MediaType;

const WHAT: &str = "image manifest";

/// An image manifest, OCI's or Docker's version 2, schema 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u64,
    /// What it says it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// What the artifact is, when this is not an image to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<MediaType>,
    /// The image configuration.
    pub config: Descriptor,
    /// The layers, the lowest first.
    pub layers: Vec<Descriptor>,
    /// The manifest this one is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Notes.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Annotations::is_empty"
    )]
    pub annotations: Annotations,
    /// Fields this version does not know, kept as they are.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Manifest {
    /// The manifest of an OCI image.
    #[must_use]
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(MediaType::MANIFEST),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: Annotations::new(),
            extra: Extra::new(),
        }
    }

    /// Reads a manifest.
    ///
    /// # Errors
    ///
    /// When it is malformed, too large, says it is something else, or could be
    /// read as an index too (CVE-2021-41190).
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let manifest: Self = document::parse(WHAT, bytes)?;
        document::check_kind(
            WHAT,
            manifest.schema_version,
            manifest.media_type.as_ref(),
            MediaType::is_manifest,
            &manifest.extra,
            &["manifests", "fsLayers"],
        )?;
        Ok(manifest)
    }

    /// The manifest in canonical JSON: equal manifests, equal bytes.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        document::canonical(self)
    }

    /// The media type to use for it in a descriptor.
    #[must_use]
    pub fn kind(&self) -> MediaType {
        self.media_type.clone().unwrap_or(MediaType::MANIFEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn sample() -> Manifest {
        Manifest::new(
            Descriptor::of(MediaType::CONFIG, b"{}"),
            vec![Descriptor::of(MediaType::LAYER, b"layer")],
        )
    }

    #[track_caller]
    fn refused(json: &str) -> DocumentError {
        Manifest::parse(json.as_bytes()).expect_err(json)
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let json = sample().to_json();
        assert_eq!(Manifest::parse(&json).unwrap(), sample());
        assert_eq!(Manifest::parse(&json).unwrap().to_json(), json);
    }

    #[test]
    fn unknown_fields_survive() {
        let mut manifest = sample();
        manifest.extra.insert("x-later".into(), serde_json::json!({"b": 1, "a": [2]}));
        manifest.config.extra.insert("zz".into(), serde_json::json!(null));
        assert_eq!(Manifest::parse(&manifest.to_json()).unwrap(), manifest);
    }

    #[test]
    fn a_manifest_that_could_be_an_index_is_refused() {
        let mut manifest = sample();
        manifest.extra.insert("manifests".into(), serde_json::json!([]));
        let json = String::from_utf8(manifest.to_json()).unwrap();
        assert!(matches!(refused(&json), DocumentError::Ambiguous { .. }));
    }

    #[test]
    fn other_kinds_and_versions_are_refused() {
        let json = String::from_utf8(sample().to_json()).unwrap();
        let version = json.replace("\"schemaVersion\":2", "\"schemaVersion\":1");
        assert!(matches!(refused(&version), DocumentError::Schema { found: 1, .. }));
        let kind = json.replace("image.manifest.v1", "image.index.v1");
        assert!(matches!(refused(&kind), DocumentError::WrongKind { .. }));
        let digest = json.replace(Digest::of(b"layer").hex(), "../../../../etc/passwd");
        assert!(matches!(refused(&digest), DocumentError::Malformed { .. }));
        refused("{}");
        refused("[]");
        refused(&json.replace("\"size\":2", "\"size\":-2"));
    }

    #[test]
    fn a_document_beyond_four_mebibytes_is_refused_unread() {
        let huge = " ".repeat(5 * 1024 * 1024);
        assert!(matches!(refused(&huge), DocumentError::TooLarge { .. }));
    }
}

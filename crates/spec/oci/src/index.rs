//! Several images under one name, usually one per platform; and the top of an
//! image layout on disk.

use serde::{Deserialize, Serialize};

use crate::descriptor::Descriptor;
use crate::document::{self, Annotations, DocumentError, Extra, null_is_default};
use crate::media_type::MediaType;
use crate::platform::Platform;

const WHAT: &str = "image index";

/// An image index, OCI's or Docker's manifest list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u64,
    /// What it says it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// What the artifact is, when these are not images to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<MediaType>,
    /// The manifests, or further indexes.
    #[serde(deserialize_with = "null_is_default")]
    pub manifests: Vec<Descriptor>,
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

impl Index {
    /// An OCI index of `manifests`.
    #[must_use]
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(MediaType::INDEX),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: Annotations::new(),
            extra: Extra::new(),
        }
    }

    /// Reads an index.
    ///
    /// # Errors
    ///
    /// When it is malformed, too large, says it is something else, or could be
    /// read as an image manifest too (CVE-2021-41190).
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let index: Self = document::parse(WHAT, bytes)?;
        document::check_kind(
            WHAT,
            index.schema_version,
            index.media_type.as_ref(),
            MediaType::is_index,
            &index.extra,
            &["config", "layers", "fsLayers"],
        )?;
        Ok(index)
    }

    /// The index in canonical JSON: equal indexes, equal bytes.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        document::canonical(self)
    }

    /// The first manifest that runs on `machine`. One that names no platform fits
    /// when nothing else does.
    #[must_use]
    pub fn select(&self, machine: &Platform) -> Option<&Descriptor> {
        let fits = |entry: &&Descriptor| {
            entry.platform.as_ref().is_some_and(|platform| platform.runs_on(machine))
        };
        let unnamed = |entry: &&Descriptor| entry.platform.is_none();
        self.manifests.iter().find(fits).or_else(|| self.manifests.iter().find(unnamed))
    }
}

/// The `oci-layout` file: what makes a directory or an archive an image layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layout {
    /// The layout's version.
    pub image_layout_version: String,
}

impl Layout {
    /// The file's name.
    pub const FILE: &str = "oci-layout";
    /// The name of the index beside it.
    pub const INDEX: &str = "index.json";
    /// The only version there is.
    pub const VERSION: &str = "1.0.0";

    /// The layout this version writes.
    #[must_use]
    pub fn current() -> Self {
        Self { image_layout_version: Self::VERSION.to_owned() }
    }

    /// Reads an `oci-layout` file.
    ///
    /// # Errors
    ///
    /// When it is malformed or of another version.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        const WHAT: &str = "image layout marker";
        let layout: Self = document::parse(WHAT, bytes)?;
        if layout.image_layout_version == Self::VERSION {
            return Ok(layout);
        }
        Err(DocumentError::Contradiction {
            what: WHAT,
            why: format!("version `{}` is not {}", layout.image_layout_version, Self::VERSION),
        })
    }

    /// The file's content.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        document::canonical(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(content: &[u8], platform: Option<&str>) -> Descriptor {
        Descriptor {
            platform: platform.map(|text| text.parse().unwrap()),
            ..Descriptor::of(MediaType::MANIFEST, content)
        }
    }

    #[test]
    fn the_entry_for_the_machine_is_selected() {
        let index = Index::new(vec![
            entry(b"none", None),
            entry(b"arm", Some("linux/arm64")),
            entry(b"amd", Some("linux/amd64")),
        ]);
        let select = |machine: &str| index.select(&machine.parse().unwrap()).unwrap().clone();
        assert_eq!(select("linux/amd64"), index.manifests[2]);
        assert_eq!(select("linux/arm64/v8"), index.manifests[1]);
        assert_eq!(select("linux/riscv64"), index.manifests[0]);
    }

    #[test]
    fn an_index_is_read_as_it_was_written() {
        let index = Index::new(vec![entry(b"a", Some("linux/arm64/v8"))]);
        assert_eq!(Index::parse(&index.to_json()).unwrap(), index);
    }

    #[test]
    fn an_index_that_could_be_a_manifest_is_refused() {
        let json = br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#;
        assert!(matches!(
            Index::parse(json),
            Err(DocumentError::Ambiguous { field: "layers", .. })
        ));
    }

    #[test]
    fn only_the_one_layout_version_is_understood() {
        assert_eq!(Layout::parse(&Layout::current().to_json()).unwrap(), Layout::current());
        assert!(Layout::parse(br#"{"imageLayoutVersion":"2.0.0"}"#).is_err());
    }
}

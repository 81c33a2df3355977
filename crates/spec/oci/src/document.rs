//! What the JSON documents of the image specification have in common.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use crate::media_type::MediaType;

/// Fields a document has and this version does not know.
pub type Extra = BTreeMap<String, serde_json::Value>;

/// Free-form notes on a descriptor, manifest or index.
pub type Annotations = BTreeMap<String, String>;

/// The largest manifest, index or configuration anyone may hand us.
///
/// Registries refuse manifests beyond 4 MiB; configurations follow the same bound.
pub const LARGEST_DOCUMENT: u64 = 4 * 1024 * 1024;

/// Well-known annotation keys.
pub mod annotation {
    /// In an image layout's index: the tag, or the name, of the entry.
    pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
    /// In an image layout's index: the full name, as containerd and Docker write it.
    pub const CONTAINERD_NAME: &str = "io.containerd.image.name";
    /// When the image was made.
    pub const CREATED: &str = "org.opencontainers.image.created";
    /// The digest of the image this one was built on.
    pub const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";
    /// The name of the image this one was built on.
    pub const BASE_NAME: &str = "org.opencontainers.image.base.name";
}

/// Go writes an empty slice or map as `null`; so does everything made with it.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Writes `document` so that equal documents become equal bytes: keys sorted, no
/// space between them.
pub(crate) fn canonical(document: &impl Serialize) -> Vec<u8> {
    let mut value = serde_json::to_value(document)
        .expect("every map here has string keys and no field's serialisation fails");
    value.sort_all_objects();
    value.to_string().into_bytes()
}

pub(crate) fn parse<T: DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, DocumentError> {
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if size > LARGEST_DOCUMENT {
        return Err(DocumentError::TooLarge { what, size });
    }
    serde_json::from_slice(bytes).map_err(|source| DocumentError::Malformed { what, source })
}

/// Why some bytes are not the document they should be.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// More bytes than any honest document has.
    #[error("{what} has {size} bytes where at most {LARGEST_DOCUMENT} are allowed")]
    TooLarge {
        /// Which document.
        what: &'static str,
        /// Its size.
        size: u64,
    },
    /// Not JSON, or a field is missing or of the wrong kind.
    #[error("{what} is malformed")]
    Malformed {
        /// Which document.
        what: &'static str,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A schema version other than 2.
    #[error("{what} has schema version {found} where only 2 is understood")]
    Schema {
        /// Which document.
        what: &'static str,
        /// The version it states.
        found: u64,
    },
    /// It says it is something else.
    #[error("{what} says it is a `{found}`")]
    WrongKind {
        /// Which document.
        what: &'static str,
        /// The media type it states.
        found: MediaType,
    },
    /// It could be read as two different documents.
    #[error("{what} also has `{field}`, so it could be read as something else")]
    Ambiguous {
        /// Which document.
        what: &'static str,
        /// The field that belongs to the other kind.
        field: &'static str,
    },
    /// Two parts of it do not fit together.
    #[error("{what} contradicts itself: {why}")]
    Contradiction {
        /// Which document.
        what: &'static str,
        /// What does not fit.
        why: String,
    },
}

/// Refuses a document that states another version or kind, or carries a field by
/// which another reader would take it for another kind.
pub(crate) fn check_kind(
    what: &'static str,
    schema_version: u64,
    media_type: Option<&MediaType>,
    expected: fn(&MediaType) -> bool,
    extra: &Extra,
    foreign: &[&'static str],
) -> Result<(), DocumentError> {
    if schema_version != 2 {
        return Err(DocumentError::Schema { what, found: schema_version });
    }
    if let Some(found) = media_type.filter(|kind| !expected(kind)) {
        return Err(DocumentError::WrongKind { what, found: found.clone() });
    }
    match foreign.iter().find(|field| extra.contains_key(**field)) {
        Some(field) => Err(DocumentError::Ambiguous { what, field }),
        None => Ok(()),
    }
}

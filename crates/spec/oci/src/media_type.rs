//! What a descriptor says its content is.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The kind of some content, by its registered or well-known name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaType(Cow<'static, str>);

/// How a layer's tar archive is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// How many bytes [`Compression::sniff`] wants to see.
    pub const MAGIC: usize = 4;

    /// What a stream that starts with `start` is packed with, by its magic number.
    #[must_use]
    pub fn sniff(start: &[u8]) -> Self {
        if start.starts_with(&[0x1f, 0x8b]) {
            Self::Gzip
        } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Self::Zstd
        } else {
            Self::None
        }
    }
}

impl MediaType {
    /// An OCI image manifest.
    pub const MANIFEST: Self = Self::known("application/vnd.oci.image.manifest.v1+json");
    /// An OCI image index.
    pub const INDEX: Self = Self::known("application/vnd.oci.image.index.v1+json");
    /// An OCI image configuration.
    pub const CONFIG: Self = Self::known("application/vnd.oci.image.config.v1+json");
    /// A layer, not compressed.
    pub const LAYER: Self = Self::known("application/vnd.oci.image.layer.v1.tar");
    /// A layer, compressed with gzip.
    pub const LAYER_GZIP: Self = Self::known("application/vnd.oci.image.layer.v1.tar+gzip");
    /// A layer, compressed with zstd.
    pub const LAYER_ZSTD: Self = Self::known("application/vnd.oci.image.layer.v1.tar+zstd");
    /// The content `{}`, where an artifact has nothing to say.
    pub const EMPTY: Self = Self::known("application/vnd.oci.empty.v1+json");
    /// A Docker image manifest, version 2, schema 2.
    pub const DOCKER_MANIFEST: Self =
        Self::known("application/vnd.docker.distribution.manifest.v2+json");
    /// A Docker manifest list.
    pub const DOCKER_INDEX: Self =
        Self::known("application/vnd.docker.distribution.manifest.list.v2+json");
    /// A Docker image configuration.
    pub const DOCKER_CONFIG: Self = Self::known("application/vnd.docker.container.image.v1+json");
    /// A Docker layer, not compressed.
    pub const DOCKER_LAYER: Self = Self::known("application/vnd.docker.image.rootfs.diff.tar");
    /// A Docker layer, compressed with gzip.
    pub const DOCKER_LAYER_GZIP: Self =
        Self::known("application/vnd.docker.image.rootfs.diff.tar.gzip");
    /// A Docker layer, compressed with zstd.
    pub const DOCKER_LAYER_ZSTD: Self =
        Self::known("application/vnd.docker.image.rootfs.diff.tar.zstd");

    const fn known(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// A media type by name.
    ///
    /// # Errors
    ///
    /// When it is not `type/subtype` in the characters RFC 6838 allows.
    pub fn new(name: &str) -> Result<Self, MediaTypeError> {
        let part = |text: &str| {
            !text.is_empty()
                && text.len() <= 127
                && text.starts_with(|first: char| first.is_ascii_alphanumeric())
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
        };
        match name.split_once('/') {
            Some((kind, subtype)) if part(kind) && part(subtype) => {
                Ok(Self(Cow::Owned(name.to_owned())))
            }
            _ => Err(MediaTypeError(name.to_owned())),
        }
    }

    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is an image manifest, OCI's or Docker's.
    #[must_use]
    pub fn is_manifest(&self) -> bool {
        [Self::MANIFEST, Self::DOCKER_MANIFEST].contains(self)
    }

    /// Whether it is an index, OCI's or Docker's.
    #[must_use]
    pub fn is_index(&self) -> bool {
        [Self::INDEX, Self::DOCKER_INDEX].contains(self)
    }

    /// Whether it is an image configuration, OCI's or Docker's.
    #[must_use]
    pub fn is_config(&self) -> bool {
        [Self::CONFIG, Self::DOCKER_CONFIG].contains(self)
    }

    /// The OCI layer packed that way.
    #[must_use]
    pub fn of_layer(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::LAYER,
            Compression::Gzip => Self::LAYER_GZIP,
            Compression::Zstd => Self::LAYER_ZSTD,
        }
    }

    /// How the layer is packed, when this is a layer of a filesystem.
    #[must_use]
    pub fn layer(&self) -> Option<Compression> {
        let kinds = [
            (Self::LAYER, Compression::None),
            (Self::LAYER_GZIP, Compression::Gzip),
            (Self::LAYER_ZSTD, Compression::Zstd),
            (Self::DOCKER_LAYER, Compression::None),
            (Self::DOCKER_LAYER_GZIP, Compression::Gzip),
            (Self::DOCKER_LAYER_ZSTD, Compression::Zstd),
        ];
        kinds.iter().find(|(kind, _)| kind == self).map(|(_, compression)| *compression)
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Serialize for MediaType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for MediaType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::new(&name).map_err(serde::de::Error::custom)
    }
}

/// Some text is not a media type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("media type `{0}` is not of the form `type/subtype`")]
pub struct MediaTypeError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_say_how_they_are_packed() {
        assert_eq!(MediaType::LAYER.layer(), Some(Compression::None));
        assert_eq!(MediaType::DOCKER_LAYER_GZIP.layer(), Some(Compression::Gzip));
        assert_eq!(MediaType::CONFIG.layer(), None);
    }

    #[test]
    fn a_media_type_has_two_parts() {
        assert!(MediaType::new("application/vnd.example+json").is_ok());
        for text in ["", "application", "/json", "application/", "a/b/c", "a b/c", "a/b; c=d"] {
            assert!(MediaType::new(text).is_err(), "`{text}`");
        }
    }
}

//! What people call an image: `[registry/]path[:tag][@digest]`.
//!
//! A name means exactly what it says. Nothing is put in front of a short name and
//! no registry is assumed: `alpine` and `docker.io/library/alpine` are two names.
//! The only thing ever supplied is the tag, and only by [`Reference::or_latest`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Digest, DigestError};

/// The longest name the distribution specification allows.
const LONGEST_NAME: usize = 255;
/// The longest tag the distribution specification allows.
const LONGEST_TAG: usize = 128;
/// The tag meant when none is written.
const LATEST: &str = "latest";

/// An image's name, with a tag, a digest, both, or neither.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    name: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// A reference from its parts.
    ///
    /// # Errors
    ///
    /// When the name or the tag breaks the grammar.
    pub fn new(
        name: &str,
        tag: Option<&str>,
        digest: Option<Digest>,
    ) -> Result<Self, ReferenceError> {
        check_name(name)?;
        if let Some(tag) = tag {
            check_tag(tag)?;
        }
        Ok(Self { name: name.to_owned(), tag: tag.map(str::to_owned), digest })
    }

    /// The name with its registry, without tag and digest.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tag, if one is written.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one is written.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The registry in front of the path, if the name has one.
    #[must_use]
    pub fn registry(&self) -> Option<&str> {
        let (first, _) = self.name.split_once('/')?;
        is_registry(first).then_some(first)
    }

    /// The same name and digest under another tag.
    ///
    /// # Errors
    ///
    /// When the tag breaks the grammar.
    pub fn with_tag(self, tag: &str) -> Result<Self, ReferenceError> {
        check_tag(tag)?;
        Ok(Self { tag: Some(tag.to_owned()), ..self })
    }

    /// The same reference without its digest.
    #[must_use]
    pub fn without_digest(self) -> Self {
        Self { digest: None, ..self }
    }

    /// The same reference, tagged `latest` when it has neither tag nor digest.
    #[must_use]
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(LATEST.to_owned());
        }
        self
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(formatter, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(parse_digest(text, digest)?)),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        Self::new(name, tag, digest)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn parse_digest(reference: &str, digest: &str) -> Result<Digest, ReferenceError> {
    digest
        .parse()
        .map_err(|source| ReferenceError::Digest { reference: reference.to_owned(), source })
}

fn check_name(name: &str) -> Result<(), ReferenceError> {
    if name.len() > LONGEST_NAME {
        return Err(ReferenceError::NameTooLong { found: name.len() });
    }
    let path = match name.split_once('/') {
        Some((first, path)) if is_registry(first) => {
            if !registry_is_valid(first) {
                return Err(ReferenceError::Registry {
                    name: name.to_owned(),
                    registry: first.to_owned(),
                });
            }
            path
        }
        _ => name,
    };
    if path.split('/').all(component_is_valid) {
        Ok(())
    } else {
        Err(ReferenceError::Name(name.to_owned()))
    }
}

fn check_tag(tag: &str) -> Result<(), ReferenceError> {
    let starts_well = tag.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_');
    let reads_well =
        tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if starts_well && reads_well && tag.len() <= LONGEST_TAG {
        Ok(())
    } else {
        Err(ReferenceError::Tag(tag.to_owned()))
    }
}

/// Whether the part before the first slash names a registry: it does when no path
/// component could look like it, or when people mean one by custom.
fn is_registry(first: &str) -> bool {
    first.contains(['.', ':', '['])
        || first == "localhost"
        || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn registry_is_valid(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (registry, None),
    };
    port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
        && host_is_valid(host)
}

fn host_is_valid(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[') {
        return inner
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    }
    host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

/// Runs of lower-case letters and digits, joined by `.`, `_`, `__` or hyphens.
fn component_is_valid(component: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    is_word(*first)
        && is_word(*last)
        && bytes.split(|byte| is_word(*byte)).all(|joint| {
            matches!(joint, b"" | b"." | b"_" | b"__") || joint.iter().all(|byte| *byte == b'-')
        })
}

/// Why some text is not an image reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The name is longer than any registry takes.
    #[error("image name has {found} characters where at most {LONGEST_NAME} are allowed")]
    NameTooLong {
        /// How many there were.
        found: usize,
    },
    /// The name's path breaks the grammar.
    #[error(
        "image name `{0}` is not valid; use lower-case letters and digits, joined by `.`, `_`, `-` and `/`"
    )]
    Name(String),
    /// The registry in front of the path breaks the grammar.
    #[error("registry `{registry}` in image name `{name}` is not a host with an optional port")]
    Registry {
        /// The whole name.
        name: String,
        /// The part that should be a registry.
        registry: String,
    },
    /// The tag breaks the grammar.
    #[error(
        "image tag `{0}` is not valid; use up to {LONGEST_TAG} letters, digits, `_`, `.` and `-`, starting with a letter, digit or `_`"
    )]
    Tag(String),
    /// What follows the `@` is not a digest.
    #[error("image reference `{reference}` ends in something that is not a digest")]
    Digest {
        /// The whole reference.
        reference: String,
        /// What is wrong with the digest.
        source: DigestError,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, name: &str, tag: Option<&str>, registry: Option<&str>) {
        let reference: Reference = text.parse().expect("reference parses");
        assert_eq!(reference.name(), name, "name of {text}");
        assert_eq!(reference.tag(), tag, "tag of {text}");
        assert_eq!(reference.registry(), registry, "registry of {text}");
        assert_eq!(reference.to_string(), text, "written again");
    }

    #[track_caller]
    fn refused(text: &str) {
        assert!(text.parse::<Reference>().is_err(), "`{text}` should be refused");
    }

    #[test]
    fn short_names_stay_short() {
        check("alpine", "alpine", None, None);
        check("shop/api:1.2", "shop/api", Some("1.2"), None);
        check("a__b/c--d.e_f", "a__b/c--d.e_f", None, None);
    }

    #[test]
    fn a_port_is_not_a_tag() {
        check("localhost:5000/shop", "localhost:5000/shop", None, Some("localhost:5000"));
        check(
            "localhost:5000/shop:5000",
            "localhost:5000/shop",
            Some("5000"),
            Some("localhost:5000"),
        );
        check("shop:5000", "shop", Some("5000"), None);
        check("[::1]:5000/shop:a", "[::1]:5000/shop", Some("a"), Some("[::1]:5000"));
        check("[::1]/shop", "[::1]/shop", None, Some("[::1]"));
    }

    #[test]
    fn registries_may_have_capitals_and_paths_may_not() {
        check("Example.Org/shop", "Example.Org/shop", None, Some("Example.Org"));
        refused("Shop");
        refused("example.org/Shop");
    }

    #[test]
    fn a_digest_may_follow_a_tag() {
        let digest = Digest::of(b"x");
        let reference: Reference = format!("shop:1@{digest}").parse().unwrap();
        assert_eq!(reference.digest(), Some(&digest));
        assert_eq!(reference.without_digest().to_string(), "shop:1");
    }

    #[test]
    fn latest_is_supplied_only_when_nothing_else_decides() {
        let or_latest = |text: &str| text.parse::<Reference>().unwrap().or_latest().to_string();
        assert_eq!(or_latest("shop"), "shop:latest");
        assert_eq!(or_latest("shop:1"), "shop:1");
        let pinned = format!("shop@{}", Digest::of(b""));
        assert_eq!(or_latest(&pinned), pinned);
    }

    #[test]
    fn what_is_not_a_name_is_refused() {
        for text in [
            "",
            ":",
            "@",
            "/",
            "a/",
            "/a",
            "a//b",
            "a/../b",
            "..",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a b",
            "a:",
            "a:b:c",
            "a:-b",
            "a@sha256:00",
            "a@",
            "ex_ample.org:port/x",
            "-x.org/a",
            "[::z]/a",
            "a:b/c:d/e",
            "ä",
        ] {
            refused(text);
        }
        refused(&"a".repeat(256));
        refused(&format!("a:{}", "b".repeat(129)));
    }
}

//! Trust domains and SPIFFE IDs, as strict as the specification allows.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest SPIFFE ID that every implementation must accept, and the longest
/// this one does.
const MAXIMUM_ID_LENGTH: usize = 2048;
/// The longest trust domain name.
const MAXIMUM_TRUST_DOMAIN_LENGTH: usize = 255;
const SCHEME: &str = "spiffe://";

/// The name of a trust domain, such as `shop.test`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(String);

/// Why a text is not a trust domain name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustDomainError {
    /// Nothing was given.
    #[error("a trust domain name is empty")]
    Empty,
    /// The name is over 255 bytes.
    #[error("a trust domain name is longer than 255 bytes")]
    TooLong,
    /// A character other than those allowed.
    #[error(
        "trust domain `{name}` has the character {character:?}; only a-z, 0-9, `.`, `-` and `_` may stand there"
    )]
    Character {
        /// The refused name.
        name: String,
        /// The first character that may not stand there.
        character: char,
    },
}

impl TrustDomain {
    /// Reads a trust domain name.
    ///
    /// # Errors
    ///
    /// [`TrustDomainError`] when the name is empty, too long, or has a character
    /// outside `a-z`, `0-9`, `.`, `-` and `_`.
    pub fn new(name: impl Into<String>) -> Result<Self, TrustDomainError> {
        let name = name.into();
        if name.is_empty() {
            return Err(TrustDomainError::Empty);
        }
        if name.len() > MAXIMUM_TRUST_DOMAIN_LENGTH {
            return Err(TrustDomainError::TooLong);
        }
        match name.chars().find(|c| !is_trust_domain_character(*c)) {
            Some(character) => Err(TrustDomainError::Character { name, character }),
            None => Ok(Self(name)),
        }
    }

    /// The bare name, without a scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The SPIFFE ID of the trust domain itself, which its authority carries.
    pub fn id(&self) -> SpiffeId {
        SpiffeId { trust_domain: self.clone(), path: String::new() }
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = TrustDomainError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = TrustDomainError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text)
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> Self {
        domain.0
    }
}

/// A SPIFFE ID: a trust domain and a path within it.
///
/// Two IDs are equal exactly when their texts are; there is no normal form to
/// bring them to, because what would need one is refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    /// Empty, or `/` and segments parted by `/`.
    path: String,
}

/// Why a text is not a SPIFFE ID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpiffeIdError {
    /// The text is over 2048 bytes.
    #[error("a SPIFFE ID is longer than 2048 bytes")]
    TooLong,
    /// The text does not begin with the scheme.
    #[error("`{text}` does not begin with `spiffe://`")]
    Scheme {
        /// The refused text.
        text: String,
    },
    /// What stands in the trust domain's place is none.
    #[error("`{text}` has no valid trust domain")]
    TrustDomain {
        /// The refused text.
        text: String,
        /// What is wrong with the trust domain.
        source: TrustDomainError,
    },
    /// The path has an empty segment or ends with a slash.
    #[error("`{text}` has an empty path segment or ends with `/`")]
    EmptySegment {
        /// The refused text.
        text: String,
    },
    /// The path has a `.` or `..` segment.
    #[error("`{text}` has a path segment `.` or `..`")]
    DotSegment {
        /// The refused text.
        text: String,
    },
    /// A character that may not stand in a path.
    #[error(
        "`{text}` has the character {character:?} in its path; only letters, digits, `.`, `-` and `_` may stand in a segment"
    )]
    Character {
        /// The refused text.
        text: String,
        /// The first character that may not stand there.
        character: char,
    },
}

impl SpiffeId {
    /// Reads a SPIFFE ID.
    ///
    /// # Errors
    ///
    /// [`SpiffeIdError`] for anything the specification does not allow: another
    /// scheme, ports, user information, queries, percent encoding, empty or dot
    /// segments, a trailing slash.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        if text.len() > MAXIMUM_ID_LENGTH {
            return Err(SpiffeIdError::TooLong);
        }
        let Some(rest) = text.strip_prefix(SCHEME) else {
            return Err(SpiffeIdError::Scheme { text: text.to_owned() });
        };
        let (domain, path) = match rest.split_once('/') {
            Some((domain, path)) => (domain, Some(path)),
            None => (rest, None),
        };
        let trust_domain = TrustDomain::new(domain)
            .map_err(|source| SpiffeIdError::TrustDomain { text: text.to_owned(), source })?;
        let path = match path {
            Some(path) => checked_path(text, path)?,
            None => String::new(),
        };
        Ok(Self { trust_domain, path })
    }

    /// The ID of a workload: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
    ///
    /// # Errors
    ///
    /// [`SpiffeIdError`] when the namespace or the service account is not one
    /// path segment.
    pub fn workload(
        trust_domain: &TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, SpiffeIdError> {
        for segment in [namespace, service_account] {
            if segment.contains('/') {
                return Err(SpiffeIdError::Character { text: segment.to_owned(), character: '/' });
            }
        }
        Self::parse(&format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}"))
    }

    /// The trust domain that vouches for this ID.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The path with its leading slash, or nothing for the ID of a trust domain.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The namespace, when the path is `/ns/<namespace>/sa/<service account>`.
    pub fn namespace(&self) -> Option<&str> {
        self.workload_parts().map(|(namespace, _)| namespace)
    }

    /// The service account, when the path is `/ns/<namespace>/sa/<service account>`.
    pub fn service_account(&self) -> Option<&str> {
        self.workload_parts().map(|(_, account)| account)
    }

    /// The ID without its scheme, as Istio writes principals:
    /// `<trust domain>/ns/<namespace>/sa/<service account>`.
    pub fn principal(&self) -> String {
        format!("{}{}", self.trust_domain, self.path)
    }

    fn workload_parts(&self) -> Option<(&str, &str)> {
        let mut segments = self.path.split('/');
        let shape = (
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
        );
        match shape {
            (Some(""), Some("ns"), Some(namespace), Some("sa"), Some(account), None) => {
                Some((namespace, account))
            }
            _ => None,
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{SCHEME}{}{}", self.trust_domain, self.path)
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = SpiffeIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> Self {
        id.to_string()
    }
}

/// Checks what follows the first slash, and gives it back with that slash.
fn checked_path(text: &str, path: &str) -> Result<String, SpiffeIdError> {
    for segment in path.split('/') {
        if segment.is_empty() {
            return Err(SpiffeIdError::EmptySegment { text: text.to_owned() });
        }
        if segment == "." || segment == ".." {
            return Err(SpiffeIdError::DotSegment { text: text.to_owned() });
        }
        if let Some(character) = segment.chars().find(|c| !is_path_character(*c)) {
            return Err(SpiffeIdError::Character { text: text.to_owned(), character });
        }
    }
    Ok(format!("/{path}"))
}

fn is_trust_domain_character(character: char) -> bool {
    matches!(character, 'a'..='z' | '0'..='9' | '.' | '-' | '_')
}

fn is_path_character(character: char) -> bool {
    matches!(character, 'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn refused(text: &str) -> SpiffeIdError {
        SpiffeId::parse(text).expect_err(text)
    }

    #[test]
    fn a_workload_id_gives_back_its_parts() {
        let domain = TrustDomain::new("shop.test").unwrap();
        let id = SpiffeId::workload(&domain, "shop", "api").unwrap();
        assert_eq!(id.to_string(), "spiffe://shop.test/ns/shop/sa/api");
        assert_eq!(id.namespace(), Some("shop"));
        assert_eq!(id.service_account(), Some("api"));
        assert_eq!(id.principal(), "shop.test/ns/shop/sa/api");
        assert_eq!(id.trust_domain(), &domain);
    }

    #[test]
    fn an_id_of_another_shape_has_no_namespace() {
        for text in
            ["spiffe://a", "spiffe://a/ns/x", "spiffe://a/ns/x/sa/y/z", "spiffe://a/x/y/z/w"]
        {
            assert_eq!(SpiffeId::parse(text).unwrap().namespace(), None, "{text}");
        }
    }

    #[test]
    fn a_slash_cannot_be_smuggled_into_a_workload_id() {
        let domain = TrustDomain::new("a").unwrap();
        assert!(SpiffeId::workload(&domain, "x/sa/admin", "y").is_err());
        assert!(SpiffeId::workload(&domain, "x", "").is_err());
        assert!(SpiffeId::workload(&domain, "..", "y").is_err());
    }

    #[test]
    fn what_the_specification_does_not_allow_is_refused() {
        use SpiffeIdError as E;
        assert!(matches!(refused("SPIFFE://a/b"), E::Scheme { .. }));
        assert!(matches!(refused("https://a/b"), E::Scheme { .. }));
        assert!(matches!(refused("spiffe:///b"), E::TrustDomain { .. }));
        assert!(matches!(refused("spiffe://A/b"), E::TrustDomain { .. }));
        assert!(matches!(refused("spiffe://a:80/b"), E::TrustDomain { .. }));
        assert!(matches!(refused("spiffe://u@a/b"), E::TrustDomain { .. }));
        assert!(matches!(refused("spiffe://a/"), E::EmptySegment { .. }));
        assert!(matches!(refused("spiffe://a/b/"), E::EmptySegment { .. }));
        assert!(matches!(refused("spiffe://a//b"), E::EmptySegment { .. }));
        assert!(matches!(refused("spiffe://a/./b"), E::DotSegment { .. }));
        assert!(matches!(refused("spiffe://a/../b"), E::DotSegment { .. }));
        assert!(matches!(refused("spiffe://a/b%41"), E::Character { character: '%', .. }));
        assert!(matches!(refused("spiffe://a/b?c"), E::Character { character: '?', .. }));
        assert!(matches!(refused("spiffe://a/b#c"), E::Character { character: '#', .. }));
        assert!(matches!(refused("spiffe://a/é"), E::Character { character: 'é', .. }));
        assert!(matches!(refused(&format!("spiffe://a/{}", "b".repeat(2048))), E::TooLong));
        assert_eq!(TrustDomain::new("a".repeat(256)), Err(TrustDomainError::TooLong));
    }

    proptest! {
        #[test]
        fn what_parses_is_written_back_as_it_was(text in "spiffe://[a-z0-9._-]{1,20}(/[a-zA-Z0-9._-]{1,8}){0,5}") {
            if let Ok(id) = SpiffeId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,80}") {
            SpiffeId::parse(&text).ok();
            SpiffeId::parse(&format!("spiffe://{text}")).ok();
        }
    }
}

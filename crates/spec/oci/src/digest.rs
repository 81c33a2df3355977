//! What content is called: its hash.
//!
//! A [`Digest`] that exists is well formed: a known algorithm and exactly as many
//! lower-case hexadecimal digits as it yields. Its hex part is therefore safe to
//! use as a file name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// A hash function content may be named by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, which everyone must understand.
    Sha256,
    /// SHA-512, which the specification also registers.
    Sha512,
}

impl Algorithm {
    /// Every algorithm a digest may name.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// The algorithm's registered name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// How many hexadecimal digits it yields.
    #[must_use]
    pub const fn hex_length(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }

    /// The algorithm of that name, if it is one we know.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// The name of some content: an algorithm and the hash it yields.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

impl Digest {
    /// The SHA-256 digest of `bytes`.
    #[must_use]
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes.as_ref());
        hasher.finish()
    }

    /// A digest from its two parts.
    ///
    /// # Errors
    ///
    /// When `hex` is not exactly what `algorithm` yields, in lower case.
    pub fn new(algorithm: Algorithm, hex: &str) -> Result<Self, DigestError> {
        let wanted = algorithm.hex_length();
        if hex.len() != wanted {
            return Err(DigestError::Length {
                algorithm: algorithm.name(),
                wanted,
                found: hex.len(),
            });
        }
        if !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(DigestError::NotHex(hex.to_owned()));
        }
        Ok(Self { algorithm, hex: hex.to_owned() })
    }

    /// Which hash function made it.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hash alone, in lower-case hexadecimal.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// The first twelve digits, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        self.hex.get(..12).unwrap_or(&self.hex)
    }

    /// Whether `bytes` hash to this digest.
    #[must_use]
    pub fn matches(&self, bytes: &[u8]) -> bool {
        let mut hasher = Hasher::new(self.algorithm);
        hasher.update(bytes);
        hasher.finish() == *self
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (name, hex) =
            text.split_once(':').ok_or_else(|| DigestError::NoAlgorithm(text.to_owned()))?;
        let algorithm =
            Algorithm::named(name).ok_or_else(|| DigestError::UnknownAlgorithm(name.to_owned()))?;
        Self::new(algorithm, hex)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Computes a digest from bytes that arrive piece by piece.
#[derive(Clone, Debug)]
pub struct Hasher(State);

#[derive(Clone, Debug)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new(Algorithm::Sha256)
    }
}

impl Hasher {
    /// A hasher that has seen nothing.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
        })
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(hash) => hash.update(bytes),
            State::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The digest of everything taken in.
    #[must_use]
    pub fn finish(self) -> Digest {
        let (algorithm, hex) = match self.0 {
            State::Sha256(hash) => (Algorithm::Sha256, hex::encode(hash.finalize())),
            State::Sha512(hash) => (Algorithm::Sha512, hex::encode(hash.finalize())),
        };
        Digest { algorithm, hex }
    }
}

/// Why some text is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no `algorithm:` in front.
    #[error("digest `{0}` names no algorithm; write it as `sha256:<64 hexadecimal digits>`")]
    NoAlgorithm(String),
    /// The algorithm is not one we know.
    #[error("digest algorithm `{0}` is not known; use sha256 or sha512")]
    UnknownAlgorithm(String),
    /// Too few or too many digits.
    #[error("{algorithm} digest has {found} digits where {wanted} are needed")]
    Length {
        /// The algorithm named.
        algorithm: &'static str,
        /// How many digits it yields.
        wanted: usize,
        /// How many there were.
        found: usize,
    },
    /// Something other than lower-case hexadecimal.
    #[error("digest `{0}` is not lower-case hexadecimal")]
    NotHex(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[track_caller]
    fn refused(text: &str) {
        assert!(text.parse::<Digest>().is_err(), "`{text}` should be refused");
    }

    #[test]
    fn the_digest_of_nothing_is_the_well_known_one() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), Digest::of(b""));
    }

    #[test]
    fn pieces_hash_like_the_whole() {
        for algorithm in Algorithm::ALL {
            let mut pieces = Hasher::new(algorithm);
            pieces.update(b"car");
            pieces.update(b"rack");
            assert!(pieces.finish().matches(b"carrack"));
        }
    }

    #[test]
    fn what_could_escape_a_directory_is_not_a_digest() {
        refused("");
        refused("sha256:");
        refused("sha256:../../../../etc/passwd");
        refused("sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709");
        refused(&EMPTY.to_uppercase());
        refused(&EMPTY.replace("e3b0", "E3B0"));
        refused(&format!("{EMPTY}0"));
        refused(&format!("{EMPTY}\n"));
    }

    #[test]
    fn a_digest_is_a_string_in_json() {
        let json = serde_json::to_string(&Digest::of(b"")).unwrap();
        assert_eq!(json, format!("\"{EMPTY}\""));
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), Digest::of(b""));
    }
}

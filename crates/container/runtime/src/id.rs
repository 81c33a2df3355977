use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The name of a container: a single, harmless path component.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

/// The longest id taken; a file name can have 255 bytes.
const MAX_LENGTH: usize = 240;

/// Why a text is not a container id.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "container id {id:?} is not allowed; use 1 to 240 letters, digits, '_', '+', '-' and '.', \
     and more than dots"
)]
pub struct InvalidId {
    /// The text.
    pub id: String,
}

impl ContainerId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
        let valid = !text.is_empty()
            && text.len() <= MAX_LENGTH
            && text.bytes().all(allowed)
            && text.bytes().any(|byte| byte != b'.');
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidId { id: text.to_owned() }) }
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_harmless_component() {
        for good in ["a", "shop-web-1", "A_b+c.d", "0123456789abcdef"] {
            assert!(good.parse::<ContainerId>().is_ok(), "for {good:?}");
        }
        for bad in ["", ".", "..", "a/b", "../x", "a b", "a\0b", "ä", &"x".repeat(241)] {
            assert!(bad.parse::<ContainerId>().is_err(), "for {bad:?}");
        }
    }
}

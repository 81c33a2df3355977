//! What machine an image is for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::document::{Extra, null_is_default};

/// An operating system on an architecture, in Go's names for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// The processor, such as `amd64`.
    pub architecture: String,
    /// The operating system, such as `linux`.
    pub os: String,
    /// The operating system's version, where it matters.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// What of the operating system is needed.
    #[serde(
        rename = "os.features",
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// The processor's variant, such as `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Fields this version does not know, kept as they are.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Platform {
    /// Linux on the processor this program was compiled for.
    #[must_use]
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8")),
            "x86" => ("386", None),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Self {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant: variant.map(str::to_owned),
            ..Self::default()
        }
    }

    /// Whether an image for this platform runs on `machine`.
    ///
    /// `arm64` and `arm64/v8` are the same; a variant left out fits any.
    #[must_use]
    pub fn runs_on(&self, machine: &Self) -> bool {
        let variants_fit = match (&self.variant, &machine.variant) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => true,
        };
        self.os == machine.os && self.architecture == machine.architecture && variants_fit
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(formatter, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
        };
        let (os, architecture, variant) = match parts.as_slice() {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some((*variant).to_owned())),
            _ => return Err(PlatformError(text.to_owned())),
        };
        if !parts.iter().all(word) {
            return Err(PlatformError(text.to_owned()));
        }
        Ok(Self {
            architecture: (*architecture).to_owned(),
            os: (*os).to_owned(),
            variant,
            ..Self::default()
        })
    }
}

/// Some text is not a platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("platform `{0}` is not of the form `os/architecture` or `os/architecture/variant`")]
pub struct PlatformError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_written_as_it_is_read() {
        for text in ["linux/amd64", "linux/arm64/v8", "windows/amd64"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        for text in ["", "linux", "linux/", "linux/a/b/c", "li nux/amd64"] {
            assert!(text.parse::<Platform>().is_err(), "`{text}`");
        }
    }

    #[test]
    fn a_variant_left_out_fits_any() {
        let plain: Platform = "linux/arm64".parse().unwrap();
        let eight: Platform = "linux/arm64/v8".parse().unwrap();
        let nine: Platform = "linux/arm64/v9".parse().unwrap();
        assert!(plain.runs_on(&eight) && eight.runs_on(&plain));
        assert!(!eight.runs_on(&nine));
        assert!(!plain.runs_on(&"linux/amd64".parse().unwrap()));
    }
}

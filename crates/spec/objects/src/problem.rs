//! Where something was written, and what is wrong with it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A place in a text a person wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The file as the person named it.
    pub file: String,
    /// Line, counted from 1.
    pub line: u32,
    /// Column in characters, counted from 1.
    pub column: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One thing wrong with a text, and where.
///
/// Reads as one line: `compose.yaml:12:5: services.web.gpus is not supported yet`.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, thiserror::Error,
)]
#[error("{origin}: {message}")]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// Where it stands.
    pub origin: Origin,
    /// What is wrong, naming the field, and what to do about it where that is known.
    pub message: String,
}

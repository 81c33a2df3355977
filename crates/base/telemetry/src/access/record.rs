//! What is remembered of one request or connection.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Names one decision; what a person gives to `carrack why`.
///
/// Sixteen hexadecimal digits, drawn at random.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DecisionId(u64);

impl DecisionId {
    /// Draws a new one.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Reads an id as it is displayed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 16
            && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !digits {
            return None;
        }
        u64::from_str_radix(text, 16).ok().map(Self)
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for DecisionId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DecisionId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom("not sixteen lower-case hexadecimal digits"))
    }
}

/// Which end of the mesh wrote the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reporter {
    /// The proxy next to the caller, or the door a call came in by.
    Source,
    /// The proxy next to the one called. It is the one that authorizes.
    Destination,
}

/// What was spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.x.
    Http,
    /// HTTP/2.
    Http2,
    /// Bytes.
    Tcp,
}

/// How it ended. Few values, all known in advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The other end answered, or the connection ran to its end.
    Answered,
    /// A policy, or the absence of an identity, refused it.
    Refused,
    /// Nobody could be reached.
    Unreachable,
    /// It broke underway.
    Broken,
}

/// One end of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Peer {
    /// The namespace of its identity; empty when it has none.
    pub namespace: Arc<str>,
    /// The service; `unknown` or `external` when it is not in the mesh.
    pub service: Arc<str>,
    /// The one workload, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Arc<str>>,
    /// Its address, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

/// One request, or one connection that carried no requests, as one reporter saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Names this record and the decision in it.
    pub id: DecisionId,
    /// When it began.
    pub at: Timestamp,
    /// Who wrote it.
    pub reporter: Reporter,
    /// What was spoken.
    pub protocol: Protocol,
    /// Who called.
    pub source: Arc<Peer>,
    /// Who was called.
    pub destination: Arc<Peer>,
    /// The port that was called.
    pub port: u16,
    /// The HTTP method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The path, without its query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The HTTP status that was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How it ended.
    pub outcome: Outcome,
    /// What went wrong, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// From its first byte to its last.
    pub duration_us: u64,
    /// Bytes from the caller.
    pub bytes_in: u64,
    /// Bytes to the caller.
    pub bytes_out: u64,
    /// The W3C trace it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// The verdict of the policies, where this reporter asked them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Arc<Decision>>,
    /// The destination's record of the same refusal, when the source learned of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_by: Option<DecisionId>,
}

/// Whether it may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It may.
    Allowed,
    /// It may not.
    Denied,
}

/// What the policy that decided does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PolicyAction {
    /// Lets pass.
    Allow,
    /// Refuses.
    Deny,
}

/// A place in a file a person wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The file, as the person named it.
    pub file: String,
    /// Line, from one.
    pub line: u32,
    /// Column, from one.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One word of a policy, held against what the request said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The policy, as `namespace/name`.
    pub policy: String,
    /// The field, such as `rules[0].to[0].methods`.
    pub field: String,
    /// What the policy asks for; several words are joined by ` or `.
    pub pattern: String,
    /// What the request said; empty where it said nothing.
    pub value: String,
    /// Whether the one is in the other.
    pub matched: bool,
    /// Where the policy asks for it.
    pub place: Place,
}

/// The policies' verdict on one request, and what led to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Whether it may pass.
    pub verdict: Verdict,
    /// Why, in a sentence.
    pub summary: String,
    /// The policy that decided, as `namespace/name`; absent when none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// What that policy does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<PolicyAction>,
    /// Where that policy, or the rule of it that matched, was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// The words that did match, or that did not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
}

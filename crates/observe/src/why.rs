//! Why a request was let through or refused.

use carrack_telemetry::access::{DecisionId, ReadError, Reader, Record};
use serde::{Deserialize, Serialize};

/// A record, and the one in which its verdict stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// What was asked about.
    pub record: Record,
    /// The record of the end that decided, where that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<Record>,
}

impl Explanation {
    /// The record in which the verdict stands.
    pub fn deciding(&self) -> &Record {
        self.decided_by.as_ref().unwrap_or(&self.record)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WhyError {
    /// This is no id.
    #[error(
        "`{text}` is no id; one is sixteen digits and letters a to f, as in the header x-carrack-decision"
    )]
    NotAnId {
        /// What was given.
        text: String,
    },
    /// The log could not be read.
    #[error("searching the access log for {id}")]
    Search {
        /// What was sought.
        id: DecisionId,
        /// Why it was not found.
        source: ReadError,
    },
}

pub(crate) fn explain(reader: &Reader, text: &str) -> Result<Option<Explanation>, WhyError> {
    let not_an_id = || WhyError::NotAnId { text: text.to_owned() };
    let id = DecisionId::parse(text.trim()).ok_or_else(not_an_id)?;
    let find = |id| reader.find(id).map_err(|source| WhyError::Search { id, source });
    let Some(record) = find(id)? else { return Ok(None) };
    let decided_by = match record.refused_by {
        Some(other) => find(other)?,
        None => None,
    };
    Ok(Some(Explanation { record, decided_by }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_leads_to_the_end_that_decided() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("access.log");
        let line = |id: u64, more: &str| {
            format!(
                "{{\"id\":\"{id:016x}\",\"at\":\"2026-01-02T03:04:05Z\",\"reporter\":\"source\",\"protocol\":\"http\",\"source\":{{\"namespace\":\"s\",\"service\":\"a\"}},\"destination\":{{\"namespace\":\"s\",\"service\":\"b\"}},\"port\":80,\"outcome\":\"refused\",\"duration_us\":5,\"bytes_in\":1,\"bytes_out\":2{more}}}\n"
            )
        };
        let twin = line(2, ",\"refused_by\":\"0000000000000001\"");
        std::fs::write(&path, line(1, "") + &twin).expect("writes");
        let reader = Reader::new(&path);
        let explanation = explain(&reader, "0000000000000002").expect("reads").expect("is there");
        assert_eq!(explanation.deciding().id.to_string(), "0000000000000001");
        assert!(explain(&reader, "0000000000000003").expect("reads").is_none());
        assert!(matches!(explain(&reader, "nonsense"), Err(WhyError::NotAnId { .. })));
    }
}

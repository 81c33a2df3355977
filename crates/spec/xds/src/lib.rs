//! The resources that the data plane is told, and the receipt it gives for them.
//!
//! ```text
//! control ──Resources (JSON, whole, by atomic rename)──▶ node proxy
//! control ◀──Receipt (JSON, over the admin socket)───── node proxy
//! ```
//!
//! The shapes follow Istio's `workload.Address` and Envoy's RBAC filter. Resources are always
//! handed over whole, so there is no order in which they can arrive that makes sense of half of
//! them. Unknown fields are refused: a proxy that ignores a field it was given may be enforcing
//! less than its writer thinks.
//!
//! Judging whether resources make sense together is not here; see `proxy/snapshot`. Writing them
//! is `mesh/translate`.

mod authorization;
mod receipt;
mod workload;

pub use authorization::{
    Action, Authorization, IpBlock, Match, Operation, Origin, PortMatch, Rule, Source,
};
pub use receipt::{Problem, Receipt, WorkloadReceipt};
pub use workload::{Ingress, Protocol, Service, Workload};

use serde::{Deserialize, Serialize};

/// Everything one node proxy is told, at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// A name for exactly this content; the proxy's receipt repeats it.
    pub version: String,
    /// The SPIFFE trust domain whose identities are accepted, such as `carrack.local`.
    pub trust_domain: String,
    /// Every workload this proxy may meet, on this node or another.
    #[serde(default)]
    pub workloads: Vec<Workload>,
    /// Every name that stands for several workloads.
    #[serde(default)]
    pub services: Vec<Service>,
    /// Who may call whom.
    #[serde(default)]
    pub authorizations: Vec<Authorization>,
    /// Doors from outside the mesh.
    #[serde(default)]
    pub ingress: Vec<Ingress>,
}

/// Why bytes are not resources.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The bytes are not JSON of this shape.
    #[error("reading resources: not the JSON this version understands")]
    Shape {
        /// Where and what.
        source: serde_json::Error,
    },
}

/// Why resources could not be written as JSON.
#[derive(Debug, thiserror::Error)]
#[error("writing resources {version} as JSON")]
pub struct WriteError {
    /// The version that was being written.
    pub version: String,
    /// What the writer met.
    pub source: serde_json::Error,
}

impl Resources {
    /// Reads resources as [`Resources::to_json`] writes them.
    ///
    /// # Errors
    ///
    /// [`ReadError::Shape`] when the bytes are not JSON, lack a field or carry an unknown one.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ReadError> {
        serde_json::from_slice(bytes).map_err(|source| ReadError::Shape { source })
    }

    /// Writes the resources as JSON: same resources, same bytes.
    ///
    /// # Errors
    ///
    /// [`WriteError`] when a path among them is not UTF-8.
    pub fn to_json(&self) -> Result<Vec<u8>, WriteError> {
        serde_json::to_vec_pretty(self)
            .map_err(|source| WriteError { version: self.version.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let resources = Resources {
            version: "v1".into(),
            trust_domain: "example.org".into(),
            workloads: vec![Workload {
                uid: "a".into(),
                name: "shop-web-1".into(),
                namespace: "shop".into(),
                service_account: "web".into(),
                address: [10, 89, 0, 2].into(),
                netns: Some("/run/netns/a".into()),
                ready: true,
                protocols: [(80, Protocol::Http)].into(),
            }],
            authorizations: vec![Authorization {
                name: "deny".into(),
                namespace: "shop".into(),
                action: Action::Deny,
                workloads: vec!["a".into()],
                rules: vec![Rule::default()],
                origin: Origin { file: "policy.yaml".into(), line: 1, column: 1 },
            }],
            ..Resources::default()
        };
        let bytes = resources.to_json().expect("writes");
        assert_eq!(Resources::from_json(&bytes).expect("reads"), resources);
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let bytes = br#"{"version":"1","trust_domain":"x","authorisations":[]}"#;
        let error = Resources::from_json(bytes).expect_err("refused");
        assert!(
            matches!(error, ReadError::Shape { source } if source.to_string().contains("authorisations"))
        );
    }

    #[test]
    fn a_protocol_is_written_in_lower_case() {
        assert_eq!(serde_json::to_string(&Protocol::Http2).expect("writes"), "\"http2\"");
    }
}

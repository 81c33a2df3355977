//! What the node proxy answers about the resources it was given.

use serde::{Deserialize, Serialize};

/// The node proxy's word on what it enforces; the answer to `GET /config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Counts the changes of this receipt since the proxy started, for `/config?after=`.
    #[serde(default)]
    pub revision: u64,
    /// The version in force. Empty before the first.
    pub version: String,
    /// The version refused since, if the newest one was. What is in force then stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Why the newest resources were refused, or what of them could not be carried out.
    #[serde(default)]
    pub problems: Vec<Problem>,
    /// The local workloads of the version in force.
    #[serde(default)]
    pub workloads: Vec<WorkloadReceipt>,
}

impl Receipt {
    /// Whether the workload's traffic is captured, as far as this receipt knows.
    #[must_use]
    pub fn captured(&self, uid: &str) -> bool {
        self.workloads.iter().any(|workload| workload.uid == uid && workload.captured)
    }
}

/// How one local workload stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadReceipt {
    /// The workload.
    pub uid: String,
    /// Whether its capture sockets are open and it holds a certificate: it may start.
    pub captured: bool,
}

/// One thing wrong with the resources, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The resource, such as `authorization shop/deny-writes`.
    pub resource: String,
    /// The field within it, such as `rules[0].from[1].principals[0]`.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

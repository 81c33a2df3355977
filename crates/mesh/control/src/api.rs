//! What is said over the control plane's socket.

use carrack_objects::Origin;
use carrack_objects::Problem;
use serde::{Deserialize, Serialize};

/// Policies for a project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// The project; the namespace of policies that name none.
    pub project: String,
    /// The files, each replacing what was applied under the same name.
    pub files: Vec<PolicyFile>,
    /// Whether policies of files that are not here go.
    #[serde(default)]
    pub replace: bool,
}

/// Policies of a project that go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteRequest {
    /// The project.
    pub project: String,
    /// The file whose policies go, under the name it was applied; all when absent.
    #[serde(default)]
    pub file: Option<String>,
}

/// A file of policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// Its name, as a person would look for it.
    pub file: String,
    /// What is in it.
    pub text: String,
}

/// What came of applying or deleting policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Applied {
    /// The version of the resources that holds them.
    pub version: String,
    /// Whether they judge the next request.
    pub enforcement: Enforcement,
    /// The project's policies now.
    pub policies: Vec<PolicyStatus>,
}

/// Whether the proxy does what it was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    /// The next request is judged by it.
    InForce,
    /// The proxy has not said so yet. It has been told and will be asked no more.
    NotYet {
        /// What is known of why.
        reason: String,
    },
}

/// A policy, and which workloads it judges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyStatus {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where it was written.
    pub origin: Origin,
    /// `ALLOW` or `DENY`.
    pub action: String,
    /// Names of the workloads it judges now.
    pub workloads: Vec<String>,
}

/// How the control plane stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// The version of the resources last written; empty before the first.
    pub version: String,
    /// What did not make it into them, and why.
    pub problems: Vec<String>,
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// What was attempted.
    pub message: String,
    /// Everything wrong with the policies, when that was it.
    #[serde(default)]
    pub problems: Vec<Problem>,
}

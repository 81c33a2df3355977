//! Who may call whom: `AuthorizationPolicy`, in Istio's schema.
//!
//! ```text
//! policies.yaml ──parse──▶ [AuthorizationPolicy]      each word with its place
//! ```
//!
//! A policy is a promise about access, so whatever of the schema is not acted on
//! is refused by name: a policy that is accepted is enforced to the letter.
//! Places are kept down to single words, for `carrack why` names them.
//!
//! Which workloads a policy selects, and judging a request, is not here: see
//! `mesh/translate` and `proxy/filters`.

mod read;

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::problem::Origin;
pub use read::parse;

/// One policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// Its name within its namespace.
    pub name: String,
    /// The namespace whose workloads it is about; the project unless it says otherwise.
    pub namespace: String,
    /// Labels a workload needs to be judged by it; empty selects the whole namespace.
    pub selector: BTreeMap<String, String>,
    /// What a match means.
    pub action: Action,
    /// It matches when any of these does; without rules it matches nothing.
    pub rules: Vec<Rule>,
    /// Where it was written.
    pub origin: Origin,
}

/// What a match means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The request passes; what no ALLOW policy of a workload matches is refused.
    Allow,
    /// The request is refused, whatever any ALLOW policy says.
    Deny,
}

/// Matches a request from one of `from` that asks for one of `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where it was written.
    pub origin: Origin,
    /// Any of these; empty is anyone.
    pub from: Vec<Source>,
    /// Any of these; empty is anything.
    pub to: Vec<Operation>,
}

/// Matches a caller to which every list that is not empty agrees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Where it was written.
    pub origin: Origin,
    /// Identities without `spiffe://`: `<trust domain>/ns/<namespace>/sa/<service>`.
    pub principals: Vec<Word>,
    /// Identities it is not.
    pub not_principals: Vec<Word>,
    /// Namespaces of the identity.
    pub namespaces: Vec<Word>,
    /// Namespaces it is not in.
    pub not_namespaces: Vec<Word>,
    /// Networks of the peer's address.
    pub ip_blocks: Vec<Block>,
    /// Networks it is not in.
    pub not_ip_blocks: Vec<Block>,
}

/// Matches a request to which every list that is not empty agrees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operation {
    /// Where it was written.
    pub origin: Origin,
    /// Hosts asked for.
    pub hosts: Vec<Word>,
    /// Hosts not asked for.
    pub not_hosts: Vec<Word>,
    /// Ports of the workload.
    pub ports: Vec<Port>,
    /// Ports it is not.
    pub not_ports: Vec<Port>,
    /// HTTP methods.
    pub methods: Vec<Word>,
    /// HTTP methods it is not.
    pub not_methods: Vec<Word>,
    /// Paths, without the query.
    pub paths: Vec<Word>,
    /// Paths it is not.
    pub not_paths: Vec<Word>,
}

/// A pattern: a word, `prefix*`, `*suffix`, or `*` for anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The pattern.
    pub pattern: String,
    /// Where it was written.
    pub origin: Origin,
}

/// A network, or a single address as a network of its full length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The network.
    pub block: IpNet,
    /// Where it was written.
    pub origin: Origin,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its number.
    pub port: u16,
    /// Where it was written.
    pub origin: Origin,
}

impl AuthorizationPolicy {
    /// Whether it is about a workload of `namespace` and `service` with `labels`.
    ///
    /// Every workload has the label `app` with its service's name, unless its own
    /// labels say something else.
    pub fn selects(
        &self,
        namespace: &str,
        service: &str,
        labels: &BTreeMap<String, String>,
    ) -> bool {
        let label = |name: &str| {
            let implied = (name == "app").then_some(service);
            labels.get(name).map(String::as_str).or(implied)
        };
        self.namespace == namespace
            && self.selector.iter().all(|(name, value)| label(name) == Some(value))
    }
}

#[cfg(test)]
mod tests;

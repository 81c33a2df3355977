//! Who may call whom, each word of it with the place in a person's file it came from.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A place in a file a person wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The file, as the person named it.
    pub file: String,
    /// Line, from one.
    pub line: u32,
    /// Column, from one.
    pub column: u32,
}

/// What a matching rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Action {
    /// Lets the request pass; once any such policy applies, what none matches is refused.
    Allow,
    /// Refuses the request, whatever any other policy says.
    Deny,
}

/// One policy, resolved to the workloads it applies to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authorization {
    /// Its name within its namespace.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// What a match means.
    pub action: Action,
    /// The uids of the workloads whose incoming traffic it judges.
    pub workloads: Vec<String>,
    /// Matches when any of these does. Without rules it matches nothing: an ALLOW then
    /// refuses everything, a DENY refuses nothing.
    pub rules: Vec<Rule>,
    /// Where it was written.
    pub origin: Origin,
}

/// Matches a request that comes from one of `from` and asks for one of `to`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Where it was written.
    pub origin: Origin,
    /// Any of these sources; empty means anyone.
    #[serde(default)]
    pub from: Vec<Source>,
    /// Any of these operations; empty means anything.
    #[serde(default)]
    pub to: Vec<Operation>,
}

/// Matches a caller to which every list that is not empty says yes.
///
/// A list says yes when one of its entries matches; a `not_` list when none does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Where it was written.
    #[serde(default)]
    pub origin: Origin,
    /// Identities, as `<trust domain>/ns/<namespace>/sa/<service account>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub principals: Vec<Match>,
    /// Identities it is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_principals: Vec<Match>,
    /// Namespaces of the identity.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<Match>,
    /// Namespaces it is not in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_namespaces: Vec<Match>,
    /// Networks of the peer's address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_blocks: Vec<IpBlock>,
    /// Networks it is not in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_ip_blocks: Vec<IpBlock>,
}

/// Matches a request to which every list that is not empty says yes.
///
/// Methods, paths and hosts are words of HTTP: on a connection that carries something else they
/// cannot match. An ALLOW that names them then lets nothing pass; a DENY that names them refuses
/// by its other words alone, so that refusing errs on the side of refusing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Where it was written.
    #[serde(default)]
    pub origin: Origin,
    /// HTTP methods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<Match>,
    /// HTTP methods it is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_methods: Vec<Match>,
    /// Paths, without their query.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<Match>,
    /// Paths it is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_paths: Vec<Match>,
    /// Hosts asked for, compared without regard to case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<Match>,
    /// Hosts it is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_hosts: Vec<Match>,
    /// Destination ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortMatch>,
    /// Destination ports it is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_ports: Vec<PortMatch>,
}

/// A word with at most one `*`: exact, `prefix*`, `*suffix`, or `*` for anything present.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// The word.
    pub pattern: String,
    /// Where it was written.
    pub origin: Origin,
}

/// A network, by address and prefix length.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpBlock {
    /// The network; one address is a network of its full length.
    pub block: IpNet,
    /// Where it was written.
    pub origin: Origin,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortMatch {
    /// The port's number.
    pub port: u16,
    /// Where it was written.
    pub origin: Origin,
}

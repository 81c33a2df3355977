//! Who there is to talk to: workloads, the services they stand behind, and doors from outside.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One running copy of a program, with an address and an identity of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Names this workload and no other, ever; a container's id.
    pub uid: String,
    /// The name a person knows it by, such as `shop-web-1`.
    pub name: String,
    /// The namespace of its identity; a Compose project.
    pub namespace: String,
    /// The service account of its identity; a Compose service.
    pub service_account: String,
    /// Its address on the network.
    pub address: Ipv4Addr,
    /// Its network namespace, when it is on this node and its traffic is ours to capture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
    /// Whether services send it traffic.
    pub ready: bool,
    /// What is spoken on its ports; a port that is absent is detected.
    #[serde(default)]
    pub protocols: BTreeMap<u16, Protocol>,
}

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.x, and HTTP/2 where a client starts with its preface.
    Http,
    /// HTTP/2 without TLS, with prior knowledge.
    Http2,
    /// Bytes, in either direction first.
    Tcp,
}

/// A name and an address that stand for several workloads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name within its namespace.
    pub name: String,
    /// The namespace it belongs to.
    pub namespace: String,
    /// An address no interface has; connections to it are captured and sent to an endpoint.
    pub vip: Ipv4Addr,
    /// The uids of the workloads behind it.
    pub endpoints: Vec<String>,
    /// What is spoken on its ports; a port that is absent is detected.
    #[serde(default)]
    pub protocols: BTreeMap<u16, Protocol>,
}

/// A door from outside the mesh to a service within it: a published port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ingress {
    /// Where the node proxy listens, in the node's own network namespace.
    pub listen: SocketAddr,
    /// The namespace of the service, and of the identity the traffic enters with.
    pub namespace: String,
    /// The service that answers.
    pub service: String,
    /// The service's port.
    pub port: u16,
    /// What is spoken; absent means the service's own word for the port, or detection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
}

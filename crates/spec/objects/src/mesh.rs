//! What runs, as the engine tells it to the control plane.
//!
//! These are facts, not wishes: a workload is a container that exists, a service
//! is a name that answers. Names in the mesh come from them: the SPIFFE ID of a
//! workload is `spiffe://<trust domain>/ns/<project>/sa/<service>`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One container and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// The container's id; never used again once the container is gone.
    pub uid: String,
    /// The container's name, such as `shop-api-1`.
    pub name: String,
    /// The project it belongs to; the mesh's namespace.
    pub project: String,
    /// The service it is a replica of; the mesh's service account.
    pub service: String,
    /// Its address on the project's bridge.
    pub address: Ipv4Addr,
    /// Its network namespace, mounted on this host.
    pub netns: PathBuf,
    /// What policies select by. `app: <service>` is implied and need not be here.
    pub labels: BTreeMap<String, String>,
    /// Running, and healthy if it has a health check.
    pub ready: bool,
    /// Protocols declared for its ports; a port that is absent is detected.
    pub protocols: BTreeMap<u16, AppProtocol>,
    /// Host ports that lead to this container alone (`carrack run -p`).
    pub published: Vec<Published>,
}

/// One host port that leads into the mesh. TCP only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// The host address listened on; loopback unless a wider scope was asked for.
    pub host: IpAddr,
    /// The host port listened on; never 0, the engine has chosen by now.
    pub host_port: u16,
    /// The container's port it leads to.
    pub container_port: u16,
    /// The protocol spoken there, where declared.
    pub protocol: Option<AppProtocol>,
}

/// One name that answers with any of its ready replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The service's name in its project.
    pub name: String,
    /// The project it belongs to; the mesh's namespace.
    pub project: String,
    /// The address its name resolves to. Bound nowhere: the capture takes it.
    pub vip: Ipv4Addr,
    /// Protocols declared for its ports; a port that is absent is detected.
    pub protocols: BTreeMap<u16, AppProtocol>,
    /// Host ports that lead to this service.
    pub published: Vec<Published>,
}

/// What an application speaks on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AppProtocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/2 without TLS, gRPC among it.
    Http2,
    /// Bytes.
    Tcp,
}

impl AppProtocol {
    /// The word it is written as.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Tcp => "tcp",
        }
    }
}

impl fmt::Display for AppProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no application protocol this mesh knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an application protocol; known are http, http2, grpc and tcp")]
pub struct UnknownAppProtocol(pub String);

impl FromStr for AppProtocol {
    type Err = UnknownAppProtocol;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word.to_ascii_lowercase().as_str() {
            "http" | "http1" | "http/1.1" => Ok(Self::Http),
            "http2" | "h2c" | "grpc" | "kubernetes.io/h2c" => Ok(Self::Http2),
            "tcp" => Ok(Self::Tcp),
            _ => Err(UnknownAppProtocol(word.to_owned())),
        }
    }
}

//! The network of one `RUN`.
//!
//! Each has a bridge and a subnet of its own for as long as it runs, so that
//! builds reach the outside and not each other, nor the containers that run.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use carrack_network::{Attachment, Network, address};
use ipnet::Ipv4Net;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::StepError;

/// Where builds' subnets come from; the engine's networks come from another pool.
const POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 88, 0, 0), 16);

/// Room for the bridge and one container.
const PREFIX: u8 = 30;

/// What network the commands of a build have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunNetwork {
    /// One of their own, that reaches what this machine reaches.
    #[default]
    Default,
    /// None but loopback.
    None,
    /// This machine's own.
    Host,
}

/// A network that stands, and what has to be taken down with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Standing {
    bridge: String,
    host_interface: String,
    namespace: PathBuf,
}

impl Standing {
    /// What a network for the workspace `id` would be called.
    pub(super) fn named(id: &str, namespace: PathBuf) -> Self {
        // At most 15 bytes, and told apart for as long as both builds live.
        let digest = carrack_oci::Digest::of(id);
        let short = digest.hex().get(..10).unwrap_or_default();
        Self { bridge: format!("cb-{short}"), host_interface: format!("cv-{short}"), namespace }
    }

    pub(super) fn namespace(&self) -> &Path {
        &self.namespace
    }

    /// Makes it stand.
    pub(super) fn raise(&self, lock: &Path) -> Result<(), StepError> {
        // Whoever chooses a subnet holds the lock until the choice can be seen.
        let failed = StepError::workspace("locking", lock);
        let file = File::create(lock)
            .and_then(|file| {
                rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
                Ok(file)
            })
            .map_err(failed)?;
        let taken = carrack_network::routed().map_err(StepError::Network)?;
        let subnet = address::next_subnet(POOL, PREFIX, &taken).ok_or(StepError::NoSubnet)?;
        let gateway = address::gateway(subnet);
        let network = self.network(subnet, gateway);
        carrack_network::ensure(&network).map_err(StepError::Network)?;
        drop(file);
        carrack_network::create_namespace(&self.namespace).map_err(StepError::Network)?;
        let address = address::next(subnet, &std::collections::BTreeSet::new(), None)
            .ok_or(StepError::NoSubnet)?;
        let attachment = Attachment {
            namespace: &self.namespace,
            network: &network,
            address,
            interface: "eth0",
            host_interface: &self.host_interface,
            mac: carrack_network::hardware_address(address),
        };
        carrack_network::attach(&attachment).map_err(StepError::Network)
    }

    /// Takes it down, whatever of it stands.
    pub(super) fn lower(&self) -> Result<(), StepError> {
        let network = self.network(POOL, address::gateway(POOL));
        carrack_network::detach(&self.host_interface).map_err(StepError::Network)?;
        carrack_network::remove_namespace(&self.namespace).map_err(StepError::Network)?;
        carrack_network::remove(&network).map_err(StepError::Network)
    }

    fn network(&self, subnet: Ipv4Net, gateway: Ipv4Addr) -> Network {
        Network {
            name: "build".to_owned(),
            bridge: self.bridge.clone(),
            subnet,
            gateway,
            masquerade: true,
        }
    }
}

//! The compiled form of the resources: what a request asks of them, already answered.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use carrack_filters::authorize::Authorizer;
use carrack_spiffe::{SpiffeId, TrustDomain};
use carrack_telemetry::access::Peer;
use carrack_xds::Protocol;

/// Everything one proxy goes by, at one moment.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) version: String,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) local: Vec<Arc<Workload>>,
    pub(crate) ingress: Vec<Arc<Ingress>>,
    pub(crate) by_uid: HashMap<String, Arc<Workload>>,
    pub(crate) by_address: HashMap<Ipv4Addr, Arc<Workload>>,
    pub(crate) by_vip: HashMap<Ipv4Addr, Arc<Service>>,
}

/// One workload, with the policies that judge calls to it.
#[derive(Debug)]
pub struct Workload {
    /// Names it and no other.
    pub uid: String,
    /// Who it is.
    pub identity: SpiffeId,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its network namespace, when its traffic is ours to capture.
    pub netns: Option<PathBuf>,
    /// Whether services send it traffic.
    pub ready: bool,
    /// What is spoken on its ports; a port that is absent is detected.
    pub protocols: BTreeMap<u16, Protocol>,
    /// Judges calls to it.
    pub authorizer: Authorizer,
    /// How records name it.
    pub peer: Arc<Peer>,
}

/// A name and address that stand for several workloads.
#[derive(Debug)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The address that stands for it.
    pub vip: Ipv4Addr,
    /// The workloads behind it that are ready.
    pub endpoints: Vec<Arc<Workload>>,
    /// What is spoken on its ports; a port that is absent is detected.
    pub protocols: BTreeMap<u16, Protocol>,
    /// How records name it.
    pub peer: Arc<Peer>,
}

/// A door from outside the mesh.
#[derive(Debug)]
pub struct Ingress {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The identity calls enter with.
    pub identity: SpiffeId,
    /// Who answers.
    pub service: Arc<Service>,
    /// On which port.
    pub port: u16,
    /// What is spoken; absent means detection.
    pub protocol: Option<Protocol>,
}

/// What stands behind an address.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// Several workloads, of which one is picked.
    Service(&'a Arc<Service>),
    /// This one workload.
    Workload(&'a Arc<Workload>),
}

impl Target<'_> {
    /// What is declared to be spoken on a port.
    #[must_use]
    pub fn protocol(&self, port: u16) -> Option<Protocol> {
        match self {
            Self::Service(service) => service.protocols.get(&port).copied(),
            Self::Workload(workload) => workload.protocols.get(&port).copied(),
        }
    }

    /// The workloads to pick from.
    #[must_use]
    pub fn endpoints(&self) -> &[Arc<Workload>] {
        match self {
            Self::Service(service) => &service.endpoints,
            Self::Workload(workload) => std::slice::from_ref(*workload),
        }
    }

    /// How records name it.
    #[must_use]
    pub fn peer(&self) -> &Arc<Peer> {
        match self {
            Self::Service(service) => &service.peer,
            Self::Workload(workload) => &workload.peer,
        }
    }
}

impl Snapshot {
    /// What a proxy goes by before it is told anything: nobody, and no door.
    #[must_use]
    pub fn empty(trust_domain: TrustDomain) -> Self {
        Self {
            version: String::new(),
            trust_domain,
            local: Vec::new(),
            ingress: Vec::new(),
            by_uid: HashMap::new(),
            by_address: HashMap::new(),
            by_vip: HashMap::new(),
        }
    }

    /// The version of the resources this was compiled from.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whose identities are accepted.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The workloads whose traffic is ours to capture.
    #[must_use]
    pub fn local(&self) -> &[Arc<Workload>] {
        &self.local
    }

    /// The doors from outside.
    #[must_use]
    pub fn ingress(&self) -> &[Arc<Ingress>] {
        &self.ingress
    }

    /// What stands behind an address, if it is in the mesh.
    #[must_use]
    pub fn target(&self, address: Ipv4Addr) -> Option<Target<'_>> {
        if let Some(service) = self.by_vip.get(&address) {
            return Some(Target::Service(service));
        }
        self.by_address.get(&address).map(Target::Workload)
    }

    /// The workload that has an address.
    #[must_use]
    pub fn at(&self, address: Ipv4Addr) -> Option<&Arc<Workload>> {
        self.by_address.get(&address)
    }

    /// The workload of this uid.
    #[must_use]
    pub fn workload(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.by_uid.get(uid)
    }
}

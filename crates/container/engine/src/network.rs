//! A network for each project: its bridge, its addresses, its names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use carrack_network::dns::{Sockets, Zone, serve};
use carrack_network::{Attachment, Capture, Network, NetworkError, address};
use carrack_oci::Digest;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::EngineConfig;
use crate::container::Container;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::record::{NetworkRecord, ServiceRecord};

const NAME_SERVER_PORT: u16 = 53;
/// An engine that is just being closed may hold the name server's sockets for a moment.
const BIND_ATTEMPTS: u32 = 20;
const BIND_PAUSE: Duration = Duration::from_millis(100);

/// The networks of this engine.
#[derive(Debug)]
pub(crate) struct Networks {
    by_project: Mutex<BTreeMap<String, Arc<ProjectNetwork>>>,
    name_servers: Vec<SocketAddr>,
    tasks: TaskTracker,
    /// Addresses of containers that are gone while their interfaces are not yet.
    leaving: Arc<Mutex<BTreeSet<Ipv4Addr>>>,
    /// Held while an address or subnet is chosen and recorded.
    pub(crate) choosing: Mutex<()>,
}

/// One project's network.
#[derive(Debug)]
pub(crate) struct ProjectNetwork {
    pub(crate) network: Network,
    zone: Arc<ArcSwap<Zone>>,
    /// It stands, as far as this engine knows.
    stands: AtomicBool,
    answering: tokio::sync::Mutex<bool>,
    stop: CancellationToken,
}

/// An address that nobody is given.
#[derive(Debug)]
pub(crate) struct HeldAddress {
    leaving: Arc<Mutex<BTreeSet<Ipv4Addr>>>,
    address: Ipv4Addr,
}

impl Drop for HeldAddress {
    fn drop(&mut self) {
        self.leaving.lock().remove(&self.address);
    }
}

impl Networks {
    pub(crate) fn new(config: &EngineConfig) -> Self {
        Self {
            by_project: Mutex::new(BTreeMap::new()),
            name_servers: config.name_servers.clone(),
            tasks: TaskTracker::new(),
            leaving: Arc::default(),
            choosing: Mutex::new(()),
        }
    }

    pub(crate) fn add(&self, project: &str, record: &NetworkRecord) -> Arc<ProjectNetwork> {
        let network = Network {
            name: project.to_owned(),
            bridge: record.bridge.clone(),
            subnet: record.subnet,
            gateway: record.gateway,
            masquerade: true,
        };
        let network = Arc::new(ProjectNetwork {
            network,
            zone: Arc::new(ArcSwap::from_pointee(Zone::new([project]))),
            stands: AtomicBool::new(false),
            answering: tokio::sync::Mutex::new(false),
            stop: CancellationToken::new(),
        });
        self.by_project.lock().insert(project.to_owned(), Arc::clone(&network));
        network
    }

    pub(crate) fn of(&self, project: &str) -> Option<Arc<ProjectNetwork>> {
        self.by_project.lock().get(project).cloned()
    }

    fn forget(&self, project: &str) -> Option<Arc<ProjectNetwork>> {
        self.by_project.lock().remove(project)
    }

    fn subnets(&self) -> Vec<ipnet::Ipv4Net> {
        self.by_project.lock().values().map(|network| network.network.subnet).collect()
    }

    /// Answers names in `network` from now on.
    pub(crate) async fn answer_names(&self, network: &ProjectNetwork) -> Result<(), EngineError> {
        let mut answering = network.answering.lock().await;
        if *answering || network.stop.is_cancelled() {
            return Ok(());
        }
        let address = SocketAddr::from((network.network.gateway, NAME_SERVER_PORT));
        let sockets = bind(address).await.map_err(EngineError::failed(format!(
            "answering names of the network {} on {address}",
            network.network.name
        )))?;
        let zone = Arc::clone(&network.zone);
        let upstreams = self.name_servers.clone();
        let stop = network.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                never = serve(sockets, zone, upstreams) => match never {},
            }
        });
        *answering = true;
        Ok(())
    }

    /// Keeps an address from being given to anybody for as long as the answer lives: two
    /// interfaces that have it would take packets from each other.
    pub(crate) fn hold_address(&self, address: Ipv4Addr) -> HeldAddress {
        self.leaving.lock().insert(address);
        HeldAddress { leaving: Arc::clone(&self.leaving), address }
    }

    /// Stops answering names.
    pub(crate) async fn close(&self) {
        for network in self.by_project.lock().values() {
            network.stop.cancel();
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn bind(address: SocketAddr) -> Result<Sockets, NetworkError> {
    let mut left = BIND_ATTEMPTS;
    loop {
        match Sockets::bind(address).await {
            Err(_) if left > 0 => {
                left -= 1;
                tokio::time::sleep(BIND_PAUSE).await;
            }
            other => return other,
        }
    }
}

impl ProjectNetwork {
    /// Makes the network stand, if this engine has not yet.
    fn ensure(&self) -> Result<(), NetworkError> {
        if !self.stands.load(Ordering::Acquire) {
            carrack_network::ensure(&self.network)?;
            self.stands.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// The names of its services and containers, from now on.
    pub(crate) fn set_names(&self, services: &[&ServiceRecord], containers: &[&Arc<Container>]) {
        let project = &self.network.name;
        let mut zone = Zone::new([project]);
        let mut insert = |name: &str, address: Ipv4Addr| {
            zone.insert(name, address);
            zone.insert(&format!("{name}.{project}"), address);
        };
        for service in services {
            insert(&service.name, service.vip);
        }
        // A name that is a service's means any of its containers.
        let is_service = |name: &str| services.iter().any(|service| service.name == name);
        for container in containers {
            let numbered = format!("{}-{}", container.definition.service, container.number);
            for name in [container.name.as_str(), &numbered] {
                if !is_service(name) {
                    insert(name, container.address);
                }
            }
        }
        self.zone.store(Arc::new(zone));
    }
}

impl Engine {
    /// The project's network, recorded before it is made. Says whether it is new.
    pub(crate) fn project_network(
        &self,
        project: &str,
    ) -> Result<(Arc<ProjectNetwork>, bool), EngineError> {
        let _choosing = self.networks.choosing.lock();
        if let Some(network) = self.networks.of(project) {
            return Ok((network, false));
        }
        let attempt = || format!("choosing addresses for the network {project}");
        let mut taken = self.networks.subnets();
        taken.extend(carrack_network::routed().map_err(EngineError::failed(attempt()))?);
        let pool = self.config.networks;
        let subnet =
            address::next_subnet(pool, address::SUBNET_PREFIX, &taken).ok_or_else(|| {
                EngineError::Conflict(format!(
                    "no subnet of {pool} is free for the network {project}; bring a project down"
                ))
            })?;
        let digest = Digest::of(project);
        let record = NetworkRecord {
            bridge: format!(
                "{}-{}",
                self.config.interface_prefix,
                digest.hex().get(..8).unwrap_or("0")
            ),
            subnet,
            gateway: address::gateway(subnet),
        };
        let insert = self.records.networks.put(project, &record);
        insert.map_err(EngineError::failed(format!("recording the network {project}")))?;
        Ok((self.networks.add(project, &record), true))
    }

    /// Removes a project's network, which no container may be on.
    pub(crate) fn remove_network(&self, project: &str) -> Result<bool, EngineError> {
        let _choosing = self.networks.choosing.lock();
        let Some(network) = self.networks.forget(project) else { return Ok(false) };
        network.stop.cancel();
        let attempt = || format!("removing the network {project}");
        carrack_network::remove(&network.network).map_err(EngineError::failed(attempt()))?;
        let erased = self.records.networks.delete(project);
        erased.map_err(EngineError::failed(attempt()))?;
        Ok(true)
    }

    /// An address on the project's network that no container has. The caller holds `choosing`.
    pub(crate) fn free_address(&self, network: &ProjectNetwork) -> Result<Ipv4Addr, EngineError> {
        let project = &network.network.name;
        let containers = self.project_containers(project);
        let mut taken: BTreeSet<Ipv4Addr> = containers.iter().map(|c| c.address).collect();
        taken.extend(self.networks.leaving.lock().iter());
        let newest = containers.iter().max_by_key(|c| c.created).map(|c| c.address);
        let subnet = network.network.subnet;
        address::next(subnet, &taken, newest).ok_or_else(|| {
            EngineError::Conflict(format!("every address of the network {project} is taken"))
        })
    }

    /// Gives a container its network namespace and its capture, however much of it there is
    /// already. Nothing leads into it yet.
    pub(crate) fn make_namespace(
        &self,
        container: &Container,
    ) -> Result<Arc<ProjectNetwork>, EngineError> {
        let attempt = || format!("making the network namespace of {}", container.name);
        let (network, _) = self.project_network(&container.definition.project)?;
        network.ensure().map_err(EngineError::failed(attempt()))?;
        let netns = self.places(&container.id).netns;
        // The rules come first: there is no moment in which a packet could leave without them.
        carrack_network::create_namespace(&netns)
            .and_then(|()| carrack_network::capture(&netns, &Capture::default()))
            .map_err(EngineError::failed(attempt()))?;
        Ok(network)
    }

    /// Gives a container its interface.
    pub(crate) fn connect(
        &self,
        container: &Container,
        network: &ProjectNetwork,
    ) -> Result<(), EngineError> {
        let attempt = || format!("connecting {} to its network", container.name);
        let netns = self.places(&container.id).netns;
        let interface = self.host_interface(container);
        let attachment = Attachment {
            namespace: &netns,
            network: &network.network,
            address: container.address,
            interface: "eth0",
            host_interface: &interface,
            mac: carrack_network::hardware_address(container.address),
        };
        let connected = match carrack_network::attach(&attachment) {
            Err(NetworkError::NoBridge { .. }) => {
                network.stands.store(false, Ordering::Release);
                network.ensure().and_then(|()| carrack_network::attach(&attachment))
            }
            other => other,
        };
        connected.map_err(EngineError::failed(attempt()))
    }

    /// Takes a container's network away, whatever of it there is.
    pub(crate) fn detach_network(&self, container: &Container) {
        let detached = carrack_network::detach(&self.host_interface(container))
            .and_then(|()| carrack_network::remove_namespace(&self.places(&container.id).netns));
        if let Err(error) = detached {
            tracing::warn!(container = %container.name, %error, "taking a container's network away");
        }
    }

    fn host_interface(&self, container: &Container) -> String {
        format!("{}{}", self.config.interface_prefix, container.short_id())
    }
}

//! What the mesh is told: which containers and services there are.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use carrack_network::address;
use carrack_objects::compose::Port;
use carrack_objects::mesh::{AppProtocol, Published, Service, Workload};

use crate::container::Container;
use crate::engine::{Engine, Tables};
use crate::error::EngineError;
use crate::record::ServiceRecord;

/// How often a host port in use is tried again, and after how long.
const PROBES: u32 = 20;
const PROBE_PAUSE: Duration = Duration::from_millis(100);

impl Engine {
    /// Tells the mesh and the name servers what there is now. Does nothing if that is what they
    /// know.
    pub(crate) fn publish(&self) {
        let table = self.table.lock();
        let attached: Vec<&Arc<Container>> = table
            .containers
            .values()
            .filter(|c| c.phase().is_attached() && self.places(&c.id).netns.exists())
            .collect();
        let workloads: Vec<Workload> = attached.iter().map(|c| self.workload(c)).collect();
        let services: Vec<Service> = table.services.values().map(service).collect();
        for (project, services, containers) in by_project(&table, &attached) {
            if let Some(network) = self.networks.of(project) {
                network.set_names(&services, &containers);
            }
        }
        // Sent under the lock, so that what was gathered last is sent last.
        self.workloads.send_if_modified(|old| replace(old, workloads));
        self.services.send_if_modified(|old| replace(old, services));
    }

    fn workload(&self, container: &Container) -> Workload {
        let definition = &container.definition;
        Workload {
            uid: container.id.clone(),
            name: container.name.clone(),
            project: definition.project.clone(),
            service: definition.service.clone(),
            address: container.address,
            netns: self.places(&container.id).netns,
            labels: definition.labels.clone(),
            ready: container.is_ready(),
            protocols: definition.protocols.clone(),
            published: container.published.clone(),
        }
    }

    /// Sees that a service has an address and the host ports it asks for, and records them.
    pub(crate) fn ensure_service(
        &self,
        project: &str,
        name: &str,
        ports: &[Port],
        protocols: &BTreeMap<u16, AppProtocol>,
    ) -> Result<(), EngineError> {
        let _choosing = self.networks.choosing.lock();
        let key = ServiceRecord::key(project, name);
        let old = self.table.lock().services.get(&key).cloned();
        let vip = match &old {
            Some(old) => old.vip,
            None => self.free_service_address()?,
        };
        let kept = old.as_ref().map(|old| old.published.as_slice()).unwrap_or_default();
        let record = ServiceRecord {
            project: project.to_owned(),
            name: name.to_owned(),
            vip,
            protocols: protocols.clone(),
            published: self.choose_ports(ports, kept)?,
        };
        if old.as_ref() != Some(&record) {
            let put = self.records.services.put(&key, &record);
            put.map_err(EngineError::failed(format!("recording the service {name}")))?;
            self.table.lock().services.insert(key, record);
        }
        Ok(())
    }

    pub(crate) fn free_service_address(&self) -> Result<std::net::Ipv4Addr, EngineError> {
        let pool = self.config.service_addresses;
        let taken = self.table.lock().services.values().map(|service| service.vip).collect();
        address::next(pool, &taken, None).ok_or_else(|| {
            EngineError::Conflict(format!("every service address of {pool} is taken"))
        })
    }

    /// Chooses host ports for what was asked: the one named, the one had before, or a free one.
    pub(crate) fn choose_ports(
        &self,
        asked: &[Port],
        had: &[Published],
    ) -> Result<Vec<Published>, EngineError> {
        let mut chosen: Vec<Published> = Vec::new();
        for port in asked {
            let is_it = |old: &&Published| {
                old.host == port.host
                    && old.container_port == port.container_port
                    && port.host_port.is_none_or(|wanted| wanted == old.host_port)
                    && !chosen.iter().any(|c| (c.host, c.host_port) == (old.host, old.host_port))
            };
            let host_port = match had.iter().find(is_it) {
                Some(old) => old.host_port,
                None => self.free_port(port.host, port.host_port.unwrap_or(0))?,
            };
            chosen.push(Published {
                host: port.host,
                host_port,
                container_port: port.container_port,
                protocol: port.protocol,
            });
        }
        Ok(chosen)
    }

    /// The port, if nobody has it; any free one for 0.
    fn free_port(&self, host: IpAddr, wanted: u16) -> Result<u16, EngineError> {
        if wanted != 0
            && let Some(holder) = self.holder_of(host, wanted)
        {
            return Err(EngineError::Conflict(format!(
                "host port {} is published by {holder}",
                SocketAddr::new(host, wanted)
            )));
        }
        let attempt = format!(
            "publishing host port {}; another program may use it",
            SocketAddr::new(host, wanted)
        );
        let mut left = PROBES;
        loop {
            // Listened on for a moment only: the node proxy is who will listen there.
            let probe = TcpListener::bind((host, wanted)).and_then(|held| held.local_addr());
            match probe {
                Ok(address) => return Ok(address.port()),
                // The proxy may be about to let go of a port that was given back just now.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && left > 0 => {
                    left -= 1;
                    std::thread::sleep(PROBE_PAUSE);
                }
                Err(error) => return Err(EngineError::failed(attempt)(error)),
            }
        }
    }

    fn holder_of(&self, host: IpAddr, port: u16) -> Option<String> {
        let clashes = |published: &Published| {
            published.host_port == port
                && (published.host == host
                    || published.host.is_unspecified()
                    || host.is_unspecified())
        };
        let table = self.table.lock();
        let service = table.services.values().find(|s| s.published.iter().any(clashes));
        let container = table.containers.values().find(|c| c.published.iter().any(clashes));
        service
            .map(|service| format!("service {} of project {}", service.name, service.project))
            .or_else(|| container.map(|container| format!("container {}", container.name)))
    }

    /// The service that goes with a container which was made by itself.
    pub(crate) fn service_to_release(&self, container: &Container) -> Option<String> {
        let definition = &container.definition;
        let key = ServiceRecord::key(&definition.project, &definition.service);
        let used = self.table.lock().containers.values().any(|other| {
            other.id != container.id
                && other.definition.project == definition.project
                && other.definition.service == definition.service
        });
        (is_own_service(container) && !used).then_some(key)
    }

    pub(crate) fn remove_service(&self, key: &str) -> Result<(), EngineError> {
        let erased = self.records.services.delete(key);
        erased.map_err(EngineError::failed(format!("forgetting the service {key}")))?;
        self.table.lock().services.remove(key);
        Ok(())
    }
}

/// Whether a container came with its service, and not from an application.
pub(crate) fn is_own_service(container: &Container) -> bool {
    container.number == 0
}

fn service(record: &ServiceRecord) -> Service {
    Service {
        name: record.name.clone(),
        project: record.project.clone(),
        vip: record.vip,
        protocols: record.protocols.clone(),
        published: record.published.clone(),
    }
}

fn replace<T: PartialEq>(old: &mut Arc<Vec<T>>, new: Vec<T>) -> bool {
    let differs = **old != new;
    if differs {
        *old = Arc::new(new);
    }
    differs
}

type InProject<'a> = (&'a str, Vec<&'a ServiceRecord>, Vec<&'a Arc<Container>>);

fn by_project<'a>(table: &'a Tables, attached: &[&'a Arc<Container>]) -> Vec<InProject<'a>> {
    let mut projects: BTreeMap<&str, (Vec<&ServiceRecord>, Vec<&Arc<Container>>)> = BTreeMap::new();
    for service in table.services.values() {
        projects.entry(&service.project).or_default().0.push(service);
    }
    for container in attached {
        projects.entry(&container.definition.project).or_default().1.push(container);
    }
    projects
        .into_iter()
        .map(|(project, (services, containers))| (project, services, containers))
        .collect()
}

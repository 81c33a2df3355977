//! Workloads and the services they stand behind.

use std::collections::{BTreeMap, BTreeSet};

use carrack_objects::mesh::{self, AppProtocol};
use carrack_spiffe::SpiffeId;
use carrack_xds::{Protocol, Service, Workload};

use crate::{INGRESS_SERVICE_ACCOUNT, Problem, World};

/// A workload the proxy is told of, and the labels policies select it by.
pub(crate) struct Told<'w> {
    pub(crate) resource: Workload,
    pub(crate) labels: &'w BTreeMap<String, String>,
}

/// The workloads, by uid. Of two that claim the same uid or address the one
/// whose uid comes first stays.
pub(crate) fn workloads<'w>(world: &'w World, problems: &mut Vec<Problem>) -> Vec<Told<'w>> {
    let mut objects: Vec<_> = world.workloads.iter().collect();
    objects.sort_by(|a, b| (&a.uid, &a.name).cmp(&(&b.uid, &b.name)));
    let mut addresses = BTreeMap::new();
    let mut told: Vec<Told<'w>> = Vec::new();
    for object in objects {
        if let Some(message) = fault(world, object, &addresses, told.last()) {
            problems.push(Problem { object: format!("workload {}", object.name), message });
            continue;
        }
        addresses.insert(object.address, object.name.as_str());
        told.push(Told { resource: resource(world, object), labels: &object.labels });
    }
    told
}

fn fault(
    world: &World,
    object: &mesh::Workload,
    addresses: &BTreeMap<std::net::Ipv4Addr, &str>,
    last: Option<&Told<'_>>,
) -> Option<String> {
    if object.service == INGRESS_SERVICE_ACCOUNT {
        return Some(format!("the service name `{INGRESS_SERVICE_ACCOUNT}` is that of the doors"));
    }
    if let Err(error) = SpiffeId::workload(&world.trust_domain, &object.project, &object.service) {
        return Some(format!("its names make no SPIFFE ID: {error}"));
    }
    if !object.netns.is_absolute() {
        return Some(format!(
            "its network namespace {} is no absolute path",
            object.netns.display()
        ));
    }
    if last.is_some_and(|last| last.resource.uid == object.uid) {
        return Some(format!("another workload has the uid {}", object.uid));
    }
    let other = addresses.get(&object.address)?;
    Some(format!("{} is already the address of {other}", object.address))
}

fn resource(world: &World, object: &mesh::Workload) -> Workload {
    let declared = world
        .services
        .iter()
        .filter(|service| service.project == object.project && service.name == object.service)
        .flat_map(|service| &service.protocols);
    let mut protocols: BTreeMap<u16, Protocol> = BTreeMap::new();
    for (port, spoken) in declared.chain(&object.protocols) {
        protocols.insert(*port, protocol(*spoken));
    }
    Workload {
        uid: object.uid.clone(),
        name: object.name.clone(),
        namespace: object.project.clone(),
        service_account: object.service.clone(),
        address: object.address,
        netns: Some(object.netns.clone()),
        ready: object.ready,
        protocols,
    }
}

/// The services, by project and name, with the uids of their workloads.
pub(crate) fn services(
    world: &World,
    workloads: &[Told<'_>],
    problems: &mut Vec<Problem>,
) -> Vec<Service> {
    let mut objects: Vec<_> = world.services.iter().collect();
    objects.sort_by(|a, b| (&a.project, &a.name, a.vip).cmp(&(&b.project, &b.name, b.vip)));
    let addresses: BTreeSet<_> = workloads.iter().map(|told| told.resource.address).collect();
    let mut services: Vec<Service> = Vec::new();
    for object in objects {
        let same_name = |s: &&Service| s.namespace == object.project && s.name == object.name;
        let identity = SpiffeId::workload(&world.trust_domain, &object.project, &object.name);
        let message = if let Err(error) = identity {
            format!("its names make no SPIFFE ID: {error}")
        } else if services.iter().any(|s| same_name(&s)) {
            "another service has this name".to_owned()
        } else if addresses.contains(&object.vip) {
            format!("{} is the address of a workload", object.vip)
        } else if let Some(other) = services.iter().find(|s| s.vip == object.vip) {
            format!(
                "{} is already the address of service {}/{}",
                object.vip, other.namespace, other.name
            )
        } else {
            services.push(service(object, workloads));
            continue;
        };
        problems.push(Problem { object: label(object), message });
    }
    services
}

fn service(object: &mesh::Service, workloads: &[Told<'_>]) -> Service {
    let behind = |told: &&Told<'_>| {
        told.resource.namespace == object.project && told.resource.service_account == object.name
    };
    Service {
        name: object.name.clone(),
        namespace: object.project.clone(),
        vip: object.vip,
        endpoints: workloads.iter().filter(behind).map(|told| told.resource.uid.clone()).collect(),
        protocols: object.protocols.iter().map(|(port, p)| (*port, protocol(*p))).collect(),
    }
}

pub(crate) fn label(object: &mesh::Service) -> String {
    format!("service {}/{}", object.project, object.name)
}

pub(crate) fn protocol(spoken: AppProtocol) -> Protocol {
    match spoken {
        AppProtocol::Http => Protocol::Http,
        AppProtocol::Http2 => Protocol::Http2,
        AppProtocol::Tcp => Protocol::Tcp,
    }
}

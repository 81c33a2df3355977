//! Published ports: doors from outside the mesh.

use std::net::SocketAddr;

use carrack_objects::mesh::Published;
use carrack_xds::{Ingress, Service};

use crate::workload::{label, protocol};
use crate::{Problem, World};

struct Door<'w> {
    project: &'w str,
    service: &'w str,
    object: String,
    published: &'w Published,
}

/// The doors, by the address they listen on. Of two that want the same port the
/// one whose project and service come first gets it.
pub(crate) fn ingress(
    world: &World,
    services: &[Service],
    problems: &mut Vec<Problem>,
) -> Vec<Ingress> {
    let of_services = world.services.iter().flat_map(|service| {
        service.published.iter().map(|published| Door {
            project: &service.project,
            service: &service.name,
            object: label(service),
            published,
        })
    });
    let of_workloads = world.workloads.iter().flat_map(|workload| {
        workload.published.iter().map(|published| Door {
            project: &workload.project,
            service: &workload.service,
            object: format!("workload {}", workload.name),
            published,
        })
    });
    let mut doors: Vec<_> = of_services.chain(of_workloads).collect();
    doors.sort_by_key(|door| {
        let p = door.published;
        (door.project, door.service, p.host, p.host_port, p.container_port, p.protocol)
    });
    let mut ingress: Vec<Ingress> = Vec::new();
    for door in doors {
        let resource = resource(&door);
        // A replica may say again what its service says.
        if ingress.contains(&resource) {
            continue;
        }
        match fault(&resource, services, &ingress) {
            None => ingress.push(resource),
            Some(message) => problems.push(Problem { object: door.object, message }),
        }
    }
    ingress.sort_by_key(|door| door.listen);
    ingress
}

fn resource(door: &Door<'_>) -> Ingress {
    Ingress {
        listen: SocketAddr::new(door.published.host, door.published.host_port),
        namespace: door.project.to_owned(),
        service: door.service.to_owned(),
        port: door.published.container_port,
        protocol: door.published.protocol.map(protocol),
    }
}

fn fault(door: &Ingress, services: &[Service], others: &[Ingress]) -> Option<String> {
    if door.listen.port() == 0 {
        return Some("publishes host port 0, which is no port".to_owned());
    }
    if !services.iter().any(|s| s.namespace == door.namespace && s.name == door.service) {
        return Some(format!(
            "publishes a port of {}/{}, which is no service",
            door.namespace, door.service
        ));
    }
    let other = others.iter().find(|other| overlaps(other.listen, door.listen))?;
    Some(format!(
        "host port {} is already that of service {}/{}",
        door.listen, other.namespace, other.service
    ))
}

fn overlaps(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

//! What one part of the file says about another.

use indexmap::IndexMap;

use super::application::{AdditionalContext, MountKind, Service, Volume};
use super::reading::Reading;
use crate::cursor::Cursor;
use crate::yaml::Place;

/// Finds names that lead nowhere, and circles. `at` is `services`.
pub(super) fn check(
    reading: &mut Reading<'_>,
    at: &Cursor<'_>,
    services: &IndexMap<String, Service>,
    volumes: &IndexMap<String, Volume>,
) {
    let place = |service: &str, field: &str| -> Place {
        let service = at.get(service);
        let field = service.as_ref().and_then(|at| at.get(field));
        field.or(service).map_or(at.key_place, |at| at.key_place)
    };
    for (name, service) in services {
        for other in service.depends_on.keys().filter(|other| !at_has(at, other)) {
            let message =
                format!("`services.{name}.depends_on` names `{other}`, which is no service here");
            reading.problem_at(place(name, "depends_on"), message);
        }
        for other in built_from(service).filter(|other| {
            services.get(*other).is_some_and(|s| s.build.is_none()) || !at_has(at, other)
        }) {
            let message = format!(
                "`services.{name}.build.additional_contexts` names `service:{other}`, which is no service here that is built"
            );
            reading.problem_at(place(name, "build"), message);
        }
        for volume in named_volumes(service).filter(|volume| !volumes.contains_key(*volume)) {
            let message = format!(
                "`services.{name}.volumes` names the volume `{volume}`, which is not under `volumes`; write `./{volume}` for a directory"
            );
            reading.problem_at(place(name, "volumes"), message);
        }
    }
    same_names(reading, at, services);
    same_host_ports(reading, services, &place);
    let depends = |name: &str| -> Vec<&str> {
        services
            .get(name)
            .map(|s| s.depends_on.keys().map(String::as_str).collect())
            .unwrap_or_default()
    };
    if let Some(circle) = circle(services, depends) {
        let message = format!("`depends_on` goes in a circle: {}", circle.join(" → "));
        reading.problem_at(place(circle[0], "depends_on"), message);
    }
    let built = |name: &str| -> Vec<&str> {
        services.get(name).map(|s| built_from(s).collect()).unwrap_or_default()
    };
    if let Some(circle) = self::circle(services, built) {
        let message = format!("`additional_contexts` go in a circle: {}", circle.join(" → "));
        reading.problem_at(place(circle[0], "build"), message);
    }
}

/// Whether the file has a service of this name, readable or not.
fn at_has(at: &Cursor<'_>, service: &str) -> bool {
    at.node.entry(service).is_some()
}

fn built_from(service: &Service) -> impl Iterator<Item = &str> {
    let contexts = service.build.iter().flat_map(|build| build.additional_contexts.values());
    contexts.filter_map(|context| match context {
        AdditionalContext::Service(name) => Some(name.as_str()),
        AdditionalContext::Recipe(_)
        | AdditionalContext::Image(_)
        | AdditionalContext::Directory(_) => None,
    })
}

fn named_volumes(service: &Service) -> impl Iterator<Item = &str> {
    service.mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Volume { name, .. } => name.as_deref(),
        MountKind::Bind { .. } | MountKind::Tmpfs { .. } => None,
    })
}

/// Host names know no case, so neither may two services differ by it alone.
fn same_names(reading: &mut Reading<'_>, at: &Cursor<'_>, services: &IndexMap<String, Service>) {
    let mut seen: IndexMap<String, &str> = IndexMap::new();
    for name in services.keys() {
        if let Some(first) = seen.insert(name.to_lowercase(), name) {
            let message = format!("the services `{first}` and `{name}` differ in case alone");
            reading.problem_at(at.get(name).map_or(at.key_place, |at| at.key_place), message);
        }
    }
}

fn same_host_ports(
    reading: &mut Reading<'_>,
    services: &IndexMap<String, Service>,
    place: &dyn Fn(&str, &str) -> Place,
) {
    let mut taken: Vec<(std::net::IpAddr, u16, &str)> = Vec::new();
    for (name, service) in services {
        for port in &service.ports {
            let Some(host_port) = port.host_port else { continue };
            let overlaps = |&&(host, number, _): &&(std::net::IpAddr, u16, &str)| {
                number == host_port
                    && (host == port.host || host.is_unspecified() || port.host.is_unspecified())
            };
            if let Some((_, _, first)) = taken.iter().find(overlaps) {
                let message =
                    format!("host port {host_port} of `{name}` is already that of `{first}`");
                reading.problem_at(place(name, "ports"), message);
            }
            taken.push((port.host, host_port, name));
        }
    }
}

/// A circle among `services`, first and last the same, if there is one.
fn circle<'a>(
    services: &'a IndexMap<String, Service>,
    next: impl Fn(&'a str) -> Vec<&'a str>,
) -> Option<Vec<&'a str>> {
    let mut done: Vec<&str> = Vec::new();
    for start in services.keys() {
        let mut path: Vec<(&str, Vec<&str>)> = vec![(start, next(start))];
        while let Some((name, left)) = path.last_mut() {
            let name = *name;
            match left.pop() {
                None => {
                    done.push(name);
                    path.pop();
                }
                Some(other) => {
                    if let Some(from) = path.iter().position(|(on_path, _)| *on_path == other) {
                        let mut circle: Vec<_> =
                            path[from..].iter().map(|(name, _)| *name).collect();
                        circle.push(other);
                        return Some(circle);
                    }
                    if !done.contains(&other) {
                        path.push((other, next(other)));
                    }
                }
            }
        }
    }
    None
}

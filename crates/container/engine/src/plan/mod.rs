//! What to do so that a project is what its file says.
//!
//! ```text
//! application ─┐
//! images      ─┼─ plan ─▶ Plan: per service, in order: what to wait for, keep, make, remove
//! what exists ─┘
//! ```
//!
//! Pure: the same arguments give the same plan, and carrying it out leaves nothing to choose.
//! Doing it is not here: see `project`.

mod define;
mod order;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use carrack_objects::compose::{Application, Condition, MountKind, Port, Service};
use carrack_objects::mesh::AppProtocol;
use carrack_oci::{Digest, ExecutionConfig};
use indexmap::IndexMap;

use crate::api::{Action, PlannedContainer, Recreate};
use crate::definition::Definition;

pub use define::{Extras, define};
pub use order::order;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    /// The application.
    pub application: &'a Application,
    /// The image of each of its services.
    pub images: &'a BTreeMap<String, ImageFacts>,
    /// Only these services and what they depend on; all when empty.
    pub services: &'a [String],
    /// Which existing containers are made anew.
    pub recreate: Recreate,
    /// Whether containers of services the file no longer has are removed.
    pub remove_orphans: bool,
    /// How many containers of a service, in place of what the file says.
    pub scale: &'a BTreeMap<String, u32>,
}

/// What there is to know about an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFacts {
    /// The name it was found by.
    pub name: String,
    /// The image.
    pub digest: Digest,
    /// What it says about how to run it.
    pub config: ExecutionConfig,
}

/// A container of the project that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Existing {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its service.
    pub service: String,
    /// Its number among the service's containers.
    pub number: u32,
    /// What its definition hashes to.
    pub hash: String,
}

/// What to do. See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The project.
    pub project: String,
    /// Volumes that have to be there, by their name on the host.
    pub volumes: IndexMap<String, VolumePlan>,
    /// Services, each after those it depends on.
    pub services: Vec<ServicePlan>,
    /// Containers of services the file no longer has that are to be removed.
    pub orphans: Vec<Existing>,
    /// Things a person should know.
    pub warnings: Vec<String>,
}

/// A volume that has to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumePlan {
    /// Whether it has to be there already.
    pub external: bool,
    /// Labels on it.
    pub labels: BTreeMap<String, String>,
}

/// What to do with one service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServicePlan {
    /// Its name.
    pub service: String,
    /// What has to be there first.
    pub after: Vec<After>,
    /// Its containers.
    pub containers: Vec<ContainerPlan>,
    /// Containers it has too many of.
    pub excess: Vec<Existing>,
    /// Host ports asked for.
    pub ports: Vec<Port>,
    /// Protocols declared for its ports.
    pub protocols: BTreeMap<u16, AppProtocol>,
}

/// Something that has to be there before a service starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After {
    /// The other service.
    pub service: String,
    /// How far it has to be.
    pub condition: Condition,
    /// Whether its failure stops this one.
    pub required: bool,
}

/// What to do with one container.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerPlan {
    /// Its name.
    pub name: String,
    /// Its number among the service's containers.
    pub number: u32,
    /// What to do.
    pub deed: Deed,
    /// What it shall be.
    pub definition: Definition,
}

/// What to do with a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Leave it, and see that it runs.
    Keep(Existing),
    /// Leave it, and start it anew since what it depends on was made anew.
    Restart(Existing),
    /// Make it.
    Create,
    /// Make it in the place of this one.
    Recreate(Existing),
}

/// Something that stands in the way of a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanProblem {
    /// A service that is not in the file was asked for.
    #[error("there is no service `{0}` in the application")]
    NoSuchService(String),
    /// A service depends on one that is not in the file.
    #[error("service `{service}` depends on `{other}`, which is not in the application")]
    NoSuchDependency {
        /// The service.
        service: String,
        /// What it depends on.
        other: String,
    },
    /// Services depend on each other in a circle.
    #[error("services depend on each other in a circle: {}", .0.join(" → "))]
    Circle(Vec<String>),
    /// A service's image is not known.
    #[error("service `{0}` has no image; build it, or load the image it names")]
    NoImage(String),
    /// Neither the service nor its image says what to run.
    #[error("service `{0}` has nothing to run: neither it nor its image has a command")]
    NoCommand(String),
    /// A service's stop signal is none.
    #[error("service `{service}`: `{signal}` is no signal")]
    NoSuchSignal {
        /// The service.
        service: String,
        /// The word.
        signal: String,
    },
    /// A service's capability is none.
    #[error("service `{service}`: {problem}")]
    NoSuchCapability {
        /// The service.
        service: String,
        /// What is wrong with the word.
        problem: carrack_oci::runtime::UnknownCapability,
    },
    /// A service mounts a volume that the file does not have.
    #[error("service `{service}` mounts the volume `{volume}`, which is not in the application")]
    NoSuchVolume {
        /// The service.
        service: String,
        /// The volume.
        volume: String,
    },
    /// A service waits for another to be healthy, which has no health check.
    #[error("service `{service}` waits for `{other}` to be healthy, which has no health check")]
    NoHealthcheck {
        /// The service.
        service: String,
        /// What it waits for.
        other: String,
    },
    /// Two services ask for the same host port.
    #[error("services `{first}` and `{second}` both ask for host port {address}")]
    SamePort {
        /// One.
        first: String,
        /// The other.
        second: String,
        /// What both ask for.
        address: String,
    },
}

/// Plans what to do. See the module.
///
/// # Errors
///
/// Everything that stands in the way, not only the first.
pub fn plan(wish: &Wish<'_>, exists: &[Existing]) -> Result<Plan, Vec<PlanProblem>> {
    let order = order(wish.application, wish.services)?;
    let mut problems = Vec::new();
    let mut services = Vec::new();
    let mut anew = BTreeSet::new();
    for name in &order {
        let Some(service) = wish.application.services.get(name) else { continue };
        match plan_service(wish, service, exists, &anew) {
            Ok(planned) => {
                if planned.containers.iter().any(|c| matches!(c.deed, Deed::Recreate(_))) {
                    anew.insert(name.clone());
                }
                services.push(planned);
            }
            Err(found) => problems.extend(found),
        }
    }
    problems.extend(waits_in_vain(&services));
    problems.extend(same_ports(&services));
    if !problems.is_empty() {
        return Err(problems);
    }
    let (orphans, warnings) = orphans(wish, exists);
    let project = wish.application.name.clone();
    Ok(Plan { project, volumes: volumes(wish.application, &services), services, orphans, warnings })
}

impl Plan {
    /// Every container concerned, as a person is told.
    pub fn summary(&self) -> Vec<PlannedContainer> {
        let removed = |existing: &Existing| PlannedContainer {
            name: existing.name.clone(),
            service: existing.service.clone(),
            action: Action::Remove,
        };
        let mut list = Vec::new();
        for service in &self.services {
            list.extend(service.containers.iter().map(|container| PlannedContainer {
                name: container.name.clone(),
                service: service.service.clone(),
                action: match container.deed {
                    Deed::Keep(_) | Deed::Restart(_) => Action::Keep,
                    Deed::Create => Action::Create,
                    Deed::Recreate(_) => Action::Recreate,
                },
            }));
            list.extend(service.excess.iter().map(removed));
        }
        list.extend(self.orphans.iter().map(removed));
        list
    }
}

fn plan_service(
    wish: &Wish<'_>,
    service: &Service,
    exists: &[Existing],
    anew: &BTreeSet<String>,
) -> Result<ServicePlan, Vec<PlanProblem>> {
    let Some(image) = wish.images.get(&service.name) else {
        return Err(vec![PlanProblem::NoImage(service.name.clone())]);
    };
    let application = wish.application;
    let definition =
        define(&application.name, service, image, &application.volumes, &Extras::default())?;
    let hash = definition.hash();
    let disturbed = service
        .depends_on
        .iter()
        .any(|(other, dependency)| dependency.restart && anew.contains(other));
    let wanted = wish.scale.get(&service.name).copied().unwrap_or(service.replicas);
    let mut mine: Vec<&Existing> =
        exists.iter().filter(|other| other.service == service.name).collect();
    mine.sort_by_key(|existing| existing.number);

    let deed = |existing: Option<&Existing>| match (existing, wish.recreate) {
        (None, _) => Deed::Create,
        (Some(old), Recreate::Always) => Deed::Recreate(old.clone()),
        (Some(old), Recreate::Changed) if old.hash != hash => Deed::Recreate(old.clone()),
        (Some(old), _) if disturbed => Deed::Restart(old.clone()),
        (Some(old), _) => Deed::Keep(old.clone()),
    };
    let containers = (1..=wanted)
        .map(|number| ContainerPlan {
            name: format!("{}-{}-{number}", application.name, service.name),
            number,
            deed: deed(mine.iter().copied().find(|existing| existing.number == number)),
            definition: definition.clone(),
        })
        .collect();
    Ok(ServicePlan {
        service: service.name.clone(),
        after: after(application, service),
        containers,
        excess: mine.into_iter().filter(|old| old.number > wanted).cloned().collect(),
        ports: service.ports.clone(),
        protocols: service.protocols(),
    })
}

/// What has to be there first. A dependency that is not in the file and not required is nothing
/// to wait for.
fn after(application: &Application, service: &Service) -> Vec<After> {
    let known =
        service.depends_on.iter().filter(|(name, _)| application.services.contains_key(*name));
    known
        .map(|(name, dependency)| After {
            service: name.clone(),
            condition: dependency.condition,
            required: dependency.required,
        })
        .collect()
}

/// Services that wait for the health of one that has no way to tell.
fn waits_in_vain(services: &[ServicePlan]) -> Vec<PlanProblem> {
    let checked = |name: &str| {
        let other = services.iter().find(|service| service.service == name);
        other.is_none_or(|other| other.containers.iter().all(|c| c.definition.health.is_some()))
    };
    let mut problems = Vec::new();
    for service in services {
        for after in &service.after {
            if after.condition == Condition::Healthy && !checked(&after.service) {
                problems.push(PlanProblem::NoHealthcheck {
                    service: service.service.clone(),
                    other: after.service.clone(),
                });
            }
        }
    }
    problems
}

fn same_ports(services: &[ServicePlan]) -> Vec<PlanProblem> {
    let mut taken: BTreeMap<u16, Vec<(std::net::IpAddr, &str)>> = BTreeMap::new();
    let mut problems = Vec::new();
    for service in services {
        for port in &service.ports {
            let Some(host_port) = port.host_port else { continue };
            let others = taken.entry(host_port).or_default();
            let clash = others.iter().find(|(host, _)| {
                *host == port.host || host.is_unspecified() || port.host.is_unspecified()
            });
            if let Some((_, first)) = clash {
                problems.push(PlanProblem::SamePort {
                    first: (*first).to_owned(),
                    second: service.service.clone(),
                    address: std::net::SocketAddr::new(port.host, host_port).to_string(),
                });
            }
            others.push((port.host, &service.service));
        }
    }
    problems
}

/// Volumes the planned containers mount.
fn volumes(application: &Application, services: &[ServicePlan]) -> IndexMap<String, VolumePlan> {
    let mounts = services
        .iter()
        .flat_map(|service| &service.containers)
        .flat_map(|container| &container.definition.mounts);
    let mut volumes = IndexMap::new();
    for mount in mounts {
        let MountKind::Volume { name: Some(name), .. } = &mount.kind else { continue };
        let declared = application.volumes.values().find(|volume| volume.name == *name);
        volumes.entry(name.clone()).or_insert_with(|| VolumePlan {
            external: declared.is_some_and(|volume| volume.external),
            labels: declared
                .map(|volume| volume.labels.clone().into_iter().collect())
                .unwrap_or_default(),
        });
    }
    volumes
}

fn orphans(wish: &Wish<'_>, exists: &[Existing]) -> (Vec<Existing>, Vec<String>) {
    let orphans: Vec<Existing> = exists
        .iter()
        .filter(|existing| !wish.application.services.contains_key(&existing.service))
        .cloned()
        .collect();
    if wish.remove_orphans || orphans.is_empty() {
        return (orphans, Vec::new());
    }
    let names: Vec<_> = orphans.iter().map(|orphan| orphan.name.as_str()).collect();
    let warning = format!(
        "containers of services the file no longer has are left running: {}; remove them with \
         --remove-orphans",
        names.join(", ")
    );
    (Vec::new(), vec![warning])
}

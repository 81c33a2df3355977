//! Making containers.

use std::collections::BTreeMap;
use std::sync::Arc;

use carrack_objects::compose::{MountKind, Volume};
use carrack_objects::mesh::{AppProtocol, Published};
use carrack_store::Table;
use indexmap::IndexMap;
use jiff::Timestamp;

use crate::api::{Created, RunRequest};
use crate::container::Container;
use crate::definition::Definition;
use crate::engine::{Engine, blocking};
use crate::error::EngineError;
use crate::plan::{Extras, define};
use crate::record::{ContainerRecord, Life, ServiceRecord};

/// The project of containers that name none.
const DEFAULT_PROJECT: &str = "default";

/// A container that is to be made.
pub(crate) struct NewContainer {
    pub(crate) name: String,
    /// Its number among its service's containers; 0 for one that came by itself.
    pub(crate) number: u32,
    pub(crate) definition: Definition,
    pub(crate) published: Vec<Published>,
    pub(crate) auto_remove: bool,
    /// What its own service speaks, if it brings one.
    pub(crate) own_service: Option<BTreeMap<u16, AppProtocol>>,
}

impl Engine {
    /// Makes a container: a record, an address, the volumes it mounts. Nothing runs yet.
    pub(crate) fn create(&self, new: NewContainer) -> Result<Arc<Container>, EngineError> {
        let (network, _) = self.project_network(&new.definition.project)?;
        let id = hex::encode(rand::random::<[u8; 32]>());
        for mount in &new.definition.mounts {
            let project = &new.definition.project;
            let owner = matches!(mount.kind, MountKind::Volume { name: None, .. });
            let owner = owner.then_some(id.as_str());
            if let Some(name) = crate::volume::volume_of(&id, &mount.target, &mount.kind) {
                self.ensure_volume(&name, project, BTreeMap::new(), owner)?;
            }
        }
        let _choosing = self.networks.choosing.lock();
        if let Some(other) = self.containers().iter().find(|other| other.name == new.name) {
            return Err(EngineError::Conflict(format!(
                "there is a container {} already ({}); remove it, or choose another name",
                other.name,
                other.short_id()
            )));
        }
        let own_service =
            new.own_service.map(|protocols| self.own_service(&new.definition, protocols));
        let own_service = own_service.transpose()?;
        let record = ContainerRecord {
            number: new.number,
            hash: new.definition.hash(),
            created: Timestamp::now(),
            address: self.free_address(&network)?,
            published: new.published,
            auto_remove: new.auto_remove,
            life: Life::new(),
            definition: new.definition,
            name: new.name,
        };
        let attempt = || format!("recording {}", record.name);
        let mut writes = vec![
            Table::<ContainerRecord>::write(&id, &record)
                .map_err(EngineError::failed(attempt()))?,
        ];
        if let Some(service) = &own_service {
            let key = ServiceRecord::key(&service.project, &service.name);
            let write = Table::<ServiceRecord>::write(&key, service);
            writes.push(write.map_err(EngineError::failed(attempt()))?);
        }
        self.records.commit(record.auto_remove, &writes).map_err(EngineError::failed(attempt()))?;
        let container = Container::from_record(id.clone(), record);
        let mut table = self.table.lock();
        if let Some(service) = own_service {
            let key = ServiceRecord::key(&service.project, &service.name);
            table.services.insert(key, service);
        }
        table.containers.insert(id, Arc::clone(&container));
        Ok(container)
    }

    /// A service for one container. It publishes nothing: ports lead to the container itself.
    fn own_service(
        &self,
        definition: &Definition,
        protocols: BTreeMap<u16, AppProtocol>,
    ) -> Result<ServiceRecord, EngineError> {
        Ok(ServiceRecord {
            project: definition.project.clone(),
            name: definition.service.clone(),
            vip: self.free_service_address()?,
            protocols,
            published: Vec::new(),
        })
    }

    /// Makes one container that no Compose file names.
    pub(crate) async fn run(self: &Arc<Self>, request: RunRequest) -> Result<Created, EngineError> {
        let project = request.project.clone().unwrap_or_else(|| DEFAULT_PROJECT.to_owned());
        let lock = self.project_lock(&project);
        let _held = lock.lock().await;
        let engine = Arc::clone(self);
        blocking(move || engine.run_held(&project, request)).await
    }

    fn run_held(&self, project: &str, request: RunRequest) -> Result<Created, EngineError> {
        let service = &request.service;
        check_label("project", project)?;
        check_label("service", &service.name)?;
        let name = request.name.clone().unwrap_or_else(|| service.name.clone());
        check_container_name(&name)?;
        self.check_service_is_free(project, &service.name)?;
        let facts = self.image_of(service, request.image.as_ref())?;
        let extras = Extras {
            terminal: request.terminal,
            interactive: request.interactive,
            hostname: request.hostname.clone(),
        };
        let volumes = named_volumes(&request);
        let definition =
            define(project, service, &facts, &volumes, &extras).map_err(EngineError::Plan)?;
        // The ports lead to this container alone, so its service has none of its own.
        let published = self.choose_ports(&service.ports, &[])?;
        let container = self.create(NewContainer {
            name,
            number: 0,
            definition,
            published,
            auto_remove: request.auto_remove,
            own_service: Some(service.protocols()),
        })?;
        self.publish();
        Ok(Created { id: container.id.clone(), name: container.name.clone(), warnings: Vec::new() })
    }

    /// A container by itself brings its own service, whose identity and name nobody else has.
    fn check_service_is_free(&self, project: &str, service: &str) -> Result<(), EngineError> {
        let key = ServiceRecord::key(project, service);
        let table = self.table.lock();
        let taken = table.services.contains_key(&key);
        let of = table.containers.values().find(|container| {
            container.definition.project == project && container.definition.service == service
        });
        match of {
            Some(other) => Err(EngineError::Conflict(format!(
                "project {project} has a service {service} already (container {}); choose another name",
                other.name
            ))),
            None if taken => Err(EngineError::Conflict(format!(
                "project {project} has a service {service} already; choose another name"
            ))),
            None => Ok(()),
        }
    }
}

/// The volumes a container by itself mounts: those it brings, and for the rest the one that is
/// called as it is mounted.
fn named_volumes(request: &RunRequest) -> IndexMap<String, Volume> {
    let mut volumes = request.volumes.clone();
    for mount in &request.service.mounts {
        if let MountKind::Volume { name: Some(name), .. } = &mount.kind {
            volumes.entry(name.clone()).or_insert_with(|| Volume {
                name: name.clone(),
                external: false,
                labels: IndexMap::new(),
            });
        }
    }
    volumes
}

/// Projects and services become parts of SPIFFE IDs and of DNS names.
fn check_label(what: &str, name: &str) -> Result<(), EngineError> {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    let starts = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if starts && name.len() <= 63 && name.bytes().all(plain) {
        return Ok(());
    }
    Err(EngineError::Invalid(format!(
        "`{name}` is no {what} name: at most 63 of a-z, 0-9, `-` and `_`, a letter or digit first"
    )))
}

fn check_container_name(name: &str) -> Result<(), EngineError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if starts && name.len() <= 128 && name.bytes().all(plain) {
        return Ok(());
    }
    Err(EngineError::Invalid(format!(
        "`{name}` is no container name: letters, digits, `_`, `.` and `-`, a letter or digit first"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_not_be_an_identity_is_refused() {
        for name in ["", "A", "a/b", "-a", "a b", "a.b", &"a".repeat(64)] {
            assert!(check_label("service", name).is_err(), "{name}");
        }
        assert!(check_label("service", "web-1_b").is_ok());
    }
}

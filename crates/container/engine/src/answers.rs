//! What the engine says of what it holds.

use std::collections::BTreeMap;

use carrack_objects::compose::MountKind;
use carrack_spiffe::SpiffeId;

use crate::api::{ContainerDetail, ContainerSummary, MountSummary, ProjectSummary};
use crate::container::Container;
use crate::engine::Engine;
use crate::record::{Phase, ServiceRecord};
use crate::volume::volume_of;

impl Engine {
    pub(crate) fn summaries(&self, all: bool, project: Option<&str>) -> Vec<ContainerSummary> {
        let shown = |container: &Container| {
            let over = container.phase().is_over();
            (all || !over) && project.is_none_or(|name| container.definition.project == name)
        };
        let list = self.containers();
        list.iter().filter(|c| shown(c)).map(|container| self.summary(container)).collect()
    }

    pub(crate) fn summary(&self, container: &Container) -> ContainerSummary {
        let definition = &container.definition;
        let key = ServiceRecord::key(&definition.project, &definition.service);
        let mut published = container.published.clone();
        if let Some(service) = self.table.lock().services.get(&key) {
            published.extend(service.published.iter().cloned());
        }
        let status = container.status();
        container.look(|state| ContainerSummary {
            id: container.id.clone(),
            name: container.name.clone(),
            project: definition.project.clone(),
            service: definition.service.clone(),
            image: definition.image_name.clone(),
            image_digest: definition.image.clone(),
            command: definition.command.clone(),
            status,
            health: state.health.as_ref().map(|health| health.state),
            exit: state.life.exit,
            created: container.created,
            started: state.life.started,
            restarts: state.life.restarts,
            losses: state.life.losses,
            address: state.life.phase.is_attached().then_some(container.address),
            published,
            exposed: definition.exposed.clone(),
            labels: definition.labels.clone(),
        })
    }

    pub(crate) fn detail(&self, container: &Container) -> ContainerDetail {
        let definition = &container.definition;
        let places = self.places(&container.id);
        let shim = container.shim();
        let state = shim.as_ref().and_then(|shim| shim.state().ok());
        let identity =
            SpiffeId::workload(&self.config.trust_domain, &definition.project, &definition.service);
        ContainerDetail {
            summary: self.summary(container),
            identity: identity.map(|id| id.to_string()).unwrap_or_default(),
            netns: places.netns,
            pid: state.and_then(|state| state.pid).and_then(|pid| u32::try_from(pid).ok()),
            shim_pid: shim.and_then(|shim| u32::try_from(shim.shim_pid()).ok()),
            log: places.log,
            bundle: places.bundle,
            mounts: definition
                .mounts
                .iter()
                .map(|mount| {
                    let (kind, source) = match &mount.kind {
                        MountKind::Bind { source, .. } => ("bind", source.display().to_string()),
                        MountKind::Tmpfs { .. } => ("tmpfs", String::new()),
                        MountKind::Volume { .. } => {
                            let name = volume_of(&container.id, &mount.target, &mount.kind);
                            ("volume", name.unwrap_or_default())
                        }
                    };
                    MountSummary {
                        kind: kind.to_owned(),
                        source,
                        target: mount.target.clone(),
                        read_only: mount.read_only,
                    }
                })
                .collect(),
            environment: definition.environment.clone(),
            user: definition.user.clone(),
            working_dir: definition.working_dir.clone(),
            restart_policy: definition.restart_words(),
            health_checks: container.look(|state| state.health.clone()),
            config_hash: container.hash.clone(),
            error: container.look(|state| state.life.error.clone()),
        }
    }

    pub(crate) fn projects(&self) -> Vec<ProjectSummary> {
        let mut projects: BTreeMap<String, ProjectSummary> = BTreeMap::new();
        for container in self.containers() {
            let definition = &container.definition;
            let project =
                projects.entry(definition.project.clone()).or_insert_with(|| ProjectSummary {
                    name: definition.project.clone(),
                    services: Vec::new(),
                    containers: 0,
                    running: 0,
                });
            project.containers += 1;
            if container.phase() == Phase::Running {
                project.running += 1;
            }
            if !project.services.contains(&definition.service) {
                project.services.push(definition.service.clone());
            }
        }
        projects.into_values().collect()
    }
}

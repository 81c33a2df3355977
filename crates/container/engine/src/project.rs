//! Carrying out a plan: bringing an application up, and down again.
//!
//! Services go side by side, each once what it waits for is there. What a plan says was decided
//! before; here it is only done, and told as it is done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carrack_objects::compose::Condition;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::api::{DownRequest, Event, HealthState, Stage, UpRequest};
use crate::container::{Container, Glance};
use crate::engine::{Engine, blocking};
use crate::error::EngineError;
use crate::plan::{
    After, ContainerPlan, Deed, Existing, Plan, ServicePlan, VolumePlan, Wish, plan,
};
use crate::record::{Phase, ServiceRecord, Wanted};
use crate::run::NewContainer;

/// Whom progress is told to. That nobody listens any more stops nothing.
pub(crate) type Progress = mpsc::Sender<Event>;

/// How far a service is, for those who wait for it.
#[derive(Clone, Debug)]
enum Reached {
    NotYet,
    /// Its containers were started; these they are.
    Started(Vec<Arc<Container>>),
    Failed,
}

impl Engine {
    /// Brings an application to what its file says.
    pub(crate) async fn up(
        self: &Arc<Self>,
        request: UpRequest,
        progress: &Progress,
    ) -> Result<(), EngineError> {
        let project = request.application.name.clone();
        let lock = self.project_lock(&project);
        let _held = lock.lock().await;
        let engine = Arc::clone(self);
        let shared = Arc::new(request);
        let asked = Arc::clone(&shared);
        let plan = blocking(move || engine.plan_up(&asked)).await?;
        tell(progress, Event::Planned { project: project.clone(), containers: plan.summary() })
            .await;
        for message in &plan.warnings {
            tell(progress, Event::Warning { message: message.clone() }).await;
        }
        self.prepare_project(&plan, progress).await?;
        for orphan in &plan.orphans {
            self.take_away(orphan, shared.stop_timeout, progress).await?;
        }
        self.carry_out(plan, &shared, progress).await?;
        let published = self.published(&project);
        tell(progress, Event::Done { published }).await;
        Ok(())
    }

    fn plan_up(&self, request: &UpRequest) -> Result<Plan, EngineError> {
        let services = request.application.services.values();
        let images = self.images_of(services, &request.images)?;
        let wish = Wish {
            application: &request.application,
            images: &images,
            services: &request.services,
            recreate: request.recreate,
            remove_orphans: request.remove_orphans,
            scale: &request.scale,
        };
        let containers = self.project_containers(&request.application.name);
        let exists: Vec<Existing> = containers
            .iter()
            .filter(|container| container.number > 0)
            .map(|container| Existing {
                id: container.id.clone(),
                name: container.name.clone(),
                service: container.definition.service.clone(),
                number: container.number,
                hash: container.hash.clone(),
            })
            .collect();
        plan(&wish, &exists).map_err(EngineError::Plan)
    }

    /// Makes what containers share: the network, the volumes, the services' addresses and ports.
    async fn prepare_project(
        self: &Arc<Self>,
        plan: &Plan,
        progress: &Progress,
    ) -> Result<(), EngineError> {
        let project = plan.project.clone();
        let engine = Arc::clone(self);
        let volumes = plan.volumes.clone();
        let services: Vec<_> = plan
            .services
            .iter()
            .map(|s| (s.service.clone(), s.ports.clone(), s.protocols.clone()))
            .collect();
        let events = blocking(move || {
            let mut events = Vec::new();
            let (_, new) = engine.project_network(&project)?;
            if new {
                events.push(Event::NetworkCreated { name: project.clone() });
            }
            for (name, volume) in volumes {
                if engine.prepare_volume(&name, &project, volume)? {
                    events.push(Event::VolumeCreated { name });
                }
            }
            for (name, ports, protocols) in services {
                engine.ensure_service(&project, &name, &ports, &protocols)?;
            }
            Ok(events)
        })
        .await?;
        for event in events {
            tell(progress, event).await;
        }
        self.publish();
        Ok(())
    }

    fn prepare_volume(
        &self,
        name: &str,
        project: &str,
        volume: VolumePlan,
    ) -> Result<bool, EngineError> {
        if volume.external {
            return if self.has_volume(name) {
                Ok(false)
            } else {
                Err(EngineError::Conflict(format!(
                    "the volume {name} is external and does not exist; make it first"
                )))
            };
        }
        self.ensure_volume(name, project, volume.labels, None)
    }

    async fn carry_out(
        self: &Arc<Self>,
        plan: Plan,
        request: &Arc<UpRequest>,
        progress: &Progress,
    ) -> Result<(), EngineError> {
        let reached: BTreeMap<String, watch::Sender<Reached>> = plan
            .services
            .iter()
            .map(|service| (service.service.clone(), watch::Sender::new(Reached::NotYet)))
            .collect();
        let reached = Arc::new(reached);
        let mut tasks = JoinSet::new();
        for service in plan.services {
            let engine = Arc::clone(self);
            let reached = Arc::clone(&reached);
            let request = Arc::clone(request);
            let progress = progress.clone();
            tasks.spawn(async move {
                let result = engine.bring_service(&service, &reached, &request, &progress).await;
                let seen = match &result {
                    Ok(containers) => Reached::Started(containers.clone()),
                    Err(_) => Reached::Failed,
                };
                if let Some(sender) = reached.get(&service.service) {
                    sender.send_replace(seen);
                }
                result.map(|_| ())
            });
        }
        // Everything ends, one way or another, before the first failure is told: nobody is left
        // working on a project that somebody else may change next.
        let mut first = Ok(());
        while let Some(joined) = tasks.join_next().await {
            let result = joined
                .map_err(EngineError::failed("bringing a service up"))
                .and_then(std::convert::identity);
            if first.is_ok() || matches!(&first, Err(error) if is_consequence(error)) {
                first = match result {
                    Err(error) => Err(error),
                    Ok(()) => first,
                };
            }
        }
        first
    }

    async fn bring_service(
        self: &Arc<Self>,
        service: &ServicePlan,
        reached: &BTreeMap<String, watch::Sender<Reached>>,
        request: &UpRequest,
        progress: &Progress,
    ) -> Result<Vec<Arc<Container>>, EngineError> {
        for excess in &service.excess {
            self.take_away(excess, request.stop_timeout, progress).await?;
        }
        if !request.no_start {
            self.await_dependencies(service, reached, progress).await?;
        }
        let brought = service
            .containers
            .iter()
            .map(|container| self.bring_container(container, request, progress));
        let containers = futures_util::future::try_join_all(brought).await?;
        if request.wait && !request.no_start {
            for container in &containers {
                let condition = if container.definition.health.is_some() {
                    Condition::Healthy
                } else {
                    Condition::Started
                };
                reach(container, condition, progress).await?;
            }
        }
        Ok(containers)
    }

    async fn await_dependencies(
        self: &Arc<Self>,
        service: &ServicePlan,
        reached: &BTreeMap<String, watch::Sender<Reached>>,
        progress: &Progress,
    ) -> Result<(), EngineError> {
        for after in &service.after {
            if service.containers.iter().any(|c| !matches!(c.deed, Deed::Keep(_))) {
                for container in &service.containers {
                    let detail = Some(format!("for {}", after.service));
                    stage(progress, &container.name, Stage::Waiting, detail).await;
                }
            }
            match await_service(after, reached, progress).await {
                Ok(()) => {}
                Err(error) if after.required => {
                    let why =
                        format!("starting {}: what it depends on is not there", service.service);
                    return Err(EngineError::failed(why)(error));
                }
                Err(error) => {
                    let message = format!(
                        "{} is not there for {}, which starts without it: {error}",
                        after.service, service.service
                    );
                    tell(progress, Event::Warning { message }).await;
                }
            }
        }
        Ok(())
    }

    async fn bring_container(
        self: &Arc<Self>,
        planned: &ContainerPlan,
        request: &UpRequest,
        progress: &Progress,
    ) -> Result<Arc<Container>, EngineError> {
        let name = &planned.name;
        let container = match &planned.deed {
            Deed::Keep(existing) => self.find(&existing.id)?,
            Deed::Restart(existing) => {
                let container = self.find(&existing.id)?;
                stage(progress, name, Stage::Stopping, None).await;
                self.stop(&container, request.stop_timeout).await?;
                container
            }
            Deed::Recreate(existing) => {
                self.take_away(existing, request.stop_timeout, progress).await?;
                self.make(planned, progress).await?
            }
            Deed::Create => self.make(planned, progress).await?,
        };
        if request.no_start {
            return Ok(container);
        }
        let again = matches!(planned.deed, Deed::Keep(_));
        // One that did its job need not do it again only because `up` was said again.
        let runs = container.look(|state| {
            matches!(state.life.phase, Phase::Running | Phase::Restarting)
                && state.life.wanted == Wanted::Running
        });
        if again && (runs || completed(&container)) {
            stage(progress, name, Stage::Kept, None).await;
            return Ok(container);
        }
        stage(progress, name, Stage::Starting, None).await;
        self.start(&container).await?;
        stage(progress, name, Stage::Started, None).await;
        Ok(container)
    }

    async fn make(
        self: &Arc<Self>,
        planned: &ContainerPlan,
        progress: &Progress,
    ) -> Result<Arc<Container>, EngineError> {
        stage(progress, &planned.name, Stage::Creating, None).await;
        let engine = Arc::clone(self);
        let new = NewContainer {
            name: planned.name.clone(),
            number: planned.number,
            definition: planned.definition.clone(),
            published: Vec::new(),
            auto_remove: false,
            own_service: None,
        };
        let container = blocking(move || engine.create(new)).await?;
        stage(progress, &planned.name, Stage::Created, None).await;
        Ok(container)
    }

    /// Stops and removes a container, and the volumes that belong to it alone.
    async fn take_away(
        self: &Arc<Self>,
        existing: &Existing,
        grace: Option<Duration>,
        progress: &Progress,
    ) -> Result<(), EngineError> {
        let container = match self.find(&existing.id) {
            Ok(container) => container,
            Err(EngineError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.take_container_away(&container, grace, progress).await
    }

    async fn take_container_away(
        self: &Arc<Self>,
        container: &Arc<Container>,
        grace: Option<Duration>,
        progress: &Progress,
    ) -> Result<(), EngineError> {
        let name = &container.name;
        if !container.phase().is_over() {
            stage(progress, name, Stage::Stopping, None).await;
            self.stop(container, grace).await?;
            stage(progress, name, Stage::Stopped, None).await;
        }
        stage(progress, name, Stage::Removing, None).await;
        self.remove(container, true).await?;
        stage(progress, name, Stage::Removed, None).await;
        Ok(())
    }

    /// Stops and removes a project: dependents before what they depend on.
    pub(crate) async fn down(
        self: &Arc<Self>,
        project: &str,
        request: DownRequest,
        progress: &Progress,
    ) -> Result<(), EngineError> {
        let lock = self.project_lock(project);
        let _held = lock.lock().await;
        let chosen = |container: &Arc<Container>| {
            request.services.is_empty() || request.services.contains(&container.definition.service)
        };
        let mut left = self.project_containers(project);
        left.retain(chosen);
        while !left.is_empty() {
            let (now, later) = next_to_stop(left);
            let taken = now.iter().map(|container| {
                self.take_container_away(container, request.stop_timeout, progress)
            });
            futures_util::future::try_join_all(taken).await?;
            left = later;
        }
        if request.services.is_empty() {
            self.forget_project(project, request.volumes, progress).await?;
        }
        self.publish();
        tell(progress, Event::Done { published: BTreeMap::new() }).await;
        Ok(())
    }

    async fn forget_project(
        self: &Arc<Self>,
        project: &str,
        volumes: bool,
        progress: &Progress,
    ) -> Result<(), EngineError> {
        let engine = Arc::clone(self);
        let name = project.to_owned();
        let events = blocking(move || {
            let mut events = Vec::new();
            let services: Vec<String> = {
                let table = engine.table.lock();
                let mine = table.services.values().filter(|service| service.project == name);
                mine.map(|service| ServiceRecord::key(&service.project, &service.name)).collect()
            };
            for key in services {
                engine.remove_service(&key)?;
            }
            if engine.remove_network(&name)? {
                events.push(Event::NetworkRemoved { name: name.clone() });
            }
            if volumes {
                let all = engine.volumes();
                for volume in all.into_iter().filter(|volume| volume.project == name) {
                    engine.remove_volume(&volume.name)?;
                    events.push(Event::VolumeRemoved { name: volume.name });
                }
            }
            Ok(events)
        })
        .await?;
        for event in events {
            tell(progress, event).await;
        }
        Ok(())
    }

    fn published(&self, project: &str) -> BTreeMap<String, Vec<carrack_objects::mesh::Published>> {
        let table = self.table.lock();
        let mine = table.services.values().filter(|s| s.project == project);
        mine.filter(|service| !service.published.is_empty())
            .map(|service| (service.name.clone(), service.published.clone()))
            .collect()
    }
}

/// Whether an error only says that another service failed, which says why itself.
fn is_consequence(error: &EngineError) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.to_string() == OTHER_FAILED {
            return true;
        }
        source = cause.source();
    }
    false
}

const OTHER_FAILED: &str = "it could not be started";

/// Those of `left` that nothing else of `left` depends on, and the others. In a circle, all.
fn next_to_stop(left: Vec<Arc<Container>>) -> (Vec<Arc<Container>>, Vec<Arc<Container>>) {
    let needed = |service: &str| {
        left.iter().any(|other| {
            other.definition.service != service && other.definition.depends_on.contains_key(service)
        })
    };
    let flags: Vec<bool> = left.iter().map(|c| !needed(&c.definition.service)).collect();
    if !flags.contains(&true) {
        return (left, Vec::new());
    }
    let mut now = Vec::new();
    let mut later = Vec::new();
    for (container, free) in left.into_iter().zip(flags) {
        if free { now.push(container) } else { later.push(container) }
    }
    (now, later)
}

fn completed(container: &Container) -> bool {
    container.look(|state| {
        state.life.phase == Phase::Exited
            && state.life.exit.is_some_and(|exit| exit.code == 0)
            && state.life.wanted == Wanted::Running
    })
}

/// Waits until a service is as far as another needs it.
async fn await_service(
    after: &After,
    reached: &BTreeMap<String, watch::Sender<Reached>>,
    progress: &Progress,
) -> Result<(), EngineError> {
    let Some(sender) = reached.get(&after.service) else { return Ok(()) };
    let mut watch = sender.subscribe();
    let seen = watch.wait_for(|reached| !matches!(reached, Reached::NotYet)).await;
    let containers = match seen.map(|seen| seen.clone()) {
        Ok(Reached::Started(containers)) => containers,
        Ok(Reached::Failed | Reached::NotYet) | Err(_) => {
            return Err(EngineError::failed(format!("waiting for {}", after.service))(
                OTHER_FAILED,
            ));
        }
    };
    for container in &containers {
        reach(container, after.condition, progress).await?;
    }
    Ok(())
}

/// Waits until a container is as far as the condition says, or never will be.
async fn reach(
    container: &Container,
    condition: Condition,
    progress: &Progress,
) -> Result<(), EngineError> {
    let mut watch = container.watch();
    let decided = |glance: &Glance| judge(glance, condition).is_some();
    let verdict = watch.wait_for(decided).await.ok().and_then(|glance| judge(&glance, condition));
    match verdict {
        Some(Ok(())) => {
            match condition {
                Condition::Healthy => stage(progress, &container.name, Stage::Healthy, None).await,
                Condition::CompletedSuccessfully => {
                    stage(progress, &container.name, Stage::Completed, None).await;
                }
                Condition::Started => {}
            }
            Ok(())
        }
        Some(Err(why)) => {
            let detail = container
                .look(|state| state.health.as_ref().map(|health| health.last_output.clone()))
                .filter(|output| !output.trim().is_empty() && condition == Condition::Healthy)
                .map(|output| format!("; its last check said: {}", output.trim()))
                .unwrap_or_default();
            Err(EngineError::Conflict(format!("{} {why}{detail}", container.name)))
        }
        None => Err(EngineError::Conflict(format!("{} is gone", container.name))),
    }
}

/// Whether a condition is met, or can no longer be; none while it is open.
fn judge(glance: &Glance, condition: Condition) -> Option<Result<(), String>> {
    if glance.gone {
        return Some(Err("was removed".to_owned()));
    }
    let ended = glance.phase.is_over() && glance.phase != Phase::Created;
    let code = glance.exit.map_or(-1, |exit| exit.code);
    match condition {
        Condition::Started => match glance.phase {
            Phase::Running | Phase::Restarting => Some(Ok(())),
            _ if ended => Some(Ok(())),
            _ => None,
        },
        Condition::Healthy => match (glance.phase, glance.health) {
            (Phase::Running, Some(HealthState::Healthy)) => Some(Ok(())),
            (Phase::Running, Some(HealthState::Unhealthy)) => Some(Err("is unhealthy".to_owned())),
            _ if ended => Some(Err(format!("ended with exit code {code} before it was healthy"))),
            _ => None,
        },
        Condition::CompletedSuccessfully => {
            if !ended {
                None
            } else if glance.phase == Phase::Exited && code == 0 {
                Some(Ok(()))
            } else if glance.phase == Phase::Lost {
                Some(Err("is lost: the process that held it was killed".to_owned()))
            } else {
                Some(Err(format!("ended with exit code {code}")))
            }
        }
    }
}

async fn stage(progress: &Progress, name: &str, stage: Stage, detail: Option<String>) {
    tell(progress, Event::Container { name: name.to_owned(), stage, detail }).await;
}

async fn tell(progress: &Progress, event: Event) {
    // Whoever asked may have left; what was begun is finished all the same.
    progress.send(event).await.ok();
}

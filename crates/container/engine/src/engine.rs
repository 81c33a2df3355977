//! The engine itself: what it holds, how it is opened and closed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use carrack_content::Images;
use carrack_objects::mesh::{Service, Workload};
use carrack_rootfs::{Layers, Rootfs};
use carrack_store::Table;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Version;
use crate::config::{EngineConfig, Gate};
use crate::container::{Container, Places};
use crate::error::EngineError;
use crate::network::Networks;
use crate::record::{ContainerRecord, Records, ServiceRecord, VolumeRecord};

/// Containers, their networks and volumes, and whoever asks about them.
///
/// There is one per `root` and `run`. It owns nothing that a container needs to live: it may be
/// dropped, closed or killed at any point, and the next one opened takes over what runs.
pub struct Engine {
    pub(crate) config: EngineConfig,
    pub(crate) gate: Arc<dyn Gate>,
    pub(crate) images: Images,
    pub(crate) layers: Layers,
    pub(crate) rootfs: Rootfs,
    pub(crate) records: Records,
    pub(crate) networks: Networks,
    pub(crate) table: Mutex<Tables>,
    pub(crate) workloads: watch::Sender<Arc<Vec<Workload>>>,
    pub(crate) services: watch::Sender<Arc<Vec<Service>>>,
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the engine closes. Containers live on.
    pub(crate) closing: CancellationToken,
    started: Timestamp,
}

/// What exists, as the records have it. Written only after the record is.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(crate) containers: BTreeMap<String, Arc<Container>>,
    pub(crate) services: BTreeMap<String, ServiceRecord>,
    pub(crate) volumes: BTreeMap<String, VolumeRecord>,
    /// One change at a time to what a project is made of.
    pub(crate) projects: BTreeMap<String, Arc<tokio::sync::Mutex<()>>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens the engine of `config` and takes over what runs.
    ///
    /// On return every container that runs is held again, and [`workloads`](Self::workloads) and
    /// [`services`](Self::services) list what there is; what has to be started, stopped or
    /// finished is under way. Must be called within a tokio runtime, where that goes on.
    ///
    /// # Errors
    ///
    /// When directories or records cannot be opened. A container that cannot be taken over is
    /// no error here: it is reported as lost.
    pub fn open(config: EngineConfig, gate: Arc<dyn Gate>) -> Result<Arc<Self>, EngineError> {
        let store = config.root.join("store");
        let layers = config.root.join("rootfs").join("layers");
        let engine = config.root.join("engine");
        for directory in [&store, &layers, &engine, &config.root.join("containers")] {
            private_directory(directory)?;
        }
        for name in ["containers", "netns", "runtime"] {
            private_directory(&config.run.join(name))?;
        }
        let opening = |what: &str| format!("opening the {what} in {}", config.root.display());
        let images = Images::open(&store).map_err(EngineError::failed(opening("images")))?;
        let layers = Layers::open(&layers, Arc::clone(images.blobs()))
            .map_err(EngineError::failed(opening("layers")))?;
        let rootfs = Rootfs::open(config.root.join("rootfs").join("containers"))
            .map_err(EngineError::failed(opening("root filesystems")))?;
        let records = Records::open(engine.join("records.db"))
            .map_err(EngineError::failed(opening("records")))?;
        let engine = Arc::new(Self {
            rootfs,
            records,
            networks: Networks::new(&config),
            config,
            gate,
            images,
            layers,
            table: Mutex::new(Tables::default()),
            workloads: watch::Sender::new(Arc::default()),
            services: watch::Sender::new(Arc::default()),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            started: Timestamp::now(),
        });
        engine.take_over()?;
        Ok(engine)
    }

    /// The containers of the mesh, whenever they change.
    pub fn workloads(&self) -> watch::Receiver<Arc<Vec<Workload>>> {
        self.workloads.subscribe()
    }

    /// The services of the mesh, whenever they change.
    pub fn services(&self) -> watch::Receiver<Arc<Vec<Service>>> {
        self.services.subscribe()
    }

    /// Which engine this is.
    pub fn version(&self) -> Version {
        Version {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api: crate::api::API_VERSION,
            trust_domain: self.config.trust_domain.to_string(),
            pid: std::process::id(),
            started: self.started,
        }
    }

    /// Lets go of everything. Containers live on; another engine may be opened.
    ///
    /// Returns once nothing of this engine acts any more.
    pub async fn close(&self) {
        self.closing.cancel();
        self.networks.close().await;
        self.tasks.close();
        self.tasks.wait().await;
    }

    pub(crate) fn places(&self, id: &str) -> Places {
        Places::of(&self.config, id)
    }

    /// The containers there are, by project, service and number.
    pub(crate) fn containers(&self) -> Vec<Arc<Container>> {
        let mut list: Vec<_> = self.table.lock().containers.values().cloned().collect();
        list.sort_by(|a, b| {
            let key = |c: &Container| {
                (c.definition.project.clone(), c.definition.service.clone(), c.number)
            };
            key(a).cmp(&key(b))
        });
        list
    }

    pub(crate) fn project_containers(&self, project: &str) -> Vec<Arc<Container>> {
        let mut list = self.containers();
        list.retain(|container| container.definition.project == project);
        list
    }

    /// Finds a container by its name, its id or the beginning of its id.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<Container>, EngineError> {
        let table = self.table.lock();
        if let Some(found) = table.containers.get(name) {
            return Ok(Arc::clone(found));
        }
        if let Some(found) = table.containers.values().find(|container| container.name == name) {
            return Ok(Arc::clone(found));
        }
        let mut matches = table.containers.values().filter(|c| {
            name.len() >= 2 && name.bytes().all(|b| b.is_ascii_hexdigit()) && c.id.starts_with(name)
        });
        match (matches.next(), matches.next()) {
            (Some(found), None) => Ok(Arc::clone(found)),
            (Some(_), Some(_)) => Err(EngineError::Invalid(format!(
                "more than one container's id begins with {name}; give more of it"
            ))),
            (None, _) => Err(EngineError::NotFound { kind: "container", name: name.to_owned() }),
        }
    }

    /// The lock that whoever changes what a project is made of holds.
    pub(crate) fn project_lock(&self, project: &str) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.table.lock().projects.entry(project.to_owned()).or_default())
    }

    /// Writes a container's record.
    pub(crate) fn save(&self, container: &Container) -> Result<(), EngineError> {
        // What is read last is written last.
        let _saving = container.saving.lock();
        let attempt = || format!("recording {}", container.name);
        let put = Table::<ContainerRecord>::write(&container.id, &container.record())
            .map_err(EngineError::failed(attempt()))?;
        self.records.commit(container.auto_remove, &[put]).map_err(EngineError::failed(attempt()))
    }
}

/// Makes a directory that only root can look into, if it is not there.
pub(crate) fn private_directory(path: &Path) -> Result<(), EngineError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(EngineError::failed(format!("making the directory {}", path.display())))
}

/// Runs what blocks on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panicked) => Err(EngineError::failed("running a step of the engine")(panicked)),
    }
}

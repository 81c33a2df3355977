//! A container as the engine holds it: what never changes, and its life.

use std::path::PathBuf;
use std::sync::Arc;

use carrack_objects::mesh::Published;
use carrack_shim::Client;
use jiff::Timestamp;
use parking_lot::Mutex;
use std::net::Ipv4Addr;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::{Exit, Health, HealthState, Status};
use crate::config::EngineConfig;
use crate::definition::Definition;
use crate::record::{ContainerRecord, Life, Phase, Wanted};

/// A container. Shared by everyone who has to do with it.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) number: u32,
    pub(crate) definition: Definition,
    pub(crate) hash: String,
    pub(crate) created: Timestamp,
    pub(crate) address: Ipv4Addr,
    pub(crate) published: Vec<Published>,
    pub(crate) auto_remove: bool,
    /// Held while it is started, stopped or removed: one at a time.
    pub(crate) operation: tokio::sync::Mutex<()>,
    /// Held while its record is written.
    pub(crate) saving: Mutex<()>,
    state: Mutex<State>,
    seen: watch::Sender<Glance>,
}

/// What changes about a container.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) life: Life,
    pub(crate) paused: bool,
    pub(crate) health: Option<Health>,
    /// The process that holds it, while it runs.
    pub(crate) shim: Option<Client>,
    /// Ends what watches over the present run.
    pub(crate) run: CancellationToken,
}

/// What those who wait for a container look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Glance {
    pub(crate) phase: Phase,
    pub(crate) wanted: Wanted,
    pub(crate) exit: Option<Exit>,
    pub(crate) health: Option<HealthState>,
    pub(crate) started: Option<Timestamp>,
    /// It no longer exists.
    pub(crate) gone: bool,
}

impl Container {
    pub(crate) fn from_record(id: String, record: ContainerRecord) -> Arc<Self> {
        let glance = Glance {
            phase: record.life.phase,
            wanted: record.life.wanted,
            exit: record.life.exit,
            health: None,
            started: record.life.started,
            gone: false,
        };
        Arc::new(Self {
            id,
            name: record.name,
            number: record.number,
            definition: record.definition,
            hash: record.hash,
            created: record.created,
            address: record.address,
            published: record.published,
            auto_remove: record.auto_remove,
            operation: tokio::sync::Mutex::new(()),
            saving: Mutex::new(()),
            state: Mutex::new(State {
                life: record.life,
                paused: false,
                health: None,
                shim: None,
                run: CancellationToken::new(),
            }),
            seen: watch::Sender::new(glance),
        })
    }

    pub(crate) fn record(&self) -> ContainerRecord {
        ContainerRecord {
            name: self.name.clone(),
            number: self.number,
            definition: self.definition.clone(),
            hash: self.hash.clone(),
            created: self.created,
            address: self.address,
            published: self.published.clone(),
            auto_remove: self.auto_remove,
            life: self.state.lock().life.clone(),
        }
    }

    /// Reads the state.
    pub(crate) fn look<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.lock())
    }

    /// Changes the state and lets those who wait see it.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let answer = change(&mut state);
        let glance = Glance {
            phase: state.life.phase,
            wanted: state.life.wanted,
            exit: state.life.exit,
            health: state.health.as_ref().map(|health| health.state),
            started: state.life.started,
            gone: self.seen.borrow().gone,
        };
        self.seen.send_if_modified(|old| std::mem::replace(old, glance) != glance);
        answer
    }

    /// Tells those who wait that it is no more.
    pub(crate) fn vanish(&self) {
        self.seen.send_modify(|glance| glance.gone = true);
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Glance> {
        self.seen.subscribe()
    }

    pub(crate) fn phase(&self) -> Phase {
        self.look(|state| state.life.phase)
    }

    pub(crate) fn shim(&self) -> Option<Client> {
        self.look(|state| state.shim.clone())
    }

    /// Runs, and is healthy if there is a way to tell.
    pub(crate) fn is_ready(&self) -> bool {
        self.look(|state| {
            state.life.phase == Phase::Running
                && state.shim.is_some()
                && !state.paused
                && match (&self.definition.health, &state.health) {
                    (None, _) => true,
                    (Some(_), health) => {
                        health.as_ref().is_some_and(|h| h.state == HealthState::Healthy)
                    }
                }
        })
    }

    pub(crate) fn status(&self) -> Status {
        self.look(|state| match (state.life.phase, state.life.wanted) {
            (Phase::Created, _) => Status::Created,
            (Phase::Starting, _) => Status::Starting,
            (Phase::Running, Wanted::Stopped) => Status::Stopping,
            (Phase::Running, _) if state.shim.is_none() => Status::Stopping,
            (Phase::Running, Wanted::Running) if state.paused => Status::Paused,
            (Phase::Running, Wanted::Running) => Status::Running,
            (Phase::Restarting, _) => Status::Restarting,
            (Phase::Exited, _) => Status::Exited,
            (Phase::Lost, _) => Status::Lost,
            (Phase::Removing, _) => Status::Removing,
        })
    }

    /// The first twelve digits of its id.
    pub(crate) fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// Its host name.
    pub(crate) fn hostname(&self) -> &str {
        self.definition.hostname.as_deref().unwrap_or_else(|| self.short_id())
    }
}

/// Where the things of one container are.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// What outlives a boot: its log.
    pub(crate) keep: PathBuf,
    /// What does not: the bundle, its own `/etc` files and the shim's directory.
    pub(crate) bundle: PathBuf,
    /// Where its root filesystem is mounted.
    pub(crate) rootfs: PathBuf,
    /// Its network namespace.
    pub(crate) netns: PathBuf,
    /// Where the runtime keeps its state.
    pub(crate) runtime: PathBuf,
    /// Its log.
    pub(crate) log: PathBuf,
    /// Its cgroup.
    pub(crate) cgroup: PathBuf,
}

impl Places {
    pub(crate) fn of(config: &EngineConfig, id: &str) -> Self {
        let keep = config.root.join("containers").join(id);
        let bundle = config.run.join("containers").join(id);
        Self {
            log: keep.join("log"),
            keep,
            rootfs: bundle.join("rootfs"),
            bundle,
            netns: config.run.join("netns").join(id),
            runtime: config.run.join("runtime"),
            cgroup: PathBuf::from(&config.cgroup).join(id),
        }
    }
}

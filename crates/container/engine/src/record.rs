//! What the engine remembers across its own death.
//!
//! Every intent is written here before it has an effect, so that whoever opens the engine next
//! knows what may be half done. See `takeover`.
//!
//! All of it is on the disk before it has an effect, but for one sort: what happens to a
//! container that removes itself. Those commits survive any process, which is what taking over
//! needs. A power loss may take the last of them, and it takes the container, too: what runs
//! ends, `/run` is empty, and whichever record is still there leads to its removal or speaks of
//! a container that was never started.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use carrack_objects::mesh::{AppProtocol, Published};
use carrack_store::{LocalRecords, Record, RecordError, RecordStore, Table, TableError, Write};
use ipnet::Ipv4Net;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::{Exit, Fault, HealthState};
use crate::definition::Definition;

/// The engine's tables.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    pub(crate) containers: Table<ContainerRecord>,
    pub(crate) networks: Table<NetworkRecord>,
    pub(crate) services: Table<ServiceRecord>,
    pub(crate) volumes: Table<VolumeRecord>,
    synced: Arc<LocalRecords>,
    unsynced: Arc<LocalRecords>,
}

impl Records {
    pub(crate) fn open(file: PathBuf) -> Result<Self, RecordError> {
        let synced = Arc::new(LocalRecords::open(file)?);
        let store = || Arc::clone(&synced) as Arc<dyn RecordStore>;
        Ok(Self {
            containers: Table::new(store()),
            networks: Table::new(store()),
            services: Table::new(store()),
            volumes: Table::new(store()),
            unsynced: Arc::new(synced.unsynced()),
            synced,
        })
    }

    /// Commits what happens to a container and whatever comes and goes with it, as safely as
    /// the container is worth; see above.
    pub(crate) fn commit(&self, auto_remove: bool, writes: &[Write]) -> Result<(), TableError> {
        let store = if auto_remove { &self.unsynced } else { &self.synced };
        store.commit(&[], writes)?;
        Ok(())
    }
}

/// A container, by its id.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) name: String,
    pub(crate) number: u32,
    pub(crate) definition: Definition,
    pub(crate) hash: String,
    pub(crate) created: Timestamp,
    pub(crate) address: Ipv4Addr,
    /// Host ports that lead to it alone.
    pub(crate) published: Vec<Published>,
    pub(crate) auto_remove: bool,
    pub(crate) life: Life,
}

/// What changes about a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Life {
    /// What a person wants of it.
    pub(crate) wanted: Wanted,
    pub(crate) phase: Phase,
    pub(crate) started: Option<Timestamp>,
    pub(crate) exit: Option<Exit>,
    /// How often its policy started it again since a person started it.
    pub(crate) restarts: u32,
    /// As `restarts`, but since its last good run.
    #[serde(default)]
    pub(crate) streak: u32,
    /// How well it was when that last changed, so that whoever takes it over need not find it
    /// unwell first.
    #[serde(default)]
    pub(crate) health: Option<HealthState>,
    /// How often the process that held it was killed.
    pub(crate) losses: u32,
    pub(crate) error: Option<Fault>,
}

impl Life {
    pub(crate) fn new() -> Self {
        Self {
            wanted: Wanted::Stopped,
            phase: Phase::Created,
            started: None,
            exit: None,
            restarts: 0,
            streak: 0,
            health: None,
            losses: 0,
            error: None,
        }
    }

    /// A person starts it: what its policy did before no longer counts.
    pub(crate) fn forget_restarts(&mut self) {
        self.restarts = 0;
        self.streak = 0;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Wanted {
    Running,
    Stopped,
}

/// How far a container is. Written before what it says begins to come true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    Created,
    /// Any part of what it takes to run may exist.
    Starting,
    Running,
    /// It ended; its network and root filesystem stay for the next start.
    Restarting,
    /// It ended; nothing of it is left but its files and its address.
    Exited,
    /// As `Exited`, but how it ended is not known.
    Lost,
    /// Any part of it may be gone.
    Removing,
}

impl Phase {
    /// Whether it has a network namespace and so is part of the mesh.
    pub(crate) fn is_attached(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Restarting)
    }

    /// Whether nothing of it runs or will run by itself.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Created | Self::Exited | Self::Lost)
    }
}

impl Record for ContainerRecord {
    const TABLE: &'static str = "containers";
    const VERSION: u32 = 1;
}

/// A project's network, by the project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkRecord {
    pub(crate) bridge: String,
    pub(crate) subnet: Ipv4Net,
    pub(crate) gateway: Ipv4Addr,
}

impl Record for NetworkRecord {
    const TABLE: &'static str = "networks";
    const VERSION: u32 = 1;
}

/// A service, by project and name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServiceRecord {
    pub(crate) project: String,
    pub(crate) name: String,
    pub(crate) vip: Ipv4Addr,
    pub(crate) protocols: BTreeMap<u16, AppProtocol>,
    pub(crate) published: Vec<Published>,
}

impl ServiceRecord {
    pub(crate) fn key(project: &str, name: &str) -> String {
        format!("{project}/{name}")
    }
}

impl Record for ServiceRecord {
    const TABLE: &'static str = "services";
    const VERSION: u32 = 1;
}

/// A volume, by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VolumeRecord {
    pub(crate) project: String,
    pub(crate) created: Timestamp,
    pub(crate) labels: BTreeMap<String, String>,
    /// The container it goes with, if it belongs to one alone.
    pub(crate) owner: Option<String>,
    /// Whether what the image has in its place was copied into it, or need not be.
    pub(crate) filled: bool,
}

impl Record for VolumeRecord {
    const TABLE: &'static str = "volumes";
    const VERSION: u32 = 1;
}

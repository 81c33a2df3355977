//! Everything a container is, decided.
//!
//! A definition is what a plan arrives at and what a record keeps: whatever a Compose service, an
//! image and a default have to say about a container has been weighed, and nothing is left to
//! choose. Two definitions with the same [`hash`](Definition::hash) make the same container.

use std::collections::BTreeMap;
use std::time::Duration;

use carrack_objects::compose::{Dependency, MountKind, Port, Restart};
use carrack_objects::mesh::AppProtocol;
use carrack_oci::Digest;
use serde::{Deserialize, Serialize};

/// Everything a container is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// The project it belongs to.
    pub project: String,
    /// The service it is a replica of.
    pub service: String,
    /// Its image as it was named.
    pub image_name: String,
    /// Its image.
    pub image: Digest,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Variables it is given.
    pub environment: BTreeMap<String, String>,
    /// Where it starts.
    pub working_dir: String,
    /// As whom; empty is root.
    pub user: String,
    /// Its host name; its short id when absent.
    pub hostname: Option<String>,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether its standard input stays open.
    pub interactive: bool,
    /// Whether its root filesystem is read-only.
    pub read_only: bool,
    /// What is mounted in it.
    pub mounts: Vec<MountDefinition>,
    /// Capabilities added to the default set.
    pub cap_add: Vec<String>,
    /// Capabilities taken from the default set.
    pub cap_drop: Vec<String>,
    /// Whether every system call is allowed.
    pub seccomp_unconfined: bool,
    /// Whether set-user-id programs gain nothing.
    pub no_new_privileges: bool,
    /// Bytes of memory it may use.
    pub memory_bytes: Option<u64>,
    /// Billionths of a processor it may use.
    pub nano_cpus: Option<u64>,
    /// Processes and threads it may have.
    pub pids: Option<u32>,
    /// How it is found out whether it is well.
    pub health: Option<HealthDefinition>,
    /// What happens when it ends.
    pub restart: Restart,
    /// The signal that asks it to stop.
    pub stop_signal: i32,
    /// How long it may take to stop.
    pub stop_grace: Duration,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether a small init is its process 1.
    pub init: bool,
    /// Host ports asked for.
    pub ports: Vec<Port>,
    /// Ports it says it listens on.
    pub exposed: Vec<u16>,
    /// Protocols declared for its ports.
    pub protocols: BTreeMap<u16, AppProtocol>,
    /// What it depends on, by service.
    pub depends_on: BTreeMap<String, Dependency>,
}

/// Something mounted in a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MountDefinition {
    /// Where in the container.
    pub target: String,
    /// Whether it is read-only.
    pub read_only: bool,
    /// What. A volume's name is the one it has on the host.
    pub kind: MountKind,
}

/// How it is found out whether a container is well. Nothing left to default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthDefinition {
    /// The check's program and arguments.
    pub command: Vec<String>,
    /// Time between two checks.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// Failures in a row that make it unhealthy.
    pub retries: u32,
    /// Time after the start in which failures do not count.
    pub start_period: Duration,
    /// Time between two checks in the start period.
    pub start_interval: Duration,
}

impl Definition {
    /// What it hashes to: equal for containers that are alike in everything.
    ///
    /// Host ports count as they were asked for, so that one chosen by the engine does not make
    /// the next `up` see a change.
    pub fn hash(&self) -> String {
        // Every map in it is sorted, so equal definitions are equal bytes.
        let json = serde_json::to_vec(self).unwrap_or_default();
        Digest::of(json).hex().to_owned()
    }

    /// The restart policy in Docker's words.
    pub fn restart_words(&self) -> String {
        match self.restart {
            Restart::No => "no".to_owned(),
            Restart::Always => "always".to_owned(),
            Restart::UnlessStopped => "unless-stopped".to_owned(),
            Restart::OnFailure { max_retries: None } => "on-failure".to_owned(),
            Restart::OnFailure { max_retries: Some(most) } => format!("on-failure:{most}"),
        }
    }
}

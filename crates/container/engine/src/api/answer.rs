//! What the engine answers.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use carrack_objects::mesh::Published;
use carrack_oci::Digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Which engine answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The program's version.
    pub version: String,
    /// The version of what is said over this socket.
    pub api: u32,
    /// The trust domain its containers' identities belong to.
    pub trust_domain: String,
    /// The engine's process id.
    pub pid: u32,
    /// Since when it runs.
    pub started: Timestamp,
}

/// Why the engine did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What was attempted.
    pub message: String,
    /// Why it failed, each the cause of the one before.
    #[serde(default)]
    pub causes: Vec<String>,
    /// The exit code Docker gives in this case: 125 the engine failed, 126 the program cannot be
    /// run, 127 there is no such program.
    pub exit_code: u8,
}

/// What happened on the way to an application that is up, or down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// What will be done. Sent once, first.
    Planned {
        /// The project.
        project: String,
        /// Every container concerned, in the order of the file.
        containers: Vec<PlannedContainer>,
    },
    /// A network was made.
    NetworkCreated {
        /// Its name.
        name: String,
    },
    /// A network was removed.
    NetworkRemoved {
        /// Its name.
        name: String,
    },
    /// A volume was made.
    VolumeCreated {
        /// Its name.
        name: String,
    },
    /// A volume was removed.
    VolumeRemoved {
        /// Its name.
        name: String,
    },
    /// A container reached the next stage of its way.
    Container {
        /// Its name.
        name: String,
        /// The stage.
        stage: Stage,
        /// More about it, such as what is waited for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// Something a person should know, though it stops nothing.
    Warning {
        /// What.
        message: String,
    },
    /// It failed; nothing follows.
    Failed {
        /// Why.
        fault: Fault,
    },
    /// It is done; nothing follows.
    Done {
        /// Host ports that now lead to the project's services.
        published: BTreeMap<String, Vec<Published>>,
    },
}

/// A stage on a container's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It runs as it should; nothing to do.
    Kept,
    /// It waits for what it depends on.
    Waiting,
    /// It is being made.
    Creating,
    /// It is made.
    Created,
    /// It is being started.
    Starting,
    /// It runs.
    Started,
    /// It runs and is well.
    Healthy,
    /// It ran and ended well, as was waited for.
    Completed,
    /// It is being stopped.
    Stopping,
    /// It is stopped.
    Stopped,
    /// It is being removed.
    Removing,
    /// It is gone.
    Removed,
}

/// One container of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedContainer {
    /// Its name.
    pub name: String,
    /// Its service.
    pub service: String,
    /// What is done with it.
    pub action: Action,
}

/// What a plan does with a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It stays as it is, and is started if it does not run.
    Keep,
    /// It is made.
    Create,
    /// It is made anew in place of one whose image or settings differ.
    Recreate,
    /// It is removed.
    Remove,
}

/// A project and how many of its containers run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectSummary {
    /// Its name.
    pub name: String,
    /// Its services.
    pub services: Vec<String>,
    /// How many containers it has.
    pub containers: usize,
    /// How many of them run.
    pub running: usize,
}

/// A container in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSummary {
    /// Its id, 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its project.
    pub project: String,
    /// Its service.
    pub service: String,
    /// Its image as it was named.
    pub image: String,
    /// Its image.
    pub image_digest: Digest,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where it stands.
    pub status: Status,
    /// How well it is, if it has a health check and runs.
    pub health: Option<HealthState>,
    /// How it last ended.
    pub exit: Option<Exit>,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last started.
    pub started: Option<Timestamp>,
    /// How often it was started again since it was last started by a person.
    pub restarts: u32,
    /// How often the process that held it was killed.
    pub losses: u32,
    /// Its address.
    pub address: Option<Ipv4Addr>,
    /// Host ports that lead to it.
    pub published: Vec<Published>,
    /// Ports it says it listens on.
    pub exposed: Vec<u16>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// Everything about a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerDetail {
    /// What a list says.
    #[serde(flatten)]
    pub summary: ContainerSummary,
    /// Its identity in the mesh.
    pub identity: String,
    /// Its network namespace.
    pub netns: PathBuf,
    /// Its process 1 on the host, while it runs.
    pub pid: Option<u32>,
    /// The process that holds it, while there is one.
    pub shim_pid: Option<u32>,
    /// Where its log is.
    pub log: PathBuf,
    /// The directory its `config.json` is in.
    pub bundle: PathBuf,
    /// What is mounted in it besides its root filesystem.
    pub mounts: Vec<MountSummary>,
    /// The environment it was given.
    pub environment: BTreeMap<String, String>,
    /// Its user as it was named; empty is root.
    pub user: String,
    /// Its working directory.
    pub working_dir: String,
    /// Its restart policy in Docker's words.
    pub restart_policy: String,
    /// What became of its last health checks.
    pub health_checks: Option<Health>,
    /// What its settings hash to; `up` makes it anew when this changes.
    pub config_hash: String,
    /// Why it last could not be started.
    pub error: Option<Fault>,
}

/// Something mounted in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSummary {
    /// `bind`, `volume` or `tmpfs`.
    pub kind: String,
    /// The path or volume on the host; empty for a tmpfs.
    pub source: String,
    /// Where it is in the container.
    pub target: String,
    /// Whether it is read-only.
    pub read_only: bool,
}

/// Where a container stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It is made and was never started.
    Created,
    /// It is being started.
    Starting,
    /// It runs.
    Running,
    /// It runs and is held still.
    Paused,
    /// It ended and will be started again shortly.
    Restarting,
    /// It is being stopped, or what it left is being cleared away.
    Stopping,
    /// It ended.
    Exited,
    /// The process that held it was killed; how it ended is not known.
    Lost,
    /// It is being removed.
    Removing,
}

impl Status {
    /// The word it is shown as.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Stopping => "stopping",
            Self::Exited => "exited",
            Self::Lost => "lost",
            Self::Removing => "removing",
        }
    }
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its exit code; 128 and the signal's number when a signal ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the kernel killed it for want of memory.
    pub out_of_memory: bool,
    /// When.
    pub at: Timestamp,
}

/// How well a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// Too early to tell.
    Starting,
    /// Its last check passed.
    Healthy,
    /// Too many checks in a row failed.
    Unhealthy,
}

impl HealthState {
    /// The word it is shown as.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What became of a container's health checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// How well it is.
    pub state: HealthState,
    /// Failures in a row.
    pub failing: u32,
    /// The last check's exit code; none when it was cut off.
    pub last_code: Option<i32>,
    /// What the last check wrote, cut at 4 KiB.
    pub last_output: String,
    /// When the last check ended.
    pub last_at: Option<Timestamp>,
}

/// A container that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Things a person should know, though they stop nothing.
    pub warnings: Vec<String>,
}

/// Which stream a line was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line a container wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When.
    pub at: Timestamp,
    /// Where to.
    pub stream: LogStream,
    /// The line without its end; bytes that are no UTF-8 are replaced.
    pub text: String,
    /// Whether the line goes on in the next one.
    #[serde(default, skip_serializing_if = "is_false")]
    pub partial: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// What a container uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its project.
    pub project: String,
    /// Its service.
    pub service: String,
    /// When this was read.
    pub at: Timestamp,
    /// Percent of one processor since the reading before; none in the first.
    pub cpu_percent: Option<f64>,
    /// Processor time used since it was started, in nanoseconds.
    pub cpu_nanos: u64,
    /// Bytes of memory in use, page cache that can be dropped left out.
    pub memory_bytes: u64,
    /// Bytes of memory it may use, if limited.
    pub memory_limit: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
    /// How many it may have, if limited.
    pub pids_limit: Option<u64>,
    /// Bytes read from block devices.
    pub block_read_bytes: u64,
    /// Bytes written to block devices.
    pub block_written_bytes: u64,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSummary {
    /// Its name.
    pub name: String,
    /// The project it was made for.
    pub project: String,
    /// Where it is on the host.
    pub path: PathBuf,
    /// When it was made.
    pub created: Timestamp,
    /// Names of the containers that mount it.
    pub used_by: Vec<String>,
}

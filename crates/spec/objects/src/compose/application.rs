//! The types of a resolved Compose application.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::mesh::AppProtocol;
use crate::problem::Problem;

/// What a Compose text is resolved against.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// The directory relative host paths start from, absolute.
    pub directory: PathBuf,
    /// The project's name when given from outside (`-p`, `COMPOSE_PROJECT_NAME`).
    /// Otherwise the file's `name`, otherwise the directory's.
    pub project: Option<String>,
    /// Variables for `${NAME}`: the shell's over those of `.env`.
    pub variables: BTreeMap<String, String>,
}

/// A Compose file, resolved: nothing in it depends on the shell any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Application {
    /// The project's name: lower case letters, digits, `-` and `_`, first a letter or digit.
    pub name: String,
    /// The directory relative host paths were joined to, absolute.
    pub directory: PathBuf,
    /// Services in the order of the file.
    pub services: IndexMap<String, Service>,
    /// Named volumes, by the names services use.
    pub volumes: IndexMap<String, Volume>,
    /// What a person may want to hear, though nothing is wrong: variables nobody set.
    #[serde(default)]
    pub warnings: Vec<Problem>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name; a DNS label.
    pub name: String,
    /// The image's name. With `build`, what the result is called.
    pub image: Option<String>,
    /// How its image is built. At least one of `image` and `build` is there.
    pub build: Option<Build>,
    /// In place of the image's command; `Some` of nothing clears it.
    pub command: Option<Vec<String>>,
    /// In place of the image's entry point; `Some` of nothing clears it.
    pub entrypoint: Option<Vec<String>>,
    /// Variables, over those of `env_files` and of the image.
    pub environment: IndexMap<String, String>,
    /// Files with more variables, first to last; empty once they are read.
    pub env_files: Vec<EnvFile>,
    /// Host ports that lead to it.
    pub ports: Vec<Port>,
    /// Container ports it says it listens on.
    pub expose: Vec<u16>,
    /// Bind mounts, volumes and tmpfs, those of `tmpfs:` included.
    pub mounts: Vec<Mount>,
    /// What has to be there first, by service.
    pub depends_on: IndexMap<String, Dependency>,
    /// In place of the image's health check.
    pub healthcheck: Option<Healthcheck>,
    /// What happens when it ends.
    pub restart: Restart,
    /// `user`, `uid`, `user:group` or `uid:gid`.
    pub user: Option<String>,
    /// In place of the image's working directory; absolute.
    pub working_dir: Option<String>,
    /// Whether its root filesystem is read-only.
    pub read_only: bool,
    /// Capabilities added to the default set, without `CAP_`; `ALL` is all.
    pub cap_add: Vec<String>,
    /// Capabilities taken from the default set, without `CAP_`; `ALL` is all.
    pub cap_drop: Vec<String>,
    /// `security_opt`, understood.
    pub security: SecurityOptions,
    /// Bytes of memory it may use.
    pub mem_limit: Option<u64>,
    /// Billionths of a CPU it may use: 1.5 CPUs are 1 500 000 000.
    pub nano_cpus: Option<u64>,
    /// Processes and threads it may have; `None` is the engine's default.
    pub pids_limit: Option<PidsLimit>,
    /// How many containers run it.
    pub replicas: u32,
    /// Labels of its containers; policies select by them.
    pub labels: IndexMap<String, String>,
    /// In place of the image's stop signal, as written: `SIGQUIT`, `QUIT` or `3`.
    pub stop_signal: Option<String>,
    /// How long it may take to stop before it is killed; the default is 10 s.
    pub stop_grace_period: Duration,
    /// Whether a small init that reaps and forwards signals is its process 1.
    pub init: bool,
}

impl Service {
    /// Protocols declared for container ports; a port that is absent is detected.
    pub fn protocols(&self) -> BTreeMap<u16, AppProtocol> {
        self.ports.iter().filter_map(|p| Some((p.container_port, p.protocol?))).collect()
    }
}

/// How many processes a container may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PidsLimit {
    /// As many as the host allows; written `-1`.
    Unlimited,
    /// At most this many.
    AtMost(u32),
}

/// How an image is built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// The directory files are copied from; absolute.
    pub context: PathBuf,
    /// The Dockerfile; absolute. Not used when `dockerfile_inline` is there.
    pub dockerfile: PathBuf,
    /// The Dockerfile's text itself.
    pub dockerfile_inline: Option<String>,
    /// Build arguments, in the order of the file.
    pub args: IndexMap<String, String>,
    /// The stage to build; the last one otherwise.
    pub target: Option<String>,
    /// Names that `FROM` and `COPY --from` may use.
    pub additional_contexts: IndexMap<String, AdditionalContext>,
    /// Labels put on the image.
    pub labels: IndexMap<String, String>,
    /// More names for the result.
    pub tags: Vec<String>,
    /// Whether the cache is left aside.
    pub no_cache: bool,
}

/// What a name in `additional_contexts` stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdditionalContext {
    /// `recipe://PATH`: an image made of packages; the path is absolute.
    Recipe(PathBuf),
    /// `service:NAME`: the image of another service, built first.
    Service(String),
    /// `docker-image://NAME`: an image of the local store.
    Image(String),
    /// A directory; absolute.
    Directory(PathBuf),
}

/// A file of `NAME=value` lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvFile {
    /// Where it is; absolute.
    pub path: PathBuf,
    /// Whether its absence is an error.
    pub required: bool,
    /// Taken as it stands, without quotes or interpolation (`format: raw`).
    pub raw: bool,
}

/// One host port that leads to one container port. TCP only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The host address listened on; 127.0.0.1 unless the file says otherwise.
    pub host: IpAddr,
    /// The host port; `None` lets the engine choose a free one.
    pub host_port: Option<u16>,
    /// The container's port.
    pub container_port: u16,
    /// What is spoken there, where `app_protocol` says so.
    pub protocol: Option<AppProtocol>,
}

/// Something mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Where, in the container; absolute.
    pub target: String,
    /// Whether it is read-only.
    pub read_only: bool,
    /// What.
    pub kind: MountKind,
}

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// A file or directory of the host.
    Bind {
        /// Where it is on the host; absolute.
        source: PathBuf,
        /// Whether a missing directory is made (the short form) or is an error.
        create: bool,
    },
    /// A volume.
    Volume {
        /// Its key in the application's volumes; `None` is one that belongs to
        /// the container and goes with it.
        name: Option<String>,
        /// Leave a new volume empty instead of filling it from the image.
        nocopy: bool,
    },
    /// Memory, mounted `nosuid,nodev,noexec`.
    Tmpfs {
        /// Bytes it may hold.
        size: Option<u64>,
        /// Permission bits of its root.
        mode: Option<u32>,
    },
}

/// A named volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Its name on the host: `<project>_<key>` unless `name:` says otherwise.
    pub name: String,
    /// Whether it must be there already and is never removed.
    pub external: bool,
    /// Labels on it.
    pub labels: IndexMap<String, String>,
}

/// What one service asks of another before it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dependency {
    /// How far the other has to be.
    pub condition: Condition,
    /// Whether this one is restarted when `up` recreates the other.
    pub restart: bool,
    /// Whether its absence or failure stops this one from starting.
    pub required: bool,
}

/// How far a dependency has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Started.
    #[serde(rename = "service_started")]
    Started,
    /// Healthy by its health check.
    #[serde(rename = "service_healthy")]
    Healthy,
    /// Ended with exit code 0.
    #[serde(rename = "service_completed_successfully")]
    CompletedSuccessfully,
}

/// How it is found out whether a container is well. What is `None` is the
/// image's, and after that Docker's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Healthcheck {
    /// The command; `None` keeps the image's.
    pub test: Option<HealthTest>,
    /// Time between two checks.
    pub interval: Option<Duration>,
    /// How long one check may take.
    pub timeout: Option<Duration>,
    /// Failures in a row that make it unhealthy.
    pub retries: Option<u32>,
    /// Time after the start in which failures do not count.
    pub start_period: Option<Duration>,
    /// Time between two checks during the start period.
    pub start_interval: Option<Duration>,
}

/// A health check's command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthTest {
    /// None, the image's neither.
    Disabled,
    /// A program and its arguments.
    Exec(Vec<String>),
    /// A line for the image's shell.
    Shell(String),
}

/// What happens when a container ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// Nothing.
    #[default]
    No,
    /// It is started again, whatever happened; also when the daemon comes back.
    Always,
    /// It is started again when it failed, so many times at most.
    OnFailure {
        /// How many times; without end when `None`.
        max_retries: Option<u32>,
    },
    /// As `Always`, unless a person stopped it.
    UnlessStopped,
}

/// `security_opt`, understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecurityOptions {
    /// `no-new-privileges`: a setuid program gains nothing.
    pub no_new_privileges: bool,
    /// `seccomp`.
    pub seccomp: SeccompMode,
}

/// Which system calls a container may make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeccompMode {
    /// Those of the default profile.
    #[default]
    Default,
    /// All.
    Unconfined,
}

//! What is asked of the engine.

use std::collections::BTreeMap;
use std::time::Duration;

use carrack_objects::compose::{Application, Restart, SecurityOptions, Service, Volume};
use carrack_oci::Digest;
use indexmap::IndexMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Bring an application to what its file says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpRequest {
    /// The application, its `env_file`s read.
    pub application: Application,
    /// The images of services that were built or resolved already, by service. The others are
    /// looked up by their `image` in the engine's store.
    #[serde(default)]
    pub images: BTreeMap<String, Digest>,
    /// Only these services and what they depend on; all when empty.
    #[serde(default)]
    pub services: Vec<String>,
    /// Which existing containers are made anew.
    #[serde(default)]
    pub recreate: Recreate,
    /// Remove containers of the project whose service the file no longer has.
    #[serde(default)]
    pub remove_orphans: bool,
    /// Create, but do not start.
    #[serde(default)]
    pub no_start: bool,
    /// Answer only when everything runs and is healthy where it can tell.
    #[serde(default)]
    pub wait: bool,
    /// How many containers of a service, in place of what the file says.
    #[serde(default)]
    pub scale: BTreeMap<String, u32>,
    /// How long containers that are replaced may take to stop, in place of their own.
    #[serde(default)]
    pub stop_timeout: Option<Duration>,
}

impl UpRequest {
    /// Asks for all of `application`, whose built images are `images`.
    pub fn new(application: Application, images: BTreeMap<String, Digest>) -> Self {
        Self {
            application,
            images,
            services: Vec::new(),
            recreate: Recreate::Changed,
            remove_orphans: false,
            no_start: false,
            wait: false,
            scale: BTreeMap::new(),
            stop_timeout: None,
        }
    }
}

/// Which existing containers `up` makes anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recreate {
    /// Those whose image or settings changed.
    #[default]
    Changed,
    /// All.
    Always,
    /// None.
    Never,
}

/// Stop and remove a project.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DownRequest {
    /// Remove its named volumes too.
    #[serde(default)]
    pub volumes: bool,
    /// How long a container may take to stop, in place of its own grace period.
    #[serde(default)]
    pub stop_timeout: Option<Duration>,
    /// Only these services; then the network and volumes stay. All when empty.
    #[serde(default)]
    pub services: Vec<String>,
}

/// Make one container that no Compose file names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// What to run, in Compose's words; its `image` is looked up unless `image` is given here.
    /// Its name becomes the mesh's service.
    pub service: Service,
    /// The container's name; made from the service's when absent.
    #[serde(default)]
    pub name: Option<String>,
    /// The project it joins; `default` when absent.
    #[serde(default)]
    pub project: Option<String>,
    /// The image, when it was resolved already.
    #[serde(default)]
    pub image: Option<Digest>,
    /// Volumes its mounts name that are not called as they are keyed.
    #[serde(default)]
    pub volumes: IndexMap<String, Volume>,
    /// Give it a terminal.
    #[serde(default)]
    pub terminal: bool,
    /// Keep its standard input open.
    #[serde(default)]
    pub interactive: bool,
    /// Remove it once it has ended.
    #[serde(default)]
    pub auto_remove: bool,
    /// Its host name; its short id when absent.
    #[serde(default)]
    pub hostname: Option<String>,
}

impl RunRequest {
    /// Asks for one container of `image` under the service name `service`.
    pub fn new(service: &str, image: &str) -> Self {
        Self {
            service: plain_service(service, image),
            name: None,
            project: None,
            image: None,
            volumes: IndexMap::new(),
            terminal: false,
            interactive: false,
            auto_remove: false,
            hostname: None,
        }
    }
}

/// A Compose service that says nothing but its name and image.
pub fn plain_service(name: &str, image: &str) -> Service {
    Service {
        name: name.to_owned(),
        image: Some(image.to_owned()),
        build: None,
        command: None,
        entrypoint: None,
        environment: IndexMap::new(),
        env_files: Vec::new(),
        ports: Vec::new(),
        expose: Vec::new(),
        mounts: Vec::new(),
        depends_on: IndexMap::new(),
        healthcheck: None,
        restart: Restart::No,
        user: None,
        working_dir: None,
        read_only: false,
        cap_add: Vec::new(),
        cap_drop: Vec::new(),
        security: SecurityOptions::default(),
        mem_limit: None,
        nano_cpus: None,
        pids_limit: None,
        replicas: 1,
        labels: IndexMap::new(),
        stop_signal: None,
        stop_grace_period: Duration::from_secs(10),
        init: false,
    }
}

/// Stop a container: its stop signal, then, after the grace period, `SIGKILL`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopRequest {
    /// How long it may take, in place of its own grace period.
    #[serde(default)]
    pub timeout: Option<Duration>,
}

/// Send a container a signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KillRequest {
    /// Such as `SIGHUP`, `HUP` or `1`; `SIGKILL` when absent.
    #[serde(default)]
    pub signal: Option<String>,
}

/// Remove a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveRequest {
    /// Kill it first when it runs.
    #[serde(default)]
    pub force: bool,
    /// Remove the volumes that belong to it alone.
    #[serde(default)]
    pub volumes: bool,
}

/// Run another program in a running container. Sent as the first frame after the upgrade.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Variables over the container's own.
    #[serde(default)]
    pub environment: IndexMap<String, String>,
    /// In place of the container's user.
    #[serde(default)]
    pub user: Option<String>,
    /// In place of the container's working directory.
    #[serde(default)]
    pub working_dir: Option<String>,
    /// Give it a terminal.
    #[serde(default)]
    pub terminal: bool,
    /// Give it a standard input.
    #[serde(default)]
    pub interactive: bool,
    /// The terminal's size at the start, columns and rows.
    #[serde(default)]
    pub size: Option<(u16, u16)>,
}

/// Watch and feed a container's own program. Sent as the first frame after the upgrade.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachRequest {
    /// Start the container once attached, so that nothing it writes is missed.
    #[serde(default)]
    pub start: bool,
    /// Send what is typed to it. It must have been made interactive.
    #[serde(default)]
    pub stdin: bool,
    /// The terminal's size at the start, columns and rows.
    #[serde(default)]
    pub size: Option<(u16, u16)>,
}

/// What a container wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogsRequest {
    /// Go on as it writes more, until it is removed or ends for good.
    #[serde(default)]
    pub follow: bool,
    /// Only so many lines from the end.
    #[serde(default)]
    pub tail: Option<usize>,
    /// Only lines written since.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// Only lines written until.
    #[serde(default)]
    pub until: Option<Timestamp>,
}

/// What containers use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatsRequest {
    /// These containers; all that run when empty.
    #[serde(default)]
    pub containers: Vec<String>,
    /// Of this project only.
    #[serde(default)]
    pub project: Option<String>,
    /// Answer once instead of each second.
    #[serde(default)]
    pub once: bool,
}

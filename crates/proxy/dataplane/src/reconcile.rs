//! From the file to what is in force: read, compile, swap; then open what is new and close what is
//! gone.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use carrack_snapshot::{Ingress, Snapshot, Workload, compile};
use carrack_spiffe::SpiffeId;
use carrack_xds::{Problem, Receipt, Resources, WorkloadReceipt};
use tokio_util::sync::CancellationToken;

use crate::config::Watch;
use crate::identity::Identity;
use crate::ingress::Door;
use crate::local::Local;
use crate::proxy::Proxy;

/// A door that could not be opened is tried again after this.
const TICK: Duration = Duration::from_millis(500);
/// Connections that nobody uses are looked for this often.
const SWEEP: Duration = Duration::from_secs(10);

/// Owns what follows from the snapshot in force.
pub(crate) struct Reconciler {
    proxy: Arc<Proxy>,
    locals: HashMap<LocalKey, Local>,
    doors: HashMap<DoorKey, Door>,
    /// The bytes last looked at, so that a touch is not a change.
    seen: Vec<u8>,
}

/// What must stay the same for the sockets to stay.
#[derive(Clone, PartialEq, Eq, Hash)]
struct LocalKey {
    uid: String,
    identity: SpiffeId,
    netns: PathBuf,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct DoorKey {
    listen: SocketAddr,
    identity: SpiffeId,
    vip: std::net::Ipv4Addr,
    port: u16,
    protocol: Option<carrack_xds::Protocol>,
}

impl Reconciler {
    pub(crate) fn new(proxy: Arc<Proxy>) -> Self {
        Self { proxy, locals: HashMap::new(), doors: HashMap::new(), seen: Vec::new() }
    }

    pub(crate) async fn run(mut self, mut watch: Watch, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let proxy = Arc::clone(&self.proxy);
        self.read(&watch).await;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = watch.changed() => match changed {
                    Ok(()) => self.read(&watch).await,
                    Err(error) => {
                        tracing::error!(%error, "the resources can no longer be watched, reading them on a clock");
                        tokio::time::sleep(TICK).await;
                        self.read(&watch).await;
                    }
                },
                _ = tick.tick() => self.open_doors(),
                _ = sweep.tick() => self.forget_connections(&proxy.snapshot.load_full()),
                () = proxy.captured.notified() => self.open_doors(),
            }
        }
    }

    async fn read(&mut self, watch: &Watch) {
        let bytes = match tokio::fs::read(watch.path()).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                return self.proxy.refuse(None, vec![about("resources", error.to_string())]);
            }
        };
        if bytes == self.seen {
            return;
        }
        match understand(&bytes, &self.proxy) {
            Ok(snapshot) => self.apply(snapshot),
            Err((version, problems)) => self.proxy.refuse(version, problems),
        }
        self.seen = bytes;
    }

    fn apply(&mut self, snapshot: Arc<Snapshot>) {
        tracing::info!(version = snapshot.version(), "resources in force");
        self.proxy.snapshot.store(Arc::clone(&snapshot));
        self.proxy.swapped.send_replace(());
        self.capture(&snapshot);
        let wanted: HashSet<_> = snapshot.ingress().iter().map(|one| door_key(one)).collect();
        self.doors.retain(|key, _| wanted.contains(key));
        self.proxy.change_receipt(|receipt| {
            *receipt = Receipt { version: snapshot.version().to_owned(), ..Receipt::default() };
        });
        self.open_doors();
        self.forget_connections(&snapshot);
    }

    fn capture(&mut self, snapshot: &Snapshot) {
        let mut wanted = HashMap::new();
        for workload in snapshot.local() {
            wanted.insert(local_key(workload), workload);
        }
        self.locals.retain(|key, _| wanted.contains_key(key));
        for (key, workload) in wanted {
            if self.locals.contains_key(&key) {
                continue;
            }
            match self.identity(&workload.identity) {
                Ok(identity) => {
                    self.locals.insert(key, Local::start(&self.proxy, workload, identity));
                }
                Err(problem) => self.proxy.change_receipt(|receipt| receipt.problems.push(problem)),
            }
        }
    }

    fn identity(&self, id: &SpiffeId) -> Result<Arc<Identity>, Problem> {
        self.proxy.identities.get(id).map_err(|error| about(&id.to_string(), error.to_string()))
    }

    /// Opens the doors that are not open yet, and says in the receipt how everything stands.
    fn open_doors(&mut self) {
        let snapshot = self.proxy.snapshot.load_full();
        let mut problems = Vec::new();
        for ingress in snapshot.ingress() {
            let key = door_key(ingress);
            if self.doors.contains_key(&key) {
                continue;
            }
            match self.open_door(ingress) {
                Ok(door) => {
                    self.doors.insert(key, door);
                }
                Err(problem) => problems.push(problem),
            }
        }
        let workloads = snapshot.local().iter().map(|workload| self.standing(workload)).collect();
        self.proxy.change_receipt(|receipt| {
            receipt.workloads = workloads;
            if receipt.refused.is_none() {
                receipt.problems = problems;
            }
        });
    }

    fn open_door(&self, ingress: &Arc<Ingress>) -> Result<Door, Problem> {
        let identity = self.identity(&ingress.identity)?;
        Door::open(&self.proxy, Arc::clone(ingress), identity).map_err(|error| Problem {
            resource: format!("ingress {}", ingress.listen),
            path: "listen".to_owned(),
            message: format!("the port cannot be opened: {error}"),
        })
    }

    fn standing(&self, workload: &Workload) -> WorkloadReceipt {
        let captured = self.locals.get(&local_key(workload)).is_some_and(Local::is_captured);
        WorkloadReceipt { uid: workload.uid.clone(), captured }
    }

    fn forget_connections(&self, snapshot: &Snapshot) {
        let locals = self.locals.values().filter_map(Local::vantage);
        let doors = self.doors.values().map(|door| Arc::clone(door.vantage()));
        for vantage in locals.chain(doors) {
            vantage.tunnels.retain(|uid| snapshot.workload(uid).is_some());
            let known = |to: SocketAddr| match to {
                SocketAddr::V4(to) => snapshot.at(*to.ip()).is_some(),
                SocketAddr::V6(_) => false,
            };
            vantage.upstreams.sweep(known);
            vantage.application.sweep(known);
        }
    }
}

/// Reads and compiles. The version is known when at least the JSON could be read.
fn understand(
    bytes: &[u8],
    proxy: &Proxy,
) -> Result<Arc<Snapshot>, (Option<String>, Vec<Problem>)> {
    let resources = Resources::from_json(bytes).map_err(|error| {
        let cause = std::error::Error::source(&error).map_or_else(String::new, ToString::to_string);
        (None, vec![about("resources", format!("{error}: {cause}"))])
    })?;
    let version = Some(resources.version.clone());
    let snapshot = compile(&resources).map_err(|problems| (version.clone(), problems))?;
    if snapshot.trust_domain() != proxy.trust_domain() {
        let message = format!(
            "is `{}`, and this proxy serves `{}`",
            snapshot.trust_domain(),
            proxy.trust_domain()
        );
        let path = "trust_domain".to_owned();
        return Err((version, vec![Problem { resource: "resources".to_owned(), path, message }]));
    }
    Ok(snapshot)
}

fn about(resource: &str, message: String) -> Problem {
    Problem { resource: resource.to_owned(), path: String::new(), message }
}

fn local_key(workload: &Workload) -> LocalKey {
    LocalKey {
        uid: workload.uid.clone(),
        identity: workload.identity.clone(),
        netns: workload.netns.clone().unwrap_or_default(),
    }
}

fn door_key(ingress: &Ingress) -> DoorKey {
    DoorKey {
        listen: ingress.listen,
        identity: ingress.identity.clone(),
        vip: ingress.service.vip,
        port: ingress.port,
        protocol: ingress.protocol,
    }
}

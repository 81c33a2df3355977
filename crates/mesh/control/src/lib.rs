//! The control plane of one node: what runs and who may call whom, told to the proxy.
//!
//! ```text
//! engine ──workloads, services──▶┐
//!                                ├─ translate ─▶ resources.json ──▶ node proxy
//! people ──policies (records)───▶┘                                     │
//!        ◀──────── Applied ◀──────────── receipt (GET /config) ◀───────┘
//! ```
//!
//! The proxy is always told everything, by atomic rename, under a version that
//! names exactly that content. Whoever changes something may wait until the
//! proxy's receipt names a version at least as new: a policy that was applied
//! judges the next request, a container that was let through its gate is captured.
//!
//! Policies outlive the process as records of the text a person wrote, so they
//! are read again by the reader of the day. Translating is not here; see
//! `mesh/translate`.

pub mod api;
pub mod client;
mod policies;
mod publish;
mod receipt;
mod serve;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use carrack_objects::{Problem, mesh};
use carrack_spiffe::TrustDomain;
use carrack_store::{RecordError, RecordStore, TableError};
use carrack_telemetry::logging::chain;
use tokio::sync::watch;

use api::{Applied, ApplyRequest, Enforcement, PolicyFile, PolicyStatus, Status};
use policies::Policies;
pub use publish::PublishError;
use publish::Publisher;
pub use receipt::CaptureError;

/// How long a failed publication waits for its next try.
const RETRY: Duration = Duration::from_secs(1);
/// How long after one publication the next may follow by itself. Whoever waits for the proxy's
/// word publishes at once.
const BURST: Duration = Duration::from_millis(5);

/// Where the control plane meets the proxy, and whose mesh it is.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// The file the proxy reads its resources from.
    pub resources: PathBuf,
    /// The proxy's admin socket.
    pub proxy: PathBuf,
    /// The domain whose identities are accepted.
    pub trust_domain: TrustDomain,
    /// How long `apply` and `captured` wait for the proxy.
    pub patience: Duration,
}

/// Why the control plane could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The records could not be read.
    #[error("reading the policies that were applied")]
    Read {
        /// What the store said.
        source: TableError,
    },
    /// A policy that was applied is not understood any more. Starting without it
    /// could allow what it forbids.
    #[error(
        "reading the policies applied to {project}: {problem}; apply them again with a version that understands them, or delete them"
    )]
    Policy {
        /// The project.
        project: String,
        /// The first thing wrong with it.
        problem: Problem,
    },
}

/// Why policies were not applied, or not deleted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// They are wrong; nothing of them is in force.
    #[error("applying policies to {project}: {} problems", problems.len())]
    Problems {
        /// The project.
        project: String,
        /// Everything wrong with them.
        problems: Vec<Problem>,
    },
    /// They could not be kept; nothing of them is in force.
    #[error("keeping the policies of {project}")]
    Keep {
        /// The project.
        project: String,
        /// What the store said.
        source: TableError,
    },
    /// They could not be committed; nothing of them is in force.
    #[error("keeping the policies of {project}")]
    Commit {
        /// The project.
        project: String,
        /// What the store said.
        source: RecordError,
    },
    /// They are kept, but the proxy could not be told; it will be.
    #[error("telling the proxy the policies of {project}")]
    Publish {
        /// The project.
        project: String,
        /// What went wrong.
        source: PublishError,
    },
}

/// The control plane of one node.
#[derive(Debug)]
pub struct Control {
    policies: Arc<Policies>,
    publisher: Publisher,
    proxy: PathBuf,
    patience: Duration,
}

impl Control {
    /// Opens the control plane: reads the policies that were applied and tells the
    /// proxy of the world as it is.
    ///
    /// `workloads` and `services` must already hold what runs. A receiver that is
    /// empty because nobody has looked yet would take running containers out of
    /// the mesh.
    ///
    /// # Errors
    ///
    /// [`OpenError`] when what was applied cannot be read back. Failing to write
    /// for the proxy is no error here: [`Control::run`] keeps trying.
    pub fn open(
        config: ControlConfig,
        records: Arc<dyn RecordStore>,
        workloads: watch::Receiver<Arc<Vec<mesh::Workload>>>,
        services: watch::Receiver<Arc<Vec<mesh::Service>>>,
    ) -> Result<Arc<Self>, OpenError> {
        let policies = Arc::new(Policies::open(records)?);
        let publisher = Publisher::new(config.resources, config.trust_domain, workloads, services);
        let control = Self { policies, publisher, proxy: config.proxy, patience: config.patience };
        if let Err(error) = control.publish() {
            tracing::warn!(error = %chain(&error), "the proxy could not be told; trying again");
        }
        Ok(Arc::new(control))
    }

    /// Tells the proxy of every change of what runs, until `shutdown`.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let mut changes = self.publisher.changes();
        let mut failed = false;
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                () = changes.next() => {}
                () = tokio::time::sleep(RETRY), if failed => {}
            }
            let published = self.publish();
            failed = published.is_err();
            if let Err(error) = published {
                tracing::warn!(error = %chain(&error), "the proxy could not be told; trying again");
            }
            // Changes come in bursts. The first is told at once, the rest together.
            tokio::select! {
                () = &mut shutdown => return,
                () = tokio::time::sleep(BURST) => {}
            }
        }
    }

    /// Applies policies to a project and waits until the proxy enforces them.
    ///
    /// All of the request takes effect, or nothing. A file that was applied before
    /// under the same name is replaced; with `replace`, so are all others of the
    /// project.
    ///
    /// # Errors
    ///
    /// [`ApplyError`]; a proxy that does not answer in time is no error but
    /// [`Enforcement::NotYet`].
    pub async fn apply(&self, request: ApplyRequest) -> Result<Applied, ApplyError> {
        let project = request.project.clone();
        let policies = Arc::clone(&self.policies);
        off_the_executor(move || policies.apply(request)).await?;
        self.enforced(project).await
    }

    /// Applies one file of policies to a project; see [`Control::apply`].
    ///
    /// # Errors
    ///
    /// As [`Control::apply`].
    pub async fn apply_file(
        &self,
        text: &str,
        file: &str,
        project: &str,
    ) -> Result<Applied, ApplyError> {
        let files = vec![PolicyFile { file: file.to_owned(), text: text.to_owned() }];
        self.apply(ApplyRequest { project: project.to_owned(), files, replace: false }).await
    }

    /// Deletes every policy of a project, or those of one file of it, and waits
    /// until the proxy has forgotten them. Deleting what is not there succeeds.
    ///
    /// # Errors
    ///
    /// As [`Control::apply`].
    pub async fn delete(&self, project: &str, file: Option<&str>) -> Result<Applied, ApplyError> {
        let policies = Arc::clone(&self.policies);
        let (of, file) = (project.to_owned(), file.map(str::to_owned));
        off_the_executor(move || policies.delete(&of, file.as_deref())).await?;
        self.enforced(project.to_owned()).await
    }

    /// Every policy, and which workloads it judges.
    pub fn list(&self) -> Vec<PolicyStatus> {
        self.publisher.statuses(&self.policies.current())
    }

    /// What was last told, and what did not make it into it.
    pub fn status(&self) -> Status {
        self.publisher.status()
    }

    /// Waits until the proxy has captured the workload's traffic, so that it may start.
    ///
    /// # Errors
    ///
    /// [`CaptureError`] when the proxy refuses what it was told, or the workload is
    /// not captured in time.
    pub async fn captured(&self, uid: &str) -> Result<(), CaptureError> {
        self.publish().map_err(|source| CaptureError::Publish { uid: uid.to_owned(), source })?;
        if let Some(message) = self.publisher.left_out(uid) {
            return Err(CaptureError::LeftOut { uid: uid.to_owned(), message });
        }
        receipt::captured(&self.proxy, uid, &self.publisher, self.patience).await
    }

    fn publish(&self) -> Result<String, PublishError> {
        self.publisher.publish(|| self.policies.current())
    }

    async fn enforced(&self, project: String) -> Result<Applied, ApplyError> {
        let version = match self.publish() {
            Ok(version) => version,
            Err(source) => return Err(ApplyError::Publish { project, source }),
        };
        let waited = receipt::in_force(&self.proxy, &version, &self.publisher, self.patience).await;
        let enforcement = match waited {
            Ok(()) => Enforcement::InForce,
            Err(reason) => Enforcement::NotYet { reason },
        };
        let mut policies = self.list();
        policies.retain(|policy| policy.namespace == project);
        Ok(Applied { version, enforcement, policies })
    }
}

/// Runs what waits for the disk where nobody else waits for it.
async fn off_the_executor<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

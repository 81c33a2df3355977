//! Writing resources for the proxy.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use carrack_linux::fs::replace;
use carrack_objects::mesh;
use carrack_objects::policy::{Action, AuthorizationPolicy};
use carrack_spiffe::TrustDomain;
use carrack_translate::{Translation, World, translate};
use carrack_xds::WriteError;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::api::{PolicyStatus, Status};

/// Why the proxy could not be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The resources cannot be written as JSON.
    #[error("writing the proxy's resources")]
    Encode {
        /// What cannot be written.
        source: WriteError,
    },
    /// The file cannot be replaced.
    #[error("writing the proxy's resources to {}: check that its directory exists and is writable", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Holds what runs, and writes it down together with the policies.
#[derive(Debug)]
pub(crate) struct Publisher {
    resources: PathBuf,
    trust_domain: TrustDomain,
    workloads: watch::Receiver<Arc<Vec<mesh::Workload>>>,
    services: watch::Receiver<Arc<Vec<mesh::Service>>>,
    last: Mutex<Last>,
    published: watch::Sender<u64>,
}

/// What was last written.
#[derive(Debug, Default)]
struct Last {
    version: String,
    problems: Vec<carrack_translate::Problem>,
    /// Names by uid of the workloads the engine listed and translation left out.
    left_out: Vec<(String, String)>,
}

/// Waits for changes of what runs.
pub(crate) struct Changes {
    workloads: watch::Receiver<Arc<Vec<mesh::Workload>>>,
    services: watch::Receiver<Arc<Vec<mesh::Service>>>,
}

impl Changes {
    /// Returns when something may have changed. A source that is gone never changes again.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            Ok(()) = self.workloads.changed() => {}
            Ok(()) = self.services.changed() => {}
            else => std::future::pending().await,
        }
    }
}

impl Publisher {
    pub(crate) fn new(
        resources: PathBuf,
        trust_domain: TrustDomain,
        workloads: watch::Receiver<Arc<Vec<mesh::Workload>>>,
        services: watch::Receiver<Arc<Vec<mesh::Service>>>,
    ) -> Self {
        let (published, _) = watch::channel(0);
        let last = Mutex::default();
        Self { resources, trust_domain, workloads, services, last, published }
    }

    pub(crate) fn changes(&self) -> Changes {
        let mut changes =
            Changes { workloads: self.workloads.clone(), services: self.services.clone() };
        // What changed before this call may not have been written yet.
        changes.workloads.mark_changed();
        changes
    }

    /// Translates the world as it is and writes it, unless that is what was last
    /// written. Returns its version.
    pub(crate) fn publish(
        &self,
        policies: impl FnOnce() -> Vec<AuthorizationPolicy>,
    ) -> Result<String, PublishError> {
        // Held while the world is looked at and until it is written, so that what is
        // written last is what was seen last.
        let mut last = self.last.lock();
        let policies = policies();
        let workloads = Arc::clone(&self.workloads.borrow());
        let mut translation = self.translation(&policies);
        let version = version(&translation)?;
        for problem in translation.problems.iter().filter(|p| !last.problems.contains(p)) {
            tracing::warn!(%problem, "left out of what the proxy is told");
        }
        last.left_out = left_out(&workloads, &translation);
        last.problems = std::mem::take(&mut translation.problems);
        if version == last.version {
            return Ok(version);
        }
        translation.resources.version.clone_from(&version);
        let bytes =
            translation.resources.to_json().map_err(|source| PublishError::Encode { source })?;
        replace(&self.resources, &bytes, 0o600)
            .map_err(|source| PublishError::Write { path: self.resources.clone(), source })?;
        tracing::debug!(%version, workloads = workloads.len(), "told the proxy");
        last.version.clone_from(&version);
        drop(last);
        self.published.send_modify(|count| *count += 1);
        Ok(version)
    }

    fn translation(&self, policies: &[AuthorizationPolicy]) -> Translation {
        translate(&World {
            trust_domain: self.trust_domain.clone(),
            workloads: self.workloads.borrow().to_vec(),
            services: self.services.borrow().to_vec(),
            policies: policies.to_vec(),
        })
    }

    /// Why the engine's workload is not among what the proxy was told, if so.
    pub(crate) fn left_out(&self, uid: &str) -> Option<String> {
        let last = self.last.lock();
        let (_, name) = last.left_out.iter().find(|(out, _)| out == uid)?;
        let object = format!("workload {name}");
        let problem = last.problems.iter().find(|problem| problem.object == object);
        Some(problem.map_or_else(|| "it was left out".to_owned(), |p| p.message.clone()))
    }

    /// The version last written.
    pub(crate) fn version(&self) -> String {
        self.last.lock().version.clone()
    }

    /// Wakes whenever something new was written.
    pub(crate) fn published(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    pub(crate) fn status(&self) -> Status {
        let last = self.last.lock();
        Status {
            version: last.version.clone(),
            problems: last.problems.iter().map(ToString::to_string).collect(),
        }
    }

    pub(crate) fn statuses(&self, policies: &[AuthorizationPolicy]) -> Vec<PolicyStatus> {
        let action = |origin: &carrack_objects::Origin| {
            let policy = policies.iter().find(|policy| policy.origin == *origin);
            match policy.map(|policy| policy.action) {
                Some(Action::Deny) => "DENY",
                Some(Action::Allow) | None => "ALLOW",
            }
        };
        self.translation(policies)
            .statuses
            .into_iter()
            .map(|status| PolicyStatus {
                action: action(&status.origin).to_owned(),
                namespace: status.namespace,
                name: status.name,
                origin: status.origin,
                workloads: status.workloads,
            })
            .collect()
    }
}

/// Uids and names of the workloads that did not make it into the resources.
fn left_out(workloads: &[mesh::Workload], translation: &Translation) -> Vec<(String, String)> {
    let told = |uid: &str| translation.resources.workloads.iter().any(|w| w.uid == uid);
    workloads
        .iter()
        .filter(|workload| !told(&workload.uid))
        .map(|workload| (workload.uid.clone(), workload.name.clone()))
        .collect()
}

/// A name for exactly this content.
fn version(translation: &Translation) -> Result<String, PublishError> {
    let bytes =
        translation.resources.to_json().map_err(|source| PublishError::Encode { source })?;
    let mut digest = hex::encode(Sha256::digest(&bytes));
    digest.truncate(32);
    Ok(digest)
}

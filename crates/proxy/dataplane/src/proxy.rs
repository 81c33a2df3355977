//! What every connection shares.

use std::sync::Arc;

use arc_swap::ArcSwap;
use carrack_snapshot::Snapshot;
use carrack_spiffe::TrustDomain;
use carrack_telemetry::access::{Log, LogConfig};
use carrack_telemetry::metrics::Metrics;
use carrack_xds::{Problem, Receipt};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, RunError, Timeouts};
use crate::identity::Identities;

/// One node proxy, as its connections see it.
pub(crate) struct Proxy {
    /// What is in force.
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) identities: Identities,
    pub(crate) log: Log,
    pub(crate) metrics: Metrics,
    pub(crate) timeouts: Timeouts,
    /// Every connection, so that the end can wait for them.
    pub(crate) tasks: TaskTracker,
    /// No new connections; those that are idle end.
    pub(crate) draining: CancellationToken,
    /// Told when another snapshot is in force.
    pub(crate) swapped: watch::Sender<()>,
    /// Told when a capture comes to stand.
    pub(crate) captured: Notify,
    /// What `/config` answers.
    receipt: watch::Sender<Receipt>,
    trust_domain: TrustDomain,
}

impl Proxy {
    pub(crate) fn new(config: &Config) -> Result<Arc<Self>, RunError> {
        let log = Log::open(LogConfig::new(&config.access_log))
            .map_err(|source| RunError::AccessLog { source })?;
        let trust_domain = config.trust_domain.clone();
        Ok(Arc::new(Self {
            snapshot: ArcSwap::from_pointee(Snapshot::empty(trust_domain.clone())),
            identities: Identities::new(&config.identity, config.timeouts.certificate),
            log,
            metrics: Metrics::default(),
            timeouts: config.timeouts,
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            swapped: watch::Sender::new(()),
            captured: Notify::new(),
            receipt: watch::Sender::default(),
            trust_domain,
        }))
    }

    pub(crate) fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Says what is wrong with the newest resources; what is in force stays.
    pub(crate) fn refuse(&self, version: Option<String>, problems: Vec<Problem>) {
        for problem in &problems {
            tracing::warn!(
                resource = %problem.resource, path = %problem.path, message = %problem.message,
                "resources refused, the last good ones stay in force"
            );
        }
        self.change_receipt(|receipt| {
            receipt.refused = Some(version.unwrap_or_else(|| "unreadable".to_owned()));
            receipt.problems = problems;
        });
    }

    /// What there is to say of the resources; whoever waits for news of it hears of changes.
    pub(crate) fn receipt(&self) -> watch::Receiver<Receipt> {
        self.receipt.subscribe()
    }

    pub(crate) fn change_receipt(&self, change: impl FnOnce(&mut Receipt)) {
        self.receipt.send_if_modified(|receipt| {
            let before = receipt.clone();
            change(receipt);
            receipt.revision = before.revision;
            let differs = *receipt != before;
            receipt.revision += u64::from(differs);
            differs
        });
    }

    /// Stops taking connections and waits, for a while, until those underway have ended.
    pub(crate) async fn drain(&self) {
        self.draining.cancel();
        self.tasks.close();
        if tokio::time::timeout(self.timeouts.drain, self.tasks.wait()).await.is_err() {
            tracing::info!(connections = self.tasks.len(), "connections cut off at the end");
        }
    }
}

//! The node proxy: listeners, connections, requests, balancing, upstream pools, admin.
//!
//! ```text
//! application ─▶ 15001 outbound ─▶ detect ─▶ route, balance ─▶ tunnel ═══ mutual TLS, HTTP/2 CONNECT
//!                                                                  ║
//! application ◀─ authorize, per request ◀─ detect ◀─ 15008 inbound ═╝
//! outside ─▶ published port: ingress ─▶ as outbound, in the node's own network
//! outside ─▶ 15006: refused; nothing comes in without an identity
//! ```
//!
//! The order of these steps is fixed and stands in `outbound`, `ingress` and `inbound`; what a
//! workload or service asks for comes from the snapshot. A connection looks the snapshot up when
//! it begins, a request when it begins, and holds it to its end.
//!
//! Sockets are opened inside the workload's network namespace, so killing this process leaves the
//! redirect pointing at nothing: closed, not open. A proxy that starts again opens them again.
//!
//! Making the redirect is not here; see `container/network`.

mod admin;
mod balance;
mod config;
mod copy;
mod detect;
mod http;
mod identity;
mod inbound;
mod ingress;
mod local;
mod outbound;
mod proxy;
mod reconcile;
mod report;
mod route;
mod tunnel;
mod vantage;

pub use config::{Config, MARK, RunError, Timeouts};

use std::future::Future;
use std::sync::Arc;

use carrack_net::unix;
use tokio_util::sync::CancellationToken;

use proxy::Proxy;
use reconcile::Reconciler;

/// Runs the node proxy until `shutdown`, then lets what is underway end within
/// [`Timeouts::drain`].
///
/// Needs `CAP_SYS_ADMIN` and `CAP_NET_ADMIN` to open sockets in its workloads' namespaces.
///
/// # Errors
///
/// [`RunError`] when the proxy cannot start. Once it has, it goes on with what it last understood,
/// whatever it is told.
pub async fn run(
    config: Config,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), RunError> {
    let admin = unix::bind(&config.admin).map_err(|source| RunError::Admin { source })?;
    let watch = config::Watch::start(&config.resources)?;
    let proxy = Proxy::new(&config)?;
    let stop = CancellationToken::new();
    let answering = tokio::spawn(admin::serve(admin, Arc::clone(&proxy), stop.clone()));
    let reconciler = Reconciler::new(Arc::clone(&proxy));
    let reconciling = tokio::spawn(reconciler.run(watch, stop.clone()));
    tracing::info!(resources = %config.resources.display(), "the node proxy is up");
    shutdown.await;
    tracing::info!("the node proxy is stopping");
    stop.cancel();
    proxy.drain().await;
    for task in [answering, reconciling] {
        // A task that panicked has said so already.
        task.await.ok();
    }
    Ok(())
}

//! One workload of this node: its capture sockets, and the connections that come by them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use carrack_net::namespace::NetworkNamespace;
use carrack_snapshot::Workload;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::identity::Identity;
use crate::proxy::Proxy;
use crate::vantage::Vantage;
use crate::{inbound, outbound, tunnel};

/// Time between two tries to open what cannot be opened.
const RETRY: Duration = Duration::from_millis(200);

/// A workload whose traffic is captured, or will be.
pub(crate) struct Local {
    captured: Arc<AtomicBool>,
    vantage: Arc<parking_lot::Mutex<Option<Arc<Vantage>>>>,
    stop: CancellationToken,
}

/// The three sockets of one workload.
struct Sockets {
    outbound: TcpListener,
    plaintext: TcpListener,
    tunnels: TcpListener,
}

impl Local {
    /// Begins to capture; goes on trying until it succeeds or is dropped.
    pub(crate) fn start(
        proxy: &Arc<Proxy>,
        workload: &Arc<Workload>,
        identity: Arc<Identity>,
    ) -> Self {
        let local = Self {
            captured: Arc::default(),
            vantage: Arc::default(),
            stop: proxy.draining.child_token(),
        };
        let run = run(
            Arc::clone(proxy),
            Arc::clone(workload),
            identity,
            Arc::clone(&local.captured),
            Arc::clone(&local.vantage),
            local.stop.clone(),
        );
        proxy.tasks.spawn(run);
        local
    }

    /// Whether its sockets are open and it has a certificate.
    pub(crate) fn is_captured(&self) -> bool {
        self.captured.load(Ordering::Acquire)
    }

    pub(crate) fn vantage(&self) -> Option<Arc<Vantage>> {
        self.vantage.lock().clone()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn run(
    proxy: Arc<Proxy>,
    workload: Arc<Workload>,
    identity: Arc<Identity>,
    captured: Arc<AtomicBool>,
    shown: Arc<parking_lot::Mutex<Option<Arc<Vantage>>>>,
    stop: CancellationToken,
) {
    let Some((namespace, sockets)) = open_patiently(&workload, &stop).await else { return };
    let peer = Arc::clone(&workload.peer);
    let vantage = Arc::new(Vantage::new(Some(namespace), Arc::clone(&identity), peer));
    *shown.lock() = Some(Arc::clone(&vantage));
    let certified = async {
        identity.certified().await;
        captured.store(true, Ordering::Release);
        proxy.captured.notify_one();
        tracing::info!(workload = ?workload.peer.workload, "capture stands");
        std::future::pending::<()>().await;
    };
    let uid = workload.uid.clone();
    tokio::select! {
        () = stop.cancelled() => {}
        () = certified => {}
        () = accept(&sockets.outbound, |stream| {
            let (proxy, vantage) = (Arc::clone(&proxy), Arc::clone(&vantage));
            until(&stop, &proxy.clone(), outbound::captured(proxy, vantage, stream));
        }) => {}
        () = accept(&sockets.plaintext, |stream| inbound::plaintext(&proxy, &vantage, stream)) => {}
        () = accept(&sockets.tunnels, |stream| {
            let (proxy, vantage) = (Arc::clone(&proxy), Arc::clone(&vantage));
            until(&stop, &proxy.clone(), inbound::tunneled(proxy, vantage, uid.clone(), stream));
        }) => {}
    }
}

/// Runs one connection. It ends on its own when the whole proxy drains, and at once when its
/// workload is gone.
fn until(
    stop: &CancellationToken,
    proxy: &Arc<Proxy>,
    connection: impl Future<Output = ()> + Send + 'static,
) {
    let (stop, draining) = (stop.child_token(), proxy.draining.clone());
    proxy.tasks.spawn(async move {
        let gone = async {
            stop.cancelled().await;
            if draining.is_cancelled() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = connection => {}
            () = gone => {}
        }
    });
}

async fn open_patiently(
    workload: &Workload,
    stop: &CancellationToken,
) -> Option<(NetworkNamespace, Sockets)> {
    let mut told = false;
    loop {
        match open(workload) {
            Ok(opened) => return Some(opened),
            Err(error) if !told => {
                let workload = &workload.peer.workload;
                tracing::warn!(?workload, %error, "opening capture sockets, trying again");
                told = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

fn open(workload: &Workload) -> io::Result<(NetworkNamespace, Sockets)> {
    let path = workload.netns.as_deref().ok_or(io::ErrorKind::NotFound)?;
    let namespace = NetworkNamespace::open(path)?;
    let listen = |port| namespace.listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
    let sockets = Sockets {
        outbound: listen(outbound::PORT)?,
        plaintext: listen(inbound::PORT)?,
        tunnels: listen(tunnel::PORT)?,
    };
    Ok((namespace, sockets))
}

/// Hands every connection to `take`, for ever.
pub(crate) async fn accept(listener: &TcpListener, take: impl Fn(TcpStream)) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a connection closed as it was accepted");
                }
                take(stream);
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection");
                // Out of descriptors, most likely; trying at once would only spin.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

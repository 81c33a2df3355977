//! Where connections are made from: a workload's network and identity, or the node's own network
//! and the identity of its ingress.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use carrack_net::namespace::NetworkNamespace;
use carrack_telemetry::access::Peer;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::MARK;
use crate::http::Upstreams;
use crate::identity::Identity;
use crate::route;
use crate::tunnel::Tunnels;

/// One place that connections begin at, with the connections it keeps for later.
pub(crate) struct Vantage {
    /// None means the node's own network.
    pub(crate) namespace: Option<NetworkNamespace>,
    pub(crate) identity: Arc<Identity>,
    /// How records name callers from here.
    pub(crate) peer: Arc<Peer>,
    /// Tunnels to other workloads.
    pub(crate) tunnels: Tunnels,
    /// HTTP connections within such tunnels.
    pub(crate) upstreams: Upstreams,
    /// HTTP connections to the workload's own application.
    pub(crate) application: Upstreams,
    /// Whose turn it is.
    pub(crate) turn: AtomicUsize,
}

impl Vantage {
    pub(crate) fn new(
        namespace: Option<NetworkNamespace>,
        identity: Arc<Identity>,
        peer: Arc<Peer>,
    ) -> Self {
        Self {
            namespace,
            identity,
            peer,
            tunnels: Tunnels::default(),
            upstreams: Upstreams::default(),
            application: Upstreams::default(),
            turn: AtomicUsize::new(0),
        }
    }

    /// Opens a TCP connection from here, past the redirect.
    pub(crate) async fn connect(
        &self,
        to: SocketAddr,
        patience: Duration,
    ) -> io::Result<TcpStream> {
        let connecting = async {
            match &self.namespace {
                Some(namespace) => namespace.connect(to, MARK).await,
                None => {
                    let stream = TcpStream::connect(to).await?;
                    stream.set_nodelay(true)?;
                    Ok(stream)
                }
            }
        };
        match timeout(patience, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Whether an address is on the same link as this place without being its gateway: a
    /// neighbor, which is either in the mesh or not to be spoken to.
    pub(crate) fn is_neighbor(&self, address: Ipv4Addr) -> bool {
        self.namespace.as_ref().is_some_and(|namespace| {
            namespace.run(|| Ok(route::is_neighbor(address))).unwrap_or(true)
        })
    }
}

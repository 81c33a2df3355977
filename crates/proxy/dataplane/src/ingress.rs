//! A door from outside the mesh: a published port, in the node's own network.

use std::net::IpAddr;
use std::sync::Arc;

use carrack_net::namespace;
use carrack_snapshot::Ingress;
use carrack_telemetry::access::Peer;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::identity::Identity;
use crate::local::accept;
use crate::outbound::Outward;
use crate::proxy::Proxy;
use crate::vantage::Vantage;

/// One door that is open.
pub(crate) struct Door {
    vantage: Arc<Vantage>,
    stop: CancellationToken,
}

impl Door {
    /// Opens the door.
    pub(crate) fn open(
        proxy: &Arc<Proxy>,
        ingress: Arc<Ingress>,
        identity: Arc<Identity>,
    ) -> std::io::Result<Self> {
        let listener = namespace::listen(ingress.listen)?;
        let peer = Peer {
            namespace: identity.id.namespace().unwrap_or_default().into(),
            service: identity.id.service_account().unwrap_or_default().into(),
            workload: None,
            address: None,
        };
        let vantage = Arc::new(Vantage::new(None, identity, Arc::new(peer)));
        let stop = proxy.draining.child_token();
        let run = run(Arc::clone(proxy), ingress, Arc::clone(&vantage), listener, stop.clone());
        proxy.tasks.spawn(run);
        Ok(Self { vantage, stop })
    }

    pub(crate) fn vantage(&self) -> &Arc<Vantage> {
        &self.vantage
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn run(
    proxy: Arc<Proxy>,
    ingress: Arc<Ingress>,
    vantage: Arc<Vantage>,
    listener: TcpListener,
    stop: CancellationToken,
) {
    let take = |stream: TcpStream| {
        let outside = stream.peer_addr().ok().map(|from| plain(from.ip()));
        let source = Arc::new(Peer { address: outside, ..Peer::clone(&vantage.peer) });
        let outward = Outward {
            proxy: Arc::clone(&proxy),
            vantage: Arc::clone(&vantage),
            address: ingress.service.vip,
            port: ingress.port,
            protocol: ingress.protocol,
            outside,
            source,
        };
        proxy.tasks.spawn(outward.carry(stream));
    };
    let serving = async {
        // Who knocks before there is a certificate waits in the socket's queue.
        vantage.identity.certified().await;
        accept(&listener, take).await;
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = serving => {}
    }
}

/// An IPv4 caller of an IPv6 socket is an IPv4 caller.
fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

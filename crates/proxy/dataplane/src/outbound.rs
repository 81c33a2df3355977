//! From an application, or a door, into the mesh.
//!
//! ```text
//! original destination ─▶ in the mesh? ─no─▶ past the mesh, as it is
//!                          │ yes
//! declared, or whichever speaks first ─▶ HTTP: request by request     else: bytes, by one tunnel
//! ```
//!
//! What a client speaks is told by its first bytes, and nobody waits for them with a clock: the
//! tunnel is opened meanwhile, so that a server that speaks first is heard.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use carrack_net::original;
use carrack_net::prefixed::Prefixed;
use carrack_snapshot::Workload;
use carrack_telemetry::access::{Outcome, Peer, Protocol, Reporter};
use carrack_xds as xds;
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

use crate::balance;
use crate::copy;
use crate::detect::{self, Guess};
use crate::http::{self, Forward, Way, Wire};
use crate::inbound;
use crate::proxy::Proxy;
use crate::report::{Exchange, Parties, stranger};
use crate::tunnel::{Carries, PORT as TUNNEL_PORT, TunnelError, TunnelStream};
use crate::vantage::Vantage;

/// Where captured connections of applications arrive.
pub(crate) const PORT: u16 = 15001;

/// The bytes of long connections are counted this often.
const COUNTING: Duration = Duration::from_secs(1);
/// A caller from outside the mesh sends a request's head within this time.
const HEAD: Duration = Duration::from_secs(60);

/// One connection on its way into the mesh.
pub(crate) struct Outward {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) vantage: Arc<Vantage>,
    pub(crate) address: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) protocol: Option<xds::Protocol>,
    /// The caller, when it is outside the mesh.
    pub(crate) outside: Option<IpAddr>,
    /// How records name the caller.
    pub(crate) source: Arc<Peer>,
}

/// Takes one captured connection to where it was going.
pub(crate) async fn captured(proxy: Arc<Proxy>, vantage: Arc<Vantage>, stream: TcpStream) {
    let to = match original::destination(&stream) {
        Ok(SocketAddr::V4(to)) => to,
        Ok(SocketAddr::V6(_)) | Err(_) => {
            tracing::debug!("a connection that was not redirected is closed");
            return;
        }
    };
    let snapshot = proxy.snapshot.load_full();
    let Some(target) = snapshot.target(*to.ip()) else {
        return past_the_mesh(&proxy, &vantage, stream, SocketAddr::V4(to)).await;
    };
    let own = vantage.peer.address == Some(IpAddr::V4(*to.ip()));
    if own && [PORT, inbound::PORT, TUNNEL_PORT].contains(&to.port()) {
        tracing::debug!(port = to.port(), "a connection to the proxy itself is closed");
        return;
    }
    let protocol = target.protocol(to.port());
    drop(snapshot);
    let (address, port) = (*to.ip(), to.port());
    let source = Arc::clone(&vantage.peer);
    let outward = Outward { proxy, vantage, address, port, protocol, outside: None, source };
    outward.carry(stream).await;
}

impl Outward {
    /// Carries one connection to its end.
    pub(crate) async fn carry(self, stream: TcpStream) {
        match Carries::declared(self.protocol) {
            Carries::Bytes => self.bytes(stream, BytesMut::new(), Carries::Bytes, None).await,
            Carries::Http => self.http(stream).await,
            Carries::Unknown => self.detect(stream).await,
        }
    }

    async fn http(self, mut stream: TcpStream) {
        let mut read = BytesMut::with_capacity(4096);
        let patience = if self.outside.is_some() { HEAD } else { Duration::MAX };
        let speaking = detect::first_bytes(&mut stream, &mut read);
        match tokio::time::timeout(patience, speaking).await {
            Ok(Ok(Some(Guess::Http2))) => self.requests(stream, read, Wire::Http2, None).await,
            // What is not HTTP after all is answered as a bad request.
            Ok(Ok(Some(_))) => self.requests(stream, read, Wire::Http1, None).await,
            Ok(Ok(None) | Err(_)) | Err(_) => {}
        }
    }

    /// Serves requests; a tunnel that is open already takes the first.
    async fn requests(
        self,
        stream: TcpStream,
        read: BytesMut,
        wire: Wire,
        tunnel: Option<(Ipv4Addr, TunnelStream)>,
    ) {
        let mut first = None;
        if let Some((endpoint, tunnel)) = tunnel {
            let to = SocketAddr::from((endpoint, self.port));
            if let Ok(lease) = self.vantage.upstreams.begin(to, wire, tunnel).await {
                lease.give_back();
                first = Some(endpoint);
            }
        }
        let Self { proxy, vantage, address, port, outside, source, .. } = self;
        let draining = proxy.draining.clone();
        let way = Way::Out { address, port, outside, source };
        let forward = Arc::new(Forward { proxy, vantage, way, first: Mutex::new(first) });
        http::serve(Prefixed::new(read.freeze(), stream), wire, forward, &draining).await;
    }

    /// Finds out what is spoken, by whoever speaks first.
    async fn detect(self, stream: TcpStream) {
        let mut read = BytesMut::with_capacity(4096);
        match read_what_is_there(&stream, &mut read).await {
            Ok(0) => return,
            Ok(_) => match detect::guess(&read) {
                Guess::Http1 => return self.requests(stream, read, Wire::Http1, None).await,
                Guess::Http2 => return self.requests(stream, read, Wire::Http2, None).await,
                Guess::Opaque => return self.bytes(stream, read, Carries::Bytes, None).await,
                Guess::More => {}
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
        match self.tunnel(Carries::Unknown).await {
            Ok((endpoint, tunnel)) => self.race(stream, read, endpoint, tunnel).await,
            Err(error) => self.without_tunnel(stream, read, error).await,
        }
    }

    /// Both ends are there; the first to speak decides.
    async fn race(
        self,
        mut stream: TcpStream,
        mut read: BytesMut,
        endpoint: Arc<Workload>,
        mut tunnel: TunnelStream,
    ) {
        let mut answered = BytesMut::with_capacity(4096);
        let spoken = tokio::select! {
            biased;
            spoken = detect::first_bytes(&mut stream, &mut read) => spoken,
            _ = tunnel.read_buf(&mut answered) => Ok(Some(Guess::Opaque)),
        };
        let to = endpoint.address;
        match spoken {
            Ok(Some(Guess::Http1)) => {
                self.requests(stream, read, Wire::Http1, Some((to, tunnel))).await;
            }
            Ok(Some(Guess::Http2)) => {
                self.requests(stream, read, Wire::Http2, Some((to, tunnel))).await;
            }
            Ok(Some(Guess::Opaque | Guess::More) | None) => {
                let tunnel = (endpoint, Prefixed::new(answered.freeze(), tunnel));
                self.bytes(stream, read, Carries::Bytes, Some(tunnel)).await;
            }
            Err(_) => {}
        }
    }

    /// The destination refused what it knew too little of, or is not there. A client that speaks
    /// HTTP is told so in HTTP, so it has a moment to show that it does.
    async fn without_tunnel(self, mut stream: TcpStream, mut read: BytesMut, error: TunnelError) {
        tracing::debug!(%error, "no tunnel for a client that has not spoken yet");
        let patience = self.proxy.timeouts.refusal;
        let speaking = detect::first_bytes(&mut stream, &mut read);
        match tokio::time::timeout(patience, speaking).await {
            Ok(Ok(Some(Guess::Http1))) => self.requests(stream, read, Wire::Http1, None).await,
            Ok(Ok(Some(Guess::Http2))) => self.requests(stream, read, Wire::Http2, None).await,
            Ok(Ok(_)) | Err(_) => self.bytes(stream, read, Carries::Bytes, None).await,
            Ok(Err(_)) => {}
        }
    }

    /// Opens a tunnel to the first endpoint that answers.
    async fn tunnel(&self, carries: Carries) -> Result<(Arc<Workload>, TunnelStream), TunnelError> {
        let snapshot = self.proxy.snapshot.load_full();
        let to = SocketAddr::from((self.address, self.port));
        let mut failure = TunnelError::NoEndpoint { to };
        let Some(target) = snapshot.target(self.address) else { return Err(failure) };
        for endpoint in balance::order(&self.vantage, target, None) {
            let (vantage, timeouts) = (&self.vantage, &self.proxy.timeouts);
            match vantage.tunnels.open(vantage, endpoint, self.port, carries, timeouts).await {
                Ok(tunnel) => return Ok((Arc::clone(endpoint), tunnel)),
                Err(error) if error.is_about_endpoint() => failure = error,
                Err(error) => return Err(error),
            }
        }
        Err(failure)
    }

    /// Passes bytes, whatever they are.
    async fn bytes(
        self,
        stream: TcpStream,
        read: BytesMut,
        carries: Carries,
        tunnel: Option<(Arc<Workload>, Prefixed<TunnelStream>)>,
    ) {
        let snapshot = self.proxy.snapshot.load_full();
        let target = snapshot.target(self.address).map(|target| Arc::clone(target.peer()));
        let called = || stranger("unknown", Some(IpAddr::V4(self.address)));
        let parties = Parties {
            reporter: Reporter::Source,
            source: Arc::clone(&self.source),
            destination: target.unwrap_or_else(called),
            port: self.port,
        };
        drop(snapshot);
        let exchange = Exchange::begin(&self.proxy, parties, Protocol::Tcp);
        let (endpoint, tunnel) = match tunnel {
            Some(tunnel) => tunnel,
            None => match self.tunnel(carries).await {
                Ok((endpoint, tunnel)) => (endpoint, Prefixed::new(bytes::Bytes::new(), tunnel)),
                Err(error) => return give_up(stream, &exchange, error),
            },
        };
        exchange.reached(&endpoint.peer);
        let caller = Prefixed::new(read.freeze(), stream);
        relay(caller, tunnel, &exchange).await;
    }
}

/// Reads without waiting. A client that sends as soon as it is connected has often done so by now,
/// and then no tunnel has to be opened to find out whether its server speaks first.
async fn read_what_is_there(stream: &TcpStream, read: &mut BytesMut) -> io::Result<usize> {
    let mut buffer = [0; 4096];
    // The runtime knows of a new socket's bytes only after its next look; the kernel knows now.
    let mut now = || io::Read::read(&mut &*SockRef::from(stream), &mut buffer);
    let mut count = now();
    if matches!(&count, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
        tokio::task::yield_now().await;
        count = now();
    }
    let count = count?;
    read.extend_from_slice(buffer.get(..count).unwrap_or_default());
    Ok(count)
}

/// Passes bytes both ways, counting them as they go, and notes how it ended.
pub(crate) async fn relay(
    caller: impl AsyncRead + AsyncWrite + Unpin,
    callee: impl AsyncRead + AsyncWrite + Unpin,
    exchange: &Exchange,
) {
    exchange.stands();
    let copying = copy::both(caller, callee, &exchange.passed);
    tokio::pin!(copying);
    let mut tick = tokio::time::interval(COUNTING);
    let copied = loop {
        tokio::select! {
            copied = &mut copying => break copied,
            _ = tick.tick() => exchange.count(),
        }
    };
    match copied {
        Ok(()) => exchange.end(Outcome::Answered),
        Err(error) => exchange.fail(Outcome::Broken, error.to_string()),
    }
}

fn give_up(stream: TcpStream, exchange: &Exchange, error: TunnelError) {
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
    let reason = format!("{error}{}", cause.unwrap_or_default());
    match error {
        TunnelError::Refused { decision, .. } => {
            exchange.fail(Outcome::Refused, reason);
            exchange.note(|record| record.refused_by = decision);
        }
        _ => exchange.fail(Outcome::Unreachable, reason),
    }
    reset(stream);
}

/// Closes so that the other end sees a failure, not an end.
pub(crate) fn reset(stream: TcpStream) {
    if let Err(error) = SockRef::from(&stream).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "a refused connection is closed in order instead");
    }
}

/// A destination outside the mesh is reached as if there were no mesh, unless it is a neighbor:
/// between neighbors nothing goes in clear.
async fn past_the_mesh(
    proxy: &Arc<Proxy>,
    vantage: &Arc<Vantage>,
    stream: TcpStream,
    to: SocketAddr,
) {
    let parties = Parties {
        reporter: Reporter::Source,
        source: Arc::clone(&vantage.peer),
        destination: stranger("external", Some(to.ip())),
        port: to.port(),
    };
    let exchange = Exchange::begin(proxy, parties, Protocol::Tcp);
    if let IpAddr::V4(address) = to.ip()
        && vantage.is_neighbor(address)
    {
        let reason = format!("{address} is on this network and not in the mesh");
        exchange.fail(Outcome::Refused, reason);
        return reset(stream);
    }
    match vantage.connect(to, proxy.timeouts.connect).await {
        Ok(outside) => {
            relay(stream, outside, &exchange).await;
        }
        Err(error) => {
            exchange.fail(Outcome::Unreachable, format!("connecting to {to}: {error}"));
            reset(stream);
        }
    }
}

//! From the mesh to the application: tunnels accepted, callers judged, bytes handed over.
//!
//! ```text
//! mutual TLS ─▶ CONNECT ─▶ for this workload? ─▶ HTTP: each request is judged
//!                                             └▶ bytes: judged once ─▶ the application
//! ```
//!
//! A CONNECT whose caller has not spoken yet is judged as bytes. When bytes may pass so may any
//! request; when they may not, the caller is told so and asks again once it knows what it carries.
//! Such a question leaves no record, the answer to the second one does.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use carrack_filters::authorize::{Call, Ruling};
use carrack_filters::headers::DECISION;
use carrack_net::prefixed::Prefixed;
use carrack_net::{original, tls};
use carrack_snapshot::Workload;
use carrack_spiffe::{SpiffeId, X509Svid};
use carrack_telemetry::access::{Decision, Outcome, Peer, Protocol, Reporter, Verdict};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::detect::{self, Guess};
use crate::http::{self as web, Forward, Way, Wire};
use crate::outbound::{self, reset};
use crate::proxy::Proxy;
use crate::report::{Exchange, Parties, stranger};
use crate::tunnel::{
    CONNECTION_WINDOW, Carries, FRAME, HEADERS, PORT as TUNNEL_PORT, SEND_BUFFER, STREAM_WINDOW,
    STREAMS, TunnelStream,
};
use crate::vantage::Vantage;

/// Where connections from outside the mesh arrive, to be refused.
pub(crate) const PORT: u16 = 15006;
/// A caller proves who it is within this time.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Refuses a connection that came without an identity.
pub(crate) fn plaintext(proxy: &Arc<Proxy>, vantage: &Arc<Vantage>, stream: TcpStream) {
    let port = original::destination(&stream).map_or(0, |to| to.port());
    let from = stream.peer_addr().map(|from| from.ip()).ok();
    let snapshot = proxy.snapshot.load();
    let source = match from {
        Some(IpAddr::V4(address)) => snapshot.at(address).map(|one| Arc::clone(&one.peer)),
        Some(IpAddr::V6(_)) | None => None,
    };
    let parties = Parties {
        reporter: Reporter::Destination,
        source: source.unwrap_or_else(|| stranger("unknown", from)),
        destination: Arc::clone(&vantage.peer),
        port,
    };
    let exchange = Exchange::begin(proxy, parties, Protocol::Tcp);
    let summary = "the caller proved no identity: it is outside the mesh".to_owned();
    exchange.fail(Outcome::Refused, summary.clone());
    exchange.note(|record| {
        record.decision = Some(Arc::new(Decision {
            verdict: Verdict::Denied,
            summary,
            policy: None,
            action: None,
            place: None,
            evidence: Vec::new(),
        }));
    });
    reset(stream);
}

/// One caller's connection to this workload.
struct Caller {
    proxy: Arc<Proxy>,
    vantage: Arc<Vantage>,
    uid: String,
    identity: Arc<SpiffeId>,
    address: IpAddr,
    peer: Arc<Peer>,
}

/// Accepts one connection from another proxy and every tunnel in it.
pub(crate) async fn tunneled(
    proxy: Arc<Proxy>,
    vantage: Arc<Vantage>,
    uid: String,
    stream: TcpStream,
) {
    let Ok(from) = stream.peer_addr() else { return };
    let shaken = match timeout(HANDSHAKE, vantage.identity.acceptor.accept(stream)).await {
        Ok(Ok(shaken)) => shaken,
        Ok(Err(error)) => return refuse_stranger(&proxy, &vantage, from, &error.to_string()),
        Err(_) => return refuse_stranger(&proxy, &vantage, from, "it did not finish in time"),
    };
    let certificates = shaken.get_ref().1.peer_certificates();
    let Some(identity) = tls::peer_identity(certificates) else { return };
    let expires = certificates.and_then(|chain| chain.first()).and_then(|leaf| remaining(leaf));
    let peer = name_caller(&proxy, &identity, from.ip());
    let caller =
        Caller { proxy, vantage, uid, identity: Arc::new(identity), address: from.ip(), peer };
    let handshake = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADERS)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_streams(STREAMS)
        .handshake::<_, Bytes>(shaken);
    match timeout(HANDSHAKE, handshake).await {
        Ok(Ok(connection)) => accept_streams(Arc::new(caller), connection, expires).await,
        Ok(Err(error)) => tracing::debug!(%from, %error, "a proxy did not speak HTTP/2"),
        Err(_) => tracing::debug!(%from, "a proxy did not speak in time"),
    }
}

/// A handshake that failed is a call refused, and leaves a record like any other.
fn refuse_stranger(proxy: &Arc<Proxy>, vantage: &Vantage, from: SocketAddr, error: &str) {
    let parties = Parties {
        reporter: Reporter::Destination,
        source: stranger("unknown", Some(from.ip())),
        destination: Arc::clone(&vantage.peer),
        port: TUNNEL_PORT,
    };
    let exchange = Exchange::begin(proxy, parties, Protocol::Tcp);
    exchange.fail(Outcome::Refused, format!("the caller proved no identity of this mesh: {error}"));
}

/// Time until a certificate may no longer be relied on.
fn remaining(leaf: &[u8]) -> Option<Duration> {
    let svid = X509Svid::parse(leaf).ok()?;
    let seconds = svid.validity().not_after - jiff::Timestamp::now().as_second();
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

fn name_caller(proxy: &Proxy, identity: &SpiffeId, address: IpAddr) -> Arc<Peer> {
    let snapshot = proxy.snapshot.load();
    if let IpAddr::V4(address) = address
        && let Some(workload) = snapshot.at(address)
        && workload.identity == *identity
    {
        return Arc::clone(&workload.peer);
    }
    Arc::new(Peer {
        namespace: identity.namespace().unwrap_or_default().into(),
        service: identity.service_account().unwrap_or("unknown").into(),
        workload: None,
        address: Some(address),
    })
}

async fn accept_streams(
    caller: Arc<Caller>,
    mut connection: h2::server::Connection<tokio_rustls::server::TlsStream<TcpStream>, Bytes>,
    expires: Option<Duration>,
) {
    let draining = caller.proxy.draining.child_token();
    let expiry = tokio::time::sleep(expires.unwrap_or(Duration::MAX));
    tokio::pin!(expiry);
    let mut leaving = false;
    loop {
        tokio::select! {
            biased;
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    let caller = Arc::clone(&caller);
                    let tasks = caller.proxy.tasks.clone();
                    tasks.spawn(async move { caller.stream(request, respond).await });
                }
                Some(Err(error)) => {
                    tracing::debug!(from = %caller.address, %error, "a proxy's connection broke");
                    return;
                }
                None => return,
            },
            () = draining.cancelled(), if !leaving => {
                connection.graceful_shutdown();
                leaving = true;
            }
            () = &mut expiry, if !leaving => {
                connection.graceful_shutdown();
                leaving = true;
            }
        }
    }
}

/// One CONNECT, with its answer still to be given.
struct Knock {
    respond: SendResponse<Bytes>,
    receive: RecvStream,
}

impl Knock {
    fn accept(mut self) -> Option<TunnelStream> {
        let send = self.respond.send_response(Response::new(()), false).ok()?;
        Some(TunnelStream::new(send, self.receive, None))
    }

    fn refuse(mut self, status: StatusCode, exchange: Option<&Exchange>) {
        let mut response = Response::new(());
        *response.status_mut() = status;
        if let Some(exchange) = exchange
            && let Ok(value) = HeaderValue::try_from(exchange.id().to_string())
        {
            response.headers_mut().insert(DECISION, value);
        }
        if let Err(error) = self.respond.send_response(response, true) {
            tracing::debug!(%error, "a refusal could not be delivered");
        }
    }
}

impl Caller {
    async fn stream(self: Arc<Self>, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        let (head, receive) = request.into_parts();
        let knock = Knock { respond, receive };
        let snapshot = self.proxy.snapshot.load_full();
        let Some(workload) = snapshot.workload(&self.uid).cloned() else {
            return knock.refuse(StatusCode::SERVICE_UNAVAILABLE, None);
        };
        drop(snapshot);
        let Some(port) = called_port(&head, &workload) else {
            tracing::debug!(uri = %head.uri, method = %head.method, "not a tunnel to this workload");
            return knock.refuse(StatusCode::BAD_REQUEST, None);
        };
        let declared = workload.protocols.get(&port).copied();
        let carries = match Carries::declared(declared) {
            Carries::Unknown => Carries::of(&head.headers),
            declared => declared,
        };
        match carries {
            Carries::Http => self.http(knock, port).await,
            Carries::Bytes => self.bytes(knock, &workload, port).await,
            Carries::Unknown => self.detect(knock, &workload, port).await,
        }
    }

    async fn http(self: Arc<Self>, knock: Knock, port: u16) {
        let Some(mut tunnel) = knock.accept() else { return };
        let mut read = BytesMut::with_capacity(4096);
        match detect::first_bytes(&mut tunnel, &mut read).await {
            Ok(Some(Guess::Http2)) => self.requests(tunnel, read, port, Wire::Http2).await,
            Ok(Some(_)) => self.requests(tunnel, read, port, Wire::Http1).await,
            Ok(None) | Err(_) => {}
        }
    }

    async fn requests(
        self: Arc<Self>,
        tunnel: TunnelStream,
        read: BytesMut,
        port: u16,
        wire: Wire,
    ) {
        let forward = Arc::new(Forward {
            proxy: Arc::clone(&self.proxy),
            vantage: Arc::clone(&self.vantage),
            way: Way::In {
                uid: self.uid.clone(),
                port,
                caller: Arc::clone(&self.identity),
                address: self.address,
                source: Arc::clone(&self.peer),
            },
            first: Mutex::new(None),
        });
        let stream = Prefixed::new(read.freeze(), tunnel);
        web::serve(stream, wire, forward, &self.proxy.draining).await;
    }

    fn begin(&self, port: u16) -> Arc<Exchange> {
        let parties = Parties {
            reporter: Reporter::Destination,
            source: Arc::clone(&self.peer),
            destination: Arc::clone(&self.vantage.peer),
            port,
        };
        Exchange::begin(&self.proxy, parties, Protocol::Tcp)
    }

    fn call(&self, port: u16) -> Call<'_> {
        Call { caller: Some(&self.identity), address: self.address, port, http: None }
    }

    async fn application(&self, workload: &Workload, port: u16) -> std::io::Result<TcpStream> {
        let to = SocketAddr::from((workload.address, port));
        self.vantage.connect(to, self.proxy.timeouts.connect).await
    }

    async fn bytes(self: Arc<Self>, knock: Knock, workload: &Workload, port: u16) {
        let exchange = self.begin(port);
        let ruling = workload.authorizer.decide(&self.call(port));
        if let Err(decision) = exchange.ruled(ruling) {
            exchange.fail(Outcome::Refused, decision.summary.clone());
            return knock.refuse(StatusCode::FORBIDDEN, Some(&exchange));
        }
        let application = match self.application(workload, port).await {
            Ok(application) => application,
            Err(error) => {
                let reason = format!("connecting to the application on port {port}: {error}");
                exchange.fail(Outcome::Unreachable, reason);
                return knock.refuse(StatusCode::SERVICE_UNAVAILABLE, None);
            }
        };
        let Some(tunnel) = knock.accept() else { return };
        self.relay(port, &exchange, tunnel, application).await;
    }

    /// Passes bytes for as long as the policies let them.
    async fn relay(
        &self,
        port: u16,
        exchange: &Exchange,
        caller: impl AsyncRead + AsyncWrite + Unpin,
        callee: impl AsyncRead + AsyncWrite + Unpin,
    ) {
        tokio::select! {
            () = outbound::relay(caller, callee, exchange) => {}
            revoked = self.revoked(port) => {
                exchange.fail(Outcome::Refused, format!("no longer allowed: {}", revoked.summary));
                exchange.note(|record| record.decision = Some(revoked));
            }
        }
    }

    /// Waits until a policy refuses what it let pass before.
    async fn revoked(&self, port: u16) -> Arc<Decision> {
        let mut swapped = self.proxy.swapped.subscribe();
        loop {
            let snapshot = self.proxy.snapshot.load_full();
            if let Some(workload) = snapshot.workload(&self.uid)
                && let Ruling::Denied(decision) = workload.authorizer.decide(&self.call(port))
            {
                return decision;
            }
            drop(snapshot);
            if swapped.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The caller has not spoken yet.
    async fn detect(self: Arc<Self>, knock: Knock, workload: &Workload, port: u16) {
        let ruling = workload.authorizer.decide(&self.call(port));
        if matches!(ruling, Ruling::Denied(_)) {
            return knock.refuse(StatusCode::FORBIDDEN, None);
        }
        let Ok(mut application) = self.application(workload, port).await else {
            return knock.refuse(StatusCode::SERVICE_UNAVAILABLE, None);
        };
        let Some(mut tunnel) = knock.accept() else { return };
        let (mut read, mut answered) = (BytesMut::with_capacity(4096), BytesMut::new());
        let spoken = tokio::select! {
            biased;
            spoken = detect::first_bytes(&mut tunnel, &mut read) => spoken,
            _ = application.read_buf(&mut answered) => Ok(Some(Guess::Opaque)),
        };
        let wire = match spoken {
            Ok(Some(Guess::Http1)) => Wire::Http1,
            Ok(Some(Guess::Http2)) => Wire::Http2,
            Ok(Some(Guess::Opaque | Guess::More) | None) => {
                let exchange = self.begin(port);
                // It may pass; this notes which policy says so.
                exchange.ruled(ruling).ok();
                let caller = Prefixed::new(read.freeze(), tunnel);
                let callee = Prefixed::new(answered.freeze(), application);
                return self.relay(port, &exchange, caller, callee).await;
            }
            // The caller went away, or opens another tunnel for what it carries.
            Err(_) => return tunnel.reset(Reason::CANCEL),
        };
        let to = SocketAddr::from((workload.address, port));
        if let Ok(lease) = self.vantage.application.begin(to, wire, application).await {
            lease.give_back();
        }
        self.requests(tunnel, read, port, wire).await;
    }
}

/// The port a CONNECT asks for, when it asks for this workload and not for its proxy.
fn called_port(head: &http::request::Parts, workload: &Workload) -> Option<u16> {
    if head.method != Method::CONNECT {
        return None;
    }
    let to: SocketAddr = head.uri.authority()?.as_str().parse().ok()?;
    let is_ours = [outbound::PORT, PORT, TUNNEL_PORT].contains(&to.port());
    (to.ip() == IpAddr::V4(workload.address) && !is_ours).then_some(to.port())
}

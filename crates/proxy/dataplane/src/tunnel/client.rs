//! Opening tunnels, over connections that are kept.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use carrack_filters::headers::DECISION;
use carrack_net::tls::{self, Held};
use carrack_snapshot::Workload;
use carrack_spiffe::SpiffeId;
use carrack_telemetry::access::DecisionId;
use h2::client::SendRequest;
use http::{Method, Request, StatusCode, Uri, Version};
use parking_lot::Mutex;
use rustls_pki_types::{IpAddr, ServerName};
use tokio::sync::Mutex as TaskMutex;
use tokio::time::timeout;

use super::stream::{Counted, TunnelStream};
use super::{
    CARRIES, CONNECTION_WINDOW, Carries, FRAME, HEADERS, PORT, SEND_BUFFER, STREAM_WINDOW,
};
use crate::config::Timeouts;
use crate::vantage::Vantage;

/// A connection that carries this many streams gets a sibling.
const CROWDED: usize = 256;

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunnelError {
    #[error("connecting to the proxy of {to}")]
    Connect { to: SocketAddr, source: io::Error },
    #[error("proving identities with the proxy of {to}")]
    Handshake { to: SocketAddr, source: io::Error },
    #[error("the proxy at {to} is {found}, not {wanted}")]
    OtherPeer { to: SocketAddr, found: String, wanted: SpiffeId },
    #[error("opening a tunnel to {to}")]
    Stream { to: SocketAddr, source: h2::Error },
    #[error("no answer from the proxy of {to} in time")]
    Late { to: SocketAddr },
    #[error("the proxy of {to} refused the connection")]
    Refused { to: SocketAddr, decision: Option<DecisionId> },
    #[error("the proxy of {to} cannot reach its application")]
    Unreachable { to: SocketAddr },
    #[error("{to} has no endpoint that is ready")]
    NoEndpoint { to: SocketAddr },
}

impl TunnelError {
    /// Whether another endpoint may do better.
    pub(crate) fn is_about_endpoint(&self) -> bool {
        !matches!(self, Self::Refused { .. })
    }
}

/// The connections to other proxies from one vantage, by the workload's uid.
#[derive(Default)]
pub(crate) struct Tunnels {
    slots: Mutex<HashMap<String, Arc<Slot>>>,
}

/// The connections to the proxy of one workload.
#[derive(Default)]
struct Slot {
    live: Mutex<Vec<Live>>,
    /// Held while connecting, so that many who want the same make one connection.
    connecting: TaskMutex<()>,
}

#[derive(Clone)]
struct Live {
    sender: SendRequest<Bytes>,
    streams: Arc<AtomicUsize>,
    /// The certificate it was made under.
    shown: Arc<Held>,
    /// Cleared when the connection ends.
    open: Arc<std::sync::atomic::AtomicBool>,
}

impl Tunnels {
    /// Opens a tunnel to `port` of a workload.
    pub(crate) async fn open(
        &self,
        vantage: &Vantage,
        workload: &Workload,
        port: u16,
        carries: Carries,
        timeouts: &Timeouts,
    ) -> Result<TunnelStream, TunnelError> {
        let to = SocketAddr::from((workload.address, port));
        let opening = async {
            let mut tries = 0;
            loop {
                tries += 1;
                let live = self.connection(vantage, workload, timeouts).await?;
                match open_stream(live.clone(), to, carries).await {
                    // The connection was closing as we used it: the next one will not be.
                    Err(TunnelError::Stream { source, .. }) if tries < 3 && is_stale(&source) => {
                        live.open.store(false, Ordering::Relaxed);
                    }
                    result => return result,
                }
            }
        };
        match timeout(timeouts.connect * 2, opening).await {
            Ok(result) => result,
            Err(_) => Err(TunnelError::Late { to }),
        }
    }

    async fn connection(
        &self,
        vantage: &Vantage,
        workload: &Workload,
        timeouts: &Timeouts,
    ) -> Result<Live, TunnelError> {
        let slot = self.slot(&workload.uid);
        if let Some(live) = slot.usable(vantage, CROWDED) {
            return Ok(live);
        }
        let _connecting = slot.connecting.lock().await;
        if let Some(live) = slot.usable(vantage, CROWDED) {
            return Ok(live);
        }
        let live = connect(vantage, workload, timeouts).await?;
        slot.live.lock().push(live.clone());
        Ok(live)
    }

    fn slot(&self, uid: &str) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(uid) {
            return Arc::clone(slot);
        }
        Arc::clone(slots.entry(uid.to_owned()).or_default())
    }

    /// Forgets connections to workloads that are gone; streams on them run to their end.
    pub(crate) fn retain(&self, mut wanted: impl FnMut(&str) -> bool) {
        self.slots.lock().retain(|uid, _| wanted(uid));
    }
}

impl Slot {
    /// A connection with room, made under the certificate we show today.
    fn usable(&self, vantage: &Vantage, crowded: usize) -> Option<Live> {
        let shown = vantage.identity.credentials.held()?;
        let mut live = self.live.lock();
        live.retain(|one| one.open.load(Ordering::Relaxed) && Arc::ptr_eq(&one.shown, &shown));
        live.iter()
            .filter(|one| one.streams.load(Ordering::Relaxed) < crowded)
            .min_by_key(|one| one.streams.load(Ordering::Relaxed))
            .cloned()
    }
}

async fn connect(
    vantage: &Vantage,
    workload: &Workload,
    timeouts: &Timeouts,
) -> Result<Live, TunnelError> {
    let to = SocketAddr::from((workload.address, PORT));
    let handshake = |source| TunnelError::Handshake { to, source };
    let shown = vantage
        .identity
        .credentials
        .held()
        .ok_or_else(|| handshake(io::Error::other("this end has no certificate yet")))?;
    let stream = vantage
        .connect(to, timeouts.connect)
        .await
        .map_err(|source| TunnelError::Connect { to, source })?;
    let name = ServerName::IpAddress(IpAddr::from(std::net::IpAddr::V4(workload.address)));
    let shaking = vantage.identity.connector.connect(name, stream);
    let stream = match timeout(timeouts.connect, shaking).await {
        Ok(shaken) => shaken.map_err(handshake)?,
        Err(_) => return Err(TunnelError::Late { to }),
    };
    let found = tls::peer_identity(stream.get_ref().1.peer_certificates());
    if found.as_ref() != Some(&workload.identity) {
        let found = found.map_or_else(|| "nobody".to_owned(), |found| found.to_string());
        return Err(TunnelError::OtherPeer { to, found, wanted: workload.identity.clone() });
    }
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADERS)
        .max_send_buffer_size(SEND_BUFFER)
        .enable_push(false)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(|source| TunnelError::Stream { to, source })?;
    let open = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let ended = Arc::clone(&open);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%to, %error, "a connection between proxies ended");
        }
        ended.store(false, Ordering::Relaxed);
    });
    Ok(Live { sender, streams: Arc::default(), shown, open })
}

async fn open_stream(
    live: Live,
    to: SocketAddr,
    carries: Carries,
) -> Result<TunnelStream, TunnelError> {
    let counted = Counted::new(&live.streams);
    let failed = |source| TunnelError::Stream { to, source };
    let mut sender = live.sender.ready().await.map_err(failed)?;
    let (response, send) =
        sender.send_request(connect_request(to, carries), false).map_err(failed)?;
    let response = response.await.map_err(failed)?;
    match response.status() {
        StatusCode::OK => Ok(TunnelStream::new(send, response.into_body(), Some(counted))),
        StatusCode::FORBIDDEN => {
            let named = response.headers().get(DECISION).and_then(|value| value.to_str().ok());
            Err(TunnelError::Refused { to, decision: named.and_then(DecisionId::parse) })
        }
        _ => Err(TunnelError::Unreachable { to }),
    }
}

fn connect_request(to: SocketAddr, carries: Carries) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.version_mut() = Version::HTTP_2;
    // An address and a port are always an authority.
    *request.uri_mut() = Uri::try_from(to.to_string()).unwrap_or_default();
    if let Some(value) = carries.header() {
        request.headers_mut().insert(CARRIES, value);
    }
    request
}

/// Whether the connection went away before it took notice of the stream.
fn is_stale(error: &h2::Error) -> bool {
    error.is_go_away() || error.is_io() || error.reason() == Some(h2::Reason::REFUSED_STREAM)
}

//! Answering queries for as long as it is let.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::op::ResponseCode;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use super::answer::{Transport, Verdict, answer, failure};
use super::forward;
use super::zone::Zone;
use crate::error::NetworkError;

/// Longer queries over UDP are cut, and then refused as malformed.
const QUERY_MAX: usize = 4096;
/// Queries being asked elsewhere at a time. More are answered "try again".
const FORWARDED_MAX: usize = 512;
/// Connections at a time. More wait to be accepted.
const CONNECTIONS_MAX: usize = 128;
/// A connection that says nothing for so long is closed.
const IDLE: Duration = Duration::from_secs(10);

/// The sockets of one network's name server.
#[derive(Debug)]
pub struct Sockets {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
}

impl Sockets {
    /// Binds both to `address`. Port 0 gives both the same port of the kernel's choice.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Listen`].
    pub async fn bind(address: SocketAddr) -> Result<Self, NetworkError> {
        let failed = |source| NetworkError::Listen { address, source };
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        let udp = UdpSocket::bind(address).await.map_err(failed)?;
        Ok(Self { udp: Arc::new(udp), tcp })
    }

    /// Where they listen.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// What every query is answered from.
#[derive(Clone)]
struct Sources {
    zone: Arc<ArcSwap<Zone>>,
    upstreams: Arc<[SocketAddr]>,
    forwarding: Arc<Semaphore>,
}

/// Answers queries from whatever `zone` holds at that moment, and passes the rest to
/// `upstreams`, in order.
///
/// Never returns; drop it to stop. All that it started stops with it.
pub async fn serve(
    sockets: Sockets,
    zone: Arc<ArcSwap<Zone>>,
    upstreams: Vec<SocketAddr>,
) -> std::convert::Infallible {
    let forwarding = Arc::new(Semaphore::new(FORWARDED_MAX));
    let sources = Sources { zone, upstreams: upstreams.into(), forwarding };
    let (never, _) =
        tokio::join!(serve_udp(sockets.udp, sources.clone()), serve_tcp(sockets.tcp, sources));
    never
}

async fn serve_udp(socket: Arc<UdpSocket>, sources: Sources) -> std::convert::Infallible {
    let mut buffer = vec![0; QUERY_MAX];
    let mut forwarded = JoinSet::new();
    loop {
        while forwarded.try_join_next().is_some() {}
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An earlier answer that could not be delivered is reported here.
            Err(error) => {
                debug!(%error, "receiving a query");
                tokio::task::yield_now().await;
                continue;
            }
        };
        let query = buffer.get(..length).unwrap_or_default();
        let verdict = answer(&sources.zone.load(), query, Transport::Udp);
        match verdict {
            Verdict::Answer(bytes) => reply(&socket, &bytes, client).await,
            Verdict::Ignore => {}
            Verdict::Forward => {
                let Some(permit) = sources.permit() else {
                    if let Some(busy) = failure(query, ResponseCode::ServFail) {
                        reply(&socket, &busy, client).await;
                    }
                    continue;
                };
                let (socket, query) = (Arc::clone(&socket), query.to_vec());
                let upstreams = Arc::clone(&sources.upstreams);
                forwarded.spawn(async move {
                    let answer = forward::over_udp(&query, &upstreams).await;
                    if let Some(bytes) = answer.or_else(|| failure(&query, ResponseCode::ServFail))
                    {
                        reply(&socket, &bytes, client).await;
                    }
                    drop(permit);
                });
            }
        }
    }
}

async fn reply(socket: &UdpSocket, bytes: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(bytes, client).await {
        debug!(%error, %client, "answering a query");
    }
}

async fn serve_tcp(listener: TcpListener, sources: Sources) -> std::convert::Infallible {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, client)) => {
                let sources = sources.clone();
                connections.spawn(async move {
                    if let Err(error) = converse(stream, &sources).await {
                        debug!(%error, %client, "a conversation about names ended");
                    }
                });
            }
            Err(error) => {
                debug!(%error, "accepting a connection about names");
                // Such as too many open files: they become fewer with time only.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn converse(mut stream: TcpStream, sources: &Sources) -> io::Result<()> {
    loop {
        let query = timeout(IDLE, forward::read_framed(&mut stream)).await??;
        let verdict = answer(&sources.zone.load(), &query, Transport::Tcp);
        let bytes = match verdict {
            Verdict::Answer(bytes) => Some(bytes),
            Verdict::Ignore => return Ok(()),
            Verdict::Forward => match sources.permit() {
                Some(_permit) => forward::over_tcp(&query, &sources.upstreams).await,
                None => None,
            },
        };
        let Some(bytes) = bytes.or_else(|| failure(&query, ResponseCode::ServFail)) else {
            return Ok(());
        };
        timeout(IDLE, forward::write_framed(&mut stream, &bytes)).await??;
    }
}

impl Sources {
    fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.forwarding).try_acquire_owned().ok()
    }
}

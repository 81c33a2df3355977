//! Connections to callees that speak HTTP, kept for the next request.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::Body;
use crate::tunnel::{CONNECTION_WINDOW, STREAM_WINDOW};

/// Connections kept for one callee.
const KEPT: usize = 256;
/// A connection unused for longer is not trusted to be there still.
const IDLE: Duration = Duration::from_secs(30);

/// Which HTTP is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wire {
    /// HTTP/1.x: one request at a time.
    Http1,
    /// HTTP/2: many.
    Http2,
}

/// A callee, and what is spoken with it.
type Key = (SocketAddr, Wire);

/// The connections of one vantage, by callee.
#[derive(Clone, Default)]
pub(crate) struct Upstreams {
    idle: Arc<Mutex<HashMap<Key, Vec<Idle>>>>,
}

struct Idle {
    sender: Sender,
    since: Instant,
}

pub(crate) enum Sender {
    One(http1::SendRequest<Body>),
    Many(http2::SendRequest<Body>),
}

/// A connection in use, to be given back.
pub(crate) struct Lease {
    pool: Upstreams,
    key: Key,
    sender: Sender,
}

/// Why a request was not answered.
pub(crate) enum SendError {
    /// It never left: another connection may take it.
    Unsent(Box<Request<Body>>),
    /// It may have been acted on.
    Broken(hyper::Error),
}

impl Upstreams {
    /// A kept connection, if there is one that lives.
    pub(crate) fn take(&self, to: SocketAddr, wire: Wire) -> Option<Lease> {
        let key = (to, wire);
        let mut idle = self.idle.lock();
        let kept = idle.get_mut(&key)?;
        loop {
            let one = kept.pop()?;
            if one.sender.is_closed() || one.since.elapsed() > IDLE {
                continue;
            }
            let sender = match one.sender {
                Sender::One(sender) => Sender::One(sender),
                Sender::Many(sender) => {
                    let again = Sender::Many(sender.clone());
                    kept.push(Idle { sender: again, since: Instant::now() });
                    Sender::Many(sender)
                }
            };
            return Some(Lease { pool: self.clone(), key, sender });
        }
    }

    /// Starts HTTP on a new connection.
    pub(crate) async fn begin(
        &self,
        to: SocketAddr,
        wire: Wire,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Lease, hyper::Error> {
        let stream = TokioIo::new(stream);
        let sender = match wire {
            Wire::Http1 => {
                let (sender, connection) = http1::Builder::new().handshake(stream).await?;
                tokio::spawn(async move {
                    if let Err(error) = connection.with_upgrades().await {
                        tracing::debug!(%to, %error, "an HTTP/1 connection ended");
                    }
                });
                Sender::One(sender)
            }
            Wire::Http2 => {
                let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                    .initial_stream_window_size(STREAM_WINDOW)
                    .initial_connection_window_size(CONNECTION_WINDOW)
                    .handshake(stream)
                    .await?;
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%to, %error, "an HTTP/2 connection ended");
                    }
                });
                self.keep((to, wire), Sender::Many(sender.clone()));
                Sender::Many(sender)
            }
        };
        Ok(Lease { pool: self.clone(), key: (to, wire), sender })
    }

    fn keep(&self, key: Key, sender: Sender) {
        let mut idle = self.idle.lock();
        let kept = idle.entry(key).or_default();
        if kept.len() >= KEPT || kept.first().is_some_and(|one| one.since.elapsed() > IDLE) {
            kept.retain(|one| !one.sender.is_closed() && one.since.elapsed() <= IDLE);
        }
        if kept.len() < KEPT {
            kept.push(Idle { sender, since: Instant::now() });
        }
    }

    /// Forgets callees that are gone.
    pub(crate) fn retain(&self, mut wanted: impl FnMut(SocketAddr) -> bool) {
        self.idle.lock().retain(|(address, _), _| wanted(*address));
    }
}

impl Sender {
    fn is_closed(&self) -> bool {
        match self {
            Self::One(sender) => sender.is_closed(),
            Self::Many(sender) => sender.is_closed(),
        }
    }
}

impl Lease {
    /// Sends one request and waits for the head of its response.
    pub(crate) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, SendError> {
        let answered = match &mut self.sender {
            Sender::One(sender) => {
                if sender.ready().await.is_err() {
                    return Err(SendError::Unsent(Box::new(request)));
                }
                sender.try_send_request(request).await
            }
            Sender::Many(sender) => {
                if sender.ready().await.is_err() {
                    return Err(SendError::Unsent(Box::new(request)));
                }
                sender.try_send_request(request).await
            }
        };
        answered.map_err(|mut error| match error.take_message() {
            Some(request) => SendError::Unsent(Box::new(request)),
            None => SendError::Broken(error.into_error()),
        })
    }

    /// Keeps the connection for the next request. A connection that is never given back closes.
    pub(crate) fn give_back(self) {
        let Self { pool, key, sender } = self;
        match sender {
            Sender::One(sender) => pool.keep(key, Sender::One(sender)),
            // Shared; the pool has it.
            Sender::Many(_) => {}
        }
    }
}

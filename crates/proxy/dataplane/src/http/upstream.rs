//! Connections to callees that speak HTTP, kept for the next request.
//!
//! An HTTP/1 connection has no task of its own: whoever uses it drives it, in the task that
//! already serves the caller, so that a request wakes no other task on its way. While it is kept
//! nobody drives it, so a connection the callee has closed is found out when it is taken up again,
//! before anything is sent on it.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::Body;
use super::nudge::Nudge;
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

enum Sender {
    One(Exclusive),
    Many(http2::SendRequest<Body>),
}

/// An HTTP/1 connection, driven by whoever has it.
struct Exclusive {
    sender: http1::SendRequest<Body>,
    /// None once it has ended.
    connection: Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>,
    nudge: Arc<Nudge>,
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
            if !one.is_usable() {
                continue;
            }
            if let Sender::Many(sender) = &one.sender {
                let again = Sender::Many(sender.clone());
                kept.push(Idle { sender: again, since: Instant::now() });
            }
            return Some(Lease { pool: self.clone(), key, sender: one.sender });
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
                let connection = Some(Box::pin(connection.with_upgrades()) as _);
                Sender::One(Exclusive { sender, connection, nudge: Arc::default() })
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
        if kept.len() < KEPT {
            kept.push(Idle { sender, since: Instant::now() });
        }
    }

    /// Closes connections that were not used for long, and forgets callees that are gone.
    pub(crate) fn sweep(&self, mut wanted: impl FnMut(SocketAddr) -> bool) {
        self.idle.lock().retain(|(address, _), kept| {
            kept.retain(Idle::is_usable);
            !kept.is_empty() && wanted(*address)
        });
    }
}

impl Idle {
    fn is_usable(&self) -> bool {
        let closed = match &self.sender {
            Sender::One(one) => one.connection.is_none() || one.sender.is_closed(),
            Sender::Many(sender) => sender.is_closed(),
        };
        !closed && self.since.elapsed() <= IDLE
    }
}

impl Exclusive {
    /// Moves the connection on; forgets it when it has ended.
    fn drive(&mut self, context: &mut Context<'_>) {
        let Some(connection) = &mut self.connection else { return };
        if let Poll::Ready(ended) = connection.as_mut().poll(context) {
            self.connection = None;
            if let Err(error) = ended {
                tracing::debug!(%error, "an HTTP/1 connection ended");
            }
        }
    }

    async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, SendError> {
        let nudge = Arc::clone(&self.nudge);
        let ready = poll_fn(|context| {
            nudge.poll(context, |context| {
                self.drive(context);
                self.sender.poll_ready(context)
            })
        });
        if ready.await.is_err() {
            return Err(SendError::Unsent(Box::new(request)));
        }
        let mut answer = pin!(nudge.before_poll(|| self.sender.try_send_request(request)));
        let connection = &mut self.connection;
        let answered = poll_fn(|context| {
            nudge.poll(context, |context| {
                if let Some(driven) = connection
                    && driven.as_mut().poll(context).is_ready()
                {
                    *connection = None;
                }
                answer.as_mut().poll(context)
            })
        });
        answered.await.map_err(unsent)
    }
}

impl Lease {
    /// Sends one request and waits for the head of its response.
    pub(crate) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, SendError> {
        match &mut self.sender {
            Sender::One(exclusive) => exclusive.send(request).await,
            Sender::Many(sender) => {
                if sender.ready().await.is_err() {
                    return Err(SendError::Unsent(Box::new(request)));
                }
                sender.try_send_request(request).await.map_err(unsent)
            }
        }
    }

    /// Reads the response's body, and moves the connection on that it comes by.
    pub(super) fn poll_body(
        &mut self,
        body: &mut Incoming,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Sender::One(exclusive) = &mut self.sender else {
            return Pin::new(body).poll_frame(context);
        };
        let nudge = Arc::clone(&exclusive.nudge);
        nudge.poll(context, |context| {
            let frame = Pin::new(&mut *body).poll_frame(context);
            if frame.is_ready() {
                return frame;
            }
            // It has asked for more now; the connection brings it.
            exclusive.drive(context);
            Pin::new(&mut *body).poll_frame(context)
        })
    }

    /// Keeps the connection for the next request, unless this one is still being sent on it. A
    /// connection that is never given back closes.
    pub(crate) fn give_back(self) {
        let Self { pool, key, sender } = self;
        // What is shared is in the pool already.
        let Sender::One(mut exclusive) = sender else { return };
        exclusive.drive(&mut Context::from_waker(Waker::noop()));
        if exclusive.sender.is_ready() && exclusive.connection.is_some() {
            pool.keep(key, Sender::One(exclusive));
        }
    }

    /// Lets the connection run by itself, to hand over what it is switched to.
    pub(crate) fn release(self) {
        if let Sender::One(Exclusive { connection: Some(connection), .. }) = self.sender {
            tokio::spawn(connection);
        }
    }
}

fn unsent(mut error: hyper::client::conn::TrySendError<Request<Body>>) -> SendError {
    match error.take_message() {
        Some(request) => SendError::Unsent(Box::new(request)),
        None => SendError::Broken(error.into_error()),
    }
}

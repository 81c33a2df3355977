//! Serving HTTP to one caller's connection.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::forward::Forward;
use super::upstream::Wire;
use crate::tunnel::{CONNECTION_WINDOW, STREAM_WINDOW};

/// Heads larger than this are answered 431.
const HEAD: usize = 64 << 10;
/// A caller from outside sends the head of its next request within this time, or is let go.
const PATIENCE: Duration = Duration::from_secs(60);
/// Requests of one HTTP/2 connection at a time.
const STREAMS: u32 = 256;

/// Answers every request of a connection by passing it on, until the caller ends it or
/// `draining`.
pub(crate) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    wire: Wire,
    forward: Arc<Forward>,
    draining: &CancellationToken,
) {
    // A token of its own: one that all connections poll would have them queue for its lock.
    let draining = &draining.child_token();
    let ended = match wire {
        Wire::Http1 => serve_http1(stream, forward, draining).await,
        Wire::Http2 => serve_http2(stream, forward, draining).await,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a caller's HTTP connection ended early");
    }
}

async fn serve_http1(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    forward: Arc<Forward>,
    draining: &CancellationToken,
) -> hyper::Result<()> {
    let mut builder = http1::Builder::new();
    builder.half_close(true).max_header_size(HEAD).auto_date_header(false);
    if forward.is_from_outside() {
        builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    }
    let service = service_fn(move |request| {
        let forward = Arc::clone(&forward);
        async move { Ok::<_, Infallible>(forward.answer(request, Wire::Http1).await) }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(connection);
    tokio::select! {
        biased;
        ended = &mut connection => ended,
        () = draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

async fn serve_http2(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    forward: Arc<Forward>,
    draining: &CancellationToken,
) -> hyper::Result<()> {
    let service = service_fn(move |request| {
        let forward = Arc::clone(&forward);
        async move { Ok::<_, Infallible>(forward.answer(request, Wire::Http2).await) }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(64 << 10)
        .max_concurrent_streams(STREAMS)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        biased;
        ended = &mut connection => ended,
        () = draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

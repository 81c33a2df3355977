//! Answering over HTTP/1, on a Unix socket or on loopback.
//!
//! For pages and admin endpoints: small answers to few callers. The data plane has its own.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A body that is whole or streams.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Time for answers underway to end once the server is asked to stop.
const DRAIN: Duration = Duration::from_secs(2);
/// Time for a caller to send its request's head.
const HEAD: Duration = Duration::from_secs(10);

/// Answers with `content` of the given content type.
pub fn answer(
    status: StatusCode,
    content_type: &'static str,
    content: impl Into<Bytes>,
) -> Response<Body> {
    let body = Full::new(content.into()).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Answers with a line of text.
pub fn text(status: StatusCode, line: impl Into<String>) -> Response<Body> {
    let mut line = line.into();
    line.push('\n');
    answer(status, "text/plain; charset=utf-8", line)
}

/// Answers with JSON that is already written.
pub fn json(status: StatusCode, content: impl Into<Bytes>) -> Response<Body> {
    answer(status, "application/json", content)
}

/// Answers every request on a Unix socket with `handler`, until `shutdown`.
///
/// Who may connect is the business of the socket's file mode.
pub async fn unix<H, F>(listener: UnixListener, handler: H, shutdown: impl Future<Output = ()>)
where
    H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    serve(listener, Arc::new(handler), shutdown).await;
}

/// Answers every request on a loopback address with `handler`, until `shutdown`.
///
/// A request whose `Host` is not a loopback name or address is refused: it comes from a web page
/// that has pointed its own name here.
pub async fn loopback<H, F>(listener: TcpListener, handler: H, shutdown: impl Future<Output = ()>)
where
    H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let handler = Arc::new(handler);
    let checked = move |request: Request<Incoming>| {
        let handler = Arc::clone(&handler);
        async move {
            if is_addressed_to_loopback(&request) {
                return handler(request).await;
            }
            let line = "the Host header must name localhost or a loopback address";
            text(StatusCode::MISDIRECTED_REQUEST, line)
        }
    };
    serve(listener, Arc::new(checked), shutdown).await;
}

fn is_addressed_to_loopback<B>(request: &Request<B>) -> bool {
    let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    let authority = host.and_then(|host| host.parse::<http::uri::Authority>().ok());
    authority.is_some_and(|authority| is_loopback_name(authority.host()))
}

fn is_loopback_name(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Where connections come from.
trait Accept {
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = Self::accept(self).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

async fn serve<A, H, F>(listener: A, handler: Arc<H>, shutdown: impl Future<Output = ()>)
where
    A: Accept,
    H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let connections = TaskTracker::new();
    let stop = CancellationToken::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(stream) => {
                connections.spawn(converse(stream, Arc::clone(&handler), stop.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection");
                // Out of descriptors, most likely; trying at once would only spin.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    stop.cancel();
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::debug!("answers still underway were cut off");
    }
}

async fn converse<S, H, F>(stream: S, handler: Arc<H>, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a local HTTP conversation ended early");
    }
}

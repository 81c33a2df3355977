//! Applications to put behind the mesh.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Answers with what it was asked: `name method path host`, then some headers, then the body.
async fn echo(name: &str, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let header = |name: &str| {
        head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("-").to_owned()
    };
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let line = format!(
        "{name} {} {} host={} trace={} for={} {}",
        head.method,
        head.uri.path(),
        header("host"),
        header("traceparent"),
        header("x-forwarded-for"),
        String::from_utf8_lossy(&body),
    );
    Response::builder()
        .header("x-carrack-decision", "0123456789abcdef")
        .body(Full::new(line.into()))
        .expect("a response")
}

/// HTTP/1.1 and, with the preface, HTTP/2.
pub(crate) fn http(name: &'static str, listener: TcpListener) {
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accepts");
            let service =
                service_fn(
                    move |request| async move { Ok::<_, Infallible>(echo(name, request).await) },
                );
            tokio::spawn(async move {
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                connection.await.ok();
            });
        }
    });
}

/// HTTP/2 without TLS.
pub(crate) fn http2(name: &'static str, listener: TcpListener) {
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accepts");
            let service =
                service_fn(
                    move |request| async move { Ok::<_, Infallible>(echo(name, request).await) },
                );
            tokio::spawn(async move {
                let builder = http2::Builder::new(TokioExecutor::new());
                builder.serve_connection(TokioIo::new(stream), service).await.ok();
            });
        }
    });
}

/// Switches to an echo of bytes when asked for `websocket`.
pub(crate) fn websocket(listener: TcpListener) {
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accepts");
            tokio::spawn(async move {
                let service = service_fn(upgrade);
                let builder = http1::Builder::new();
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                connection.with_upgrades().await.ok();
            });
        }
    });
}

async fn upgrade(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let asked = request.headers().get("upgrade").is_some_and(|value| value == "websocket");
    if asked {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let stream = TokioIo::new(upgraded.await.expect("upgrades"));
            let (mut read, mut write) = tokio::io::split(stream);
            tokio::io::copy(&mut read, &mut write).await.ok();
        });
    }
    let response = Response::builder()
        .status(if asked { StatusCode::SWITCHING_PROTOCOLS } else { StatusCode::BAD_REQUEST })
        .header("connection", "upgrade")
        .header("upgrade", "websocket");
    Ok(response.body(Full::default()).expect("a response"))
}

/// Returns every byte.
pub(crate) fn bytes(listener: TcpListener) {
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await.ok();
                write.shutdown().await.ok();
            });
        }
    });
}

/// Speaks first, then returns one line.
pub(crate) fn greeting(listener: TcpListener) {
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            tokio::spawn(async move {
                stream.write_all(b"220 ready\r\n").await.ok();
                let mut line = [0; 64];
                let count = stream.read(&mut line).await.unwrap_or(0);
                stream.write_all(line.get(..count).unwrap_or_default()).await.ok();
            });
        }
    });
}

//! Questions about the proxy, answered on its Unix socket.

use std::sync::Arc;
use std::time::Duration;

use carrack_net::serve::{self, Body, answer, json, text};
use carrack_telemetry::metrics::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use crate::proxy::Proxy;

/// The longest that `GET /config?after=REVISION` is answered after.
const NEWS: Duration = Duration::from_secs(2);

pub(crate) async fn serve(listener: UnixListener, proxy: Arc<Proxy>, stop: CancellationToken) {
    let handler = move |request: Request<Incoming>| {
        let proxy = Arc::clone(&proxy);
        async move {
            if let Some(known) = request.uri().query().and_then(known_revision) {
                news(&proxy, known).await;
            }
            route(&proxy, request.method(), request.uri().path())
        }
    };
    serve::unix(listener, handler, stop.cancelled_owned()).await;
}

/// The revision in `after=REVISION`.
fn known_revision(query: &str) -> Option<u64> {
    query.split('&').find_map(|pair| pair.strip_prefix("after=")?.parse().ok())
}

/// Waits for a receipt other than the one that is known, but not for ever: nobody has to wonder
/// whether this proxy is still there, or the same.
async fn news(proxy: &Proxy, known: u64) {
    let mut receipt = proxy.receipt();
    let other = receipt.wait_for(|receipt| receipt.revision != known);
    tokio::select! {
        _ = other => {}
        () = tokio::time::sleep(NEWS) => {}
        () = proxy.draining.cancelled() => {}
    }
}

fn route(proxy: &Proxy, method: &Method, path: &str) -> Response<Body> {
    if method != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here");
    }
    match path {
        "/metrics" => metrics(proxy),
        "/config" => written(&*proxy.receipt().borrow()),
        "/certificates" => written(&certificates(proxy)),
        "/ready" => ready(proxy),
        _ => text(StatusCode::NOT_FOUND, "there are /metrics, /config, /certificates and /ready"),
    }
}

fn metrics(proxy: &Proxy) -> Response<Body> {
    match proxy.metrics.encode() {
        Ok(page) => answer(StatusCode::OK, CONTENT_TYPE, page),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn ready(proxy: &Proxy) -> Response<Body> {
    if proxy.snapshot.load().version().is_empty() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "no resources are in force yet");
    }
    text(StatusCode::OK, "ready")
}

fn written(content: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec_pretty(content) {
        Ok(content) => json(StatusCode::OK, content),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// A certificate in use, without its key.
#[derive(Serialize)]
struct Certificate {
    id: String,
    serial: String,
    not_before: Option<jiff::Timestamp>,
    not_after: Option<jiff::Timestamp>,
}

fn certificates(proxy: &Proxy) -> Vec<Certificate> {
    let identities = proxy.identities.all();
    let held = identities.iter().filter_map(|identity| identity.credentials.held());
    held.map(|held| {
        let validity = held.validity();
        Certificate {
            id: held.svid().id().to_string(),
            serial: held.svid().serial().to_owned(),
            not_before: jiff::Timestamp::from_second(validity.not_before).ok(),
            not_after: jiff::Timestamp::from_second(validity.not_after).ok(),
        }
    })
    .collect()
}

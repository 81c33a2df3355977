//! The page and what it asks for, over HTTP.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | the page |
//! | `GET /api/graph` | [`Graph`](crate::Graph) |
//! | `GET /api/history` | a list of [`EdgeHistory`](crate::EdgeHistory), once for the page |
//! | `GET /api/state` | [`State`](crate::State), once a second for the page |
//! | `GET /api/records?limit=N&refused=true` | the newest records |
//! | `GET /api/why/ID` | [`Explanation`](crate::Explanation), or 404 |
//! | `GET /metrics` | the proxy's metrics |

use std::future::Future;
use std::sync::Arc;

use carrack_net::serve::{self, Body};
use carrack_telemetry::logging::chain;
use carrack_telemetry::metrics;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Request, Response, StatusCode};
use serde::Serialize;
use tokio::net::{TcpListener, UnixListener};

use crate::{Observe, WhyError, page};

/// Records the page shows, and the most that are handed out at once.
const RECORDS: (usize, usize) = (60, 200);

/// What the page may do: run what came with it, and ask where it came from.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

impl Observe {
    /// Serves the page on a loopback address until `shutdown`. Requests whose
    /// `Host` is not a loopback one are refused.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        serve::loopback(listener, self.handler(), shutdown).await;
    }

    /// Serves the same on a Unix socket, for programs.
    pub async fn serve_unix(
        self: Arc<Self>,
        listener: UnixListener,
        shutdown: impl Future<Output = ()>,
    ) {
        serve::unix(listener, self.handler(), shutdown).await;
    }

    fn handler<B>(
        self: &Arc<Self>,
    ) -> impl Fn(Request<B>) -> std::pin::Pin<Box<dyn Future<Output = Response<Body>> + Send>>
    + Send
    + Sync
    + 'static
    + use<B> {
        let this = Arc::clone(self);
        move |request| {
            let this = Arc::clone(&this);
            let (method, uri) = (request.method().clone(), request.uri().clone());
            Box::pin(async move { guarded(this.answer(&method, &uri).await) })
        }
    }

    async fn answer(self: Arc<Self>, method: &Method, uri: &http::Uri) -> Response<Body> {
        if method != Method::GET && method != Method::HEAD {
            return serve::text(StatusCode::METHOD_NOT_ALLOWED, "this page is only read");
        }
        let query = uri.query().unwrap_or_default();
        match uri.path() {
            "/api/graph" => json(&self.graph()),
            "/api/history" => json(&self.history()),
            "/api/state" => json(&self.state(RECORDS.0)),
            "/api/records" => {
                let limit = parameter(query, "limit").and_then(|text| text.parse().ok());
                let refused = parameter(query, "refused") == Some("true");
                json(&self.records(limit.unwrap_or(RECORDS.0).min(RECORDS.1), refused))
            }
            "/metrics" => serve::answer(StatusCode::OK, metrics::CONTENT_TYPE, self.metrics()),
            path => match (path.strip_prefix("/api/why/"), page::asset(path)) {
                (Some(id), _) => self.answer_why(id.to_owned()).await,
                (None, Some(asset)) => {
                    serve::answer(StatusCode::OK, asset.content_type, asset.content)
                }
                (None, None) => serve::text(StatusCode::NOT_FOUND, "there is no such page"),
            },
        }
    }

    async fn answer_why(self: Arc<Self>, id: String) -> Response<Body> {
        let found = tokio::task::spawn_blocking(move || self.why(&id)).await;
        match found {
            Ok(Ok(Some(explanation))) => json(&explanation),
            Ok(Ok(None)) => {
                serve::text(StatusCode::NOT_FOUND, "no record of it is left in the access log")
            }
            Ok(Err(error @ WhyError::NotAnId { .. })) => {
                serve::text(StatusCode::BAD_REQUEST, error.to_string())
            }
            Ok(Err(error)) => serve::text(StatusCode::INTERNAL_SERVER_ERROR, chain(&error)),
            Err(panic) => serve::text(StatusCode::INTERNAL_SERVER_ERROR, panic.to_string()),
        }
    }
}

fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// What is on this page is for whoever opened it and for nobody else.
fn guarded(mut response: Response<Body>) -> Response<Body> {
    let headers: [(HeaderName, &'static str); 4] = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn json(content: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(content) {
        Ok(bytes) => serve::json(StatusCode::OK, bytes),
        Err(error) => serve::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

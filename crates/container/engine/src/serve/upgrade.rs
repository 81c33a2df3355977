//! Connections that become streams of frames.

use std::sync::Arc;

use bytes::Bytes;
use carrack_net::serve::Body;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;

use crate::api::UPGRADE_PROTOCOL;
use crate::container::Container;
use crate::engine::Engine;
use crate::error::EngineError;

pub(super) fn exec(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    request: Request<Incoming>,
) -> Result<Response<Body>, EngineError> {
    let (engine_for, container) = (Arc::clone(engine), Arc::clone(container));
    switch(engine, request, |stream| async move {
        engine_for.serve_exec(&container, stream).await;
    })
}

pub(super) fn attach(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    request: Request<Incoming>,
) -> Result<Response<Body>, EngineError> {
    let (engine_for, container) = (Arc::clone(engine), Arc::clone(container));
    switch(engine, request, |stream| async move {
        engine_for.serve_attach(&container, stream).await;
    })
}

/// Agrees to the upgrade and hands the connection on once it is one.
fn switch<F>(
    engine: &Arc<Engine>,
    request: Request<Incoming>,
    serve: impl FnOnce(TokioIo<Upgraded>) -> F + Send + 'static,
) -> Result<Response<Body>, EngineError>
where
    F: Future<Output = ()> + Send + 'static,
{
    let asked = request.headers().get(header::UPGRADE);
    if asked.is_none_or(|protocol| protocol != UPGRADE_PROTOCOL) {
        return Err(EngineError::Invalid(format!(
            "{} is only for connections that upgrade to {UPGRADE_PROTOCOL}",
            request.uri().path()
        )));
    }
    engine.tasks.spawn(async move {
        match hyper::upgrade::on(request).await {
            Ok(upgraded) => serve(TokioIo::new(upgraded)).await,
            Err(error) => tracing::debug!(%error, "a connection was not upgraded after all"),
        }
    });
    let body = Empty::<Bytes>::new().map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(UPGRADE_PROTOCOL));
    Ok(response)
}

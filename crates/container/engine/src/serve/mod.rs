//! Answering over the engine's socket.
//!
//! A request is read, one method of the engine is called, and what it says is written. What the
//! engine does goes on when the client leaves, as far as leaving it half done would help nobody:
//! `up` and `down` are finished, a followed log is not.

mod query;
mod route;
mod upgrade;

use std::convert::Infallible;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use carrack_net::serve::Body;
use futures_util::StreamExt;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame as BodyFrame, Incoming};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::api::Event;
use crate::engine::Engine;
use crate::error::EngineError;

/// The largest request. An application of a thousand services fits.
const LARGEST_REQUEST: usize = 16 << 20;
/// Values of a streamed answer that wait for a client that reads slowly.
const PENDING: usize = 64;

impl Engine {
    /// Answers on `listener` until `shutdown`, then closes the engine. Containers live on.
    pub async fn serve(
        self: Arc<Self>,
        listener: UnixListener,
        shutdown: impl Future<Output = ()> + Send,
    ) {
        let engine = Arc::clone(&self);
        let handler = move |request: Request<Incoming>| {
            let engine = Arc::clone(&engine);
            async move { engine.answer(request).await }
        };
        let closing = self.closing.clone();
        let stop = async move {
            tokio::select! {
                () = shutdown => {}
                () = closing.cancelled() => {}
            }
            // Streams that would never end by themselves end now, not when patience does.
            closing.cancel();
        };
        carrack_net::serve::unix(listener, handler, stop).await;
        self.close().await;
    }

    /// Does `work`, unless the engine closes meanwhile: then what is half done is left to the next
    /// engine, as if this one had been killed.
    async fn unless_closing<T>(
        &self,
        work: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        tokio::select! {
            done = work => done,
            () = self.closing.cancelled() => {
                Err(EngineError::Conflict("the engine is closing; ask the next one".to_owned()))
            }
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let answered = self.route(request).await;
        answered.unwrap_or_else(|error| {
            let fault = error.fault();
            tracing::info!(%method, %path, error = %fault.message, causes = ?fault.causes, "a request was refused");
            refusal(&error)
        })
    }
}

fn refusal(error: &EngineError) -> Response<Body> {
    let status = match error {
        EngineError::NotFound { .. } => StatusCode::NOT_FOUND,
        EngineError::Conflict(_) => StatusCode::CONFLICT,
        EngineError::Invalid(_) => StatusCode::BAD_REQUEST,
        EngineError::Plan(_) => StatusCode::UNPROCESSABLE_ENTITY,
        EngineError::Failed { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    };
    with_json(status, &error.fault())
}

/// The words of `crate::api` are plain data with string keys; such always become JSON.
fn with_json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    let body = Full::new(Bytes::from(bytes)).map_err(|never: Infallible| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn ok(value: &impl Serialize) -> Result<Response<Body>, EngineError> {
    Ok(with_json(StatusCode::OK, value))
}

/// Answers with a JSON value a line, as they come, until `values` ends.
fn lines<T: Serialize + Send + 'static>(values: mpsc::Receiver<T>) -> Response<Body> {
    let frames = ReceiverStream::new(values).map(|value| {
        let mut line = BytesMut::from(serde_json::to_vec(&value).unwrap_or_default().as_slice());
        line.extend_from_slice(b"\n");
        Ok(BodyFrame::data(line.freeze()))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let json = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Answers with the events of something that is finished even if nobody listens.
fn events<F>(engine: &Arc<Engine>, work: impl FnOnce(mpsc::Sender<Event>) -> F) -> Response<Body>
where
    F: Future<Output = Result<(), EngineError>> + Send + 'static,
{
    let (send, receive) = mpsc::channel(PENDING);
    let work = work(send.clone());
    let holder = Arc::clone(engine);
    engine.tasks.spawn(async move {
        if let Err(error) = holder.unless_closing(work).await {
            let fault = error.fault();
            tracing::warn!(error = %fault.message, causes = ?fault.causes, "a project is not what was asked");
            // Whoever asked may have left.
            send.send(Event::Failed { fault }).await.ok();
        }
    });
    lines(receive)
}

/// Reads a request's JSON; an empty body is an empty object.
async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, EngineError> {
    let what = request.uri().path().to_owned();
    let collected = Limited::new(request.into_body(), LARGEST_REQUEST).collect().await;
    let bytes =
        collected.map_err(EngineError::failed(format!("reading the request {what}")))?.to_bytes();
    let json: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    serde_json::from_slice(json).map_err(|error| {
        EngineError::Invalid(format!("the request {what} is not understood: {error}"))
    })
}

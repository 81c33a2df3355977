//! The control plane over HTTP on a Unix socket.
//!
//! | request | answer |
//! |---|---|
//! | `GET /policies` | a list of [`PolicyStatus`](crate::api::PolicyStatus) |
//! | `POST /policies` with an [`ApplyRequest`] | [`Applied`](crate::api::Applied), or 422 and a [`Refusal`] |
//! | `DELETE /policies` with [`DeleteRequest`] | [`Applied`](crate::api::Applied) |
//! | `GET /status` | [`Status`](crate::api::Status) |

use std::future::Future;
use std::sync::Arc;

use carrack_net::serve::{self, Body};
use carrack_telemetry::logging::chain;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;

use crate::api::{ApplyRequest, DeleteRequest, Refusal};
use crate::{ApplyError, Control};

/// Policies larger than this were not written by a person.
const REQUEST_BYTES: usize = 4 << 20;

impl Control {
    /// Answers on `listener` until `shutdown`.
    pub async fn serve(
        self: Arc<Self>,
        listener: UnixListener,
        shutdown: impl Future<Output = ()>,
    ) {
        let handler = move |request| {
            let control = Arc::clone(&self);
            async move { control.answer(request).await }
        };
        serve::unix(listener, handler, shutdown).await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        match (request.method().clone(), path.as_str()) {
            (Method::GET, "/policies") => json(StatusCode::OK, &self.list()),
            (Method::GET, "/status") => json(StatusCode::OK, &self.status()),
            (Method::POST, "/policies") => self.answer_apply(request).await,
            (Method::DELETE, "/policies") => self.answer_delete(request).await,
            _ => refused(StatusCode::NOT_FOUND, "the control plane has no such page"),
        }
    }

    async fn answer_apply(&self, request: Request<Incoming>) -> Response<Body> {
        match read::<ApplyRequest>(request).await {
            Ok(request) => result(self.apply(request).await),
            Err(refusal) => refusal,
        }
    }

    async fn answer_delete(&self, request: Request<Incoming>) -> Response<Body> {
        match read::<DeleteRequest>(request).await {
            Ok(request) => result(self.delete(&request.project, request.file.as_deref()).await),
            Err(refusal) => refusal,
        }
    }
}

/// Reads a request's body, or says why it is none.
async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Response<Body>> {
    let Ok(body) = Limited::new(request.into_body(), REQUEST_BYTES).collect().await else {
        return Err(refused(StatusCode::PAYLOAD_TOO_LARGE, "the policies take more than 4 MiB"));
    };
    serde_json::from_slice(&body.to_bytes()).map_err(|error| {
        refused(StatusCode::BAD_REQUEST, &format!("the request is not understood: {error}"))
    })
}

fn result(result: Result<impl Serialize, ApplyError>) -> Response<Body> {
    match result {
        Ok(applied) => json(StatusCode::OK, &applied),
        Err(error) => {
            let message = chain(&error);
            let (status, problems) = match error {
                ApplyError::Problems { problems, .. } => {
                    (StatusCode::UNPROCESSABLE_ENTITY, problems)
                }
                ApplyError::Keep { .. }
                | ApplyError::Commit { .. }
                | ApplyError::Publish { .. } => (StatusCode::INTERNAL_SERVER_ERROR, Vec::new()),
            };
            json(status, &Refusal { message, problems })
        }
    }
}

fn refused(status: StatusCode, message: &str) -> Response<Body> {
    json(status, &Refusal { message: message.to_owned(), problems: Vec::new() })
}

fn json(status: StatusCode, content: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(content) {
        Ok(bytes) => serve::json(status, bytes),
        Err(error) => serve::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

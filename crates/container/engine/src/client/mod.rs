//! Speaks with an engine over its socket.
//!
//! Each request has a connection of its own, so a request given up is a connection closed, and
//! whatever the engine did for it alone (a followed log, an attached stream) ends with it.

mod session;
mod stream;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::api::{
    AttachRequest, ContainerDetail, ContainerSummary, Created, DownRequest, Event, ExecRequest,
    Exit, Fault, KillRequest, LogLine, LogsRequest, ProjectSummary, RemoveRequest, RunRequest,
    Stats, StatsRequest, StopRequest, UpRequest, Version, VolumeSummary,
};
pub use session::{Session, SessionReader, SessionWriter};
pub use stream::Lines;

/// A way to an engine.
#[derive(Clone, Debug)]
pub struct EngineClient {
    socket: PathBuf,
}

/// Why an engine did not give what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody answers at the socket.
    #[error("no engine answers at {}; start one with `carrack daemon`", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The engine has no such container, project or volume.
    #[error("{}", .0.message)]
    NotFound(Fault),
    /// The engine refused, or tried and failed.
    #[error("{}", .0.message)]
    Refused(Fault),
    /// The connection broke before the answer was whole.
    #[error("the engine's answer to {request} broke off")]
    Broken {
        /// What was asked.
        request: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer is not what this version expects.
    #[error("the engine's answer to {request} is not understood; client and engine differ")]
    Malformed {
        /// What was asked.
        request: String,
        /// Why.
        source: serde_json::Error,
    },
}

impl ClientError {
    /// What the engine said, if it was the engine that refused.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Self::NotFound(fault) | Self::Refused(fault) => Some(fault),
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Malformed { .. } => None,
        }
    }

    /// The exit code Docker gives in this case.
    pub fn exit_code(&self) -> u8 {
        self.fault().map_or(125, |fault| fault.exit_code)
    }
}

impl EngineClient {
    /// A client of the engine that listens at `socket`. Connects only when asked something.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Where the engine listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks which engine answers.
    ///
    /// # Errors
    ///
    /// As every method here: [`ClientError`].
    pub async fn version(&self) -> Result<Version, ClientError> {
        self.get("/version").await
    }

    /// Brings an application to what its file says. The last event is [`Event::Done`]; a failure
    /// arrives as an error.
    pub async fn up(&self, request: &UpRequest) -> Result<Lines<Event>, ClientError> {
        self.lines(Method::POST, "/applications", json(request)).await
    }

    /// Stops and removes a project. The last event is [`Event::Done`].
    pub async fn down(
        &self,
        project: &str,
        request: &DownRequest,
    ) -> Result<Lines<Event>, ClientError> {
        let path = format!("/projects/{}/down", segment(project));
        self.lines(Method::POST, &path, json(request)).await
    }

    /// Lists the projects that have containers.
    pub async fn projects(&self) -> Result<Vec<ProjectSummary>, ClientError> {
        self.get("/projects").await
    }

    /// Lists containers: those that run, or `all`; of one project, or of every one.
    pub async fn ps(
        &self,
        all: bool,
        project: Option<&str>,
    ) -> Result<Vec<ContainerSummary>, ClientError> {
        let project = project.map(|name| format!("&project={}", segment(name))).unwrap_or_default();
        self.get(&format!("/containers?all={all}{project}")).await
    }

    /// Makes one container. It is not started yet.
    pub async fn create(&self, request: &RunRequest) -> Result<Created, ClientError> {
        self.ask(Method::POST, "/containers", json(request)).await
    }

    /// Starts a container. Returns once its program runs.
    pub async fn start(&self, container: &str) -> Result<(), ClientError> {
        self.ask(Method::POST, &of(container, "start"), Bytes::new()).await
    }

    /// Stops a container. Returns once it has ended. It is not started again by its policy.
    pub async fn stop(&self, container: &str, request: &StopRequest) -> Result<(), ClientError> {
        self.ask(Method::POST, &of(container, "stop"), json(request)).await
    }

    /// Sends a container a signal.
    pub async fn kill(&self, container: &str, request: &KillRequest) -> Result<(), ClientError> {
        self.ask(Method::POST, &of(container, "kill"), json(request)).await
    }

    /// Stops a container if it runs, and starts it.
    pub async fn restart(&self, container: &str, request: &StopRequest) -> Result<(), ClientError> {
        self.ask(Method::POST, &of(container, "restart"), json(request)).await
    }

    /// Holds a container still.
    pub async fn pause(&self, container: &str) -> Result<(), ClientError> {
        self.ask(Method::POST, &of(container, "pause"), Bytes::new()).await
    }

    /// Lets a container that is held still go on.
    pub async fn resume(&self, container: &str) -> Result<(), ClientError> {
        self.ask(Method::POST, &of(container, "resume"), Bytes::new()).await
    }

    /// Removes a container, its log and what it wrote.
    pub async fn rm(&self, container: &str, request: &RemoveRequest) -> Result<(), ClientError> {
        let path = format!("/containers/{}", segment(container));
        self.ask(Method::DELETE, &path, json(request)).await
    }

    /// Waits until a container has ended for good and tells how.
    pub async fn wait(&self, container: &str) -> Result<Exit, ClientError> {
        self.ask(Method::POST, &of(container, "wait"), Bytes::new()).await
    }

    /// Tells everything about a container.
    pub async fn inspect(&self, container: &str) -> Result<ContainerDetail, ClientError> {
        self.get(&format!("/containers/{}", segment(container))).await
    }

    /// Reads what a container wrote.
    pub async fn logs(
        &self,
        container: &str,
        request: &LogsRequest,
    ) -> Result<Lines<LogLine>, ClientError> {
        let mut path = format!("{}?follow={}", of(container, "logs"), request.follow);
        for (name, value) in [
            ("tail", request.tail.map(|lines| lines.to_string())),
            ("since", request.since.map(|at| at.to_string())),
            ("until", request.until.map(|at| at.to_string())),
        ] {
            if let Some(value) = value {
                path = format!("{path}&{name}={}", segment(&value));
            }
        }
        self.lines(Method::GET, &path, Bytes::new()).await
    }

    /// Reads what containers use, each second or once.
    pub async fn stats(&self, request: &StatsRequest) -> Result<Lines<Vec<Stats>>, ClientError> {
        let mut path = format!("/stats?once={}", request.once);
        for container in &request.containers {
            path = format!("{path}&container={}", segment(container));
        }
        if let Some(project) = &request.project {
            path = format!("{path}&project={}", segment(project));
        }
        self.lines(Method::GET, &path, Bytes::new()).await
    }

    /// Runs another program in a running container. Returns once it runs.
    pub async fn exec(
        &self,
        container: &str,
        request: &ExecRequest,
    ) -> Result<Session, ClientError> {
        self.upgrade(&of(container, "exec"), json(request)).await
    }

    /// Watches and feeds a container's own program.
    pub async fn attach(
        &self,
        container: &str,
        request: &AttachRequest,
    ) -> Result<Session, ClientError> {
        self.upgrade(&of(container, "attach"), json(request)).await
    }

    /// Lists volumes.
    pub async fn volumes(&self) -> Result<Vec<VolumeSummary>, ClientError> {
        self.get("/volumes").await
    }

    /// Removes a volume that no container mounts.
    pub async fn remove_volume(&self, volume: &str) -> Result<(), ClientError> {
        let path = format!("/volumes/{}", segment(volume));
        self.ask(Method::DELETE, &path, Bytes::new()).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let name = format!("{method} {path}");
        let response = self.send(method, path, body, false).await?;
        let bytes = collect(&name, response).await?;
        serde_json::from_slice(&bytes)
            .map_err(|source| ClientError::Malformed { request: name, source })
    }

    async fn lines<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Lines<T>, ClientError> {
        let name = format!("{method} {path}");
        let response = self.send(method, path, body, false).await?;
        Ok(Lines::new(name, response.into_body()))
    }

    async fn upgrade(&self, path: &str, request: Bytes) -> Result<Session, ClientError> {
        let name = format!("POST {path}");
        let response = self.send(Method::POST, path, Bytes::new(), true).await?;
        let upgraded = hyper::upgrade::on(response)
            .await
            .map_err(|source| ClientError::Broken { request: name, source: source.into() })?;
        Session::begin(TokioIo::new(upgraded), path, request).await
    }

    /// Sends a request and returns its answer's head; an answer that is a fault is an error.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        upgrade: bool,
    ) -> Result<Response<Incoming>, ClientError> {
        let name = format!("{method} {path}");
        let broken = |source: hyper::Error| ClientError::Broken {
            request: name.clone(),
            source: source.into(),
        };
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::Unreachable { socket: self.socket.clone(), source })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // The task ends when the answer was read or dropped; how the connection closed after
        // that says nothing the reader of the answer does not hear of as well.
        tokio::spawn(async move { connection.with_upgrades().await.ok() });

        let mut request =
            Request::builder().method(method).uri(path).header(header::HOST, "engine");
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if upgrade {
            request = request
                .header(header::CONNECTION, "upgrade")
                .header(header::UPGRADE, crate::api::UPGRADE_PROTOCOL);
        }
        let request = request.body(Full::new(body)).map_err(|source| ClientError::Broken {
            request: name.clone(),
            source: source.into(),
        })?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let bytes = collect(&name, response).await?;
        Err(refusal(status, &bytes))
    }
}

/// The error an answer that is no success stands for.
fn refusal(status: StatusCode, body: &[u8]) -> ClientError {
    let fault = serde_json::from_slice(body).unwrap_or_else(|_| Fault {
        message: format!("the engine answered {status}"),
        causes: Vec::new(),
        exit_code: 125,
    });
    if status == StatusCode::NOT_FOUND {
        ClientError::NotFound(fault)
    } else {
        ClientError::Refused(fault)
    }
}

async fn collect(name: &str, response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let collected = response.into_body().collect().await;
    collected
        .map(|body| body.to_bytes())
        .map_err(|source| ClientError::Broken { request: name.to_owned(), source: source.into() })
}

/// The words of `crate::api` are plain data with string keys; such always become JSON.
fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).map(Bytes::from).unwrap_or_default()
}

fn of(container: &str, verb: &str) -> String {
    format!("/containers/{}/{verb}", segment(container))
}

/// `text` as one segment or query value of a path.
fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_cannot_leave_its_place_in_the_path() {
        assert_eq!(segment("../a b?c"), "..%2Fa%20b%3Fc");
        assert_eq!(segment("shop-api_1.x~"), "shop-api_1.x~");
    }

    #[test]
    fn an_answer_without_a_fault_still_says_what_happened() {
        let error = refusal(StatusCode::BAD_GATEWAY, b"<html>");
        assert_eq!(error.to_string(), "the engine answered 502 Bad Gateway");
    }
}

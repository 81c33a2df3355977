//! Asking the control plane over its socket.

use std::path::{Path, PathBuf};

use carrack_net::unix::{self, Answer, AskError};
use carrack_objects::Problem;
use http::Method;
use serde::de::DeserializeOwned;

use crate::api::{Applied, ApplyRequest, DeleteRequest, PolicyStatus, Refusal, Status};

/// Why the control plane did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// It gave no answer.
    #[error("asking the control plane")]
    Ask {
        /// Why.
        source: AskError,
    },
    /// It refused.
    #[error("the control plane refused: {message}")]
    Refused {
        /// What it said.
        message: String,
        /// Everything wrong with the policies, when that was it.
        problems: Vec<Problem>,
    },
    /// Its answer is not understood.
    #[error("reading the control plane's answer: is it of another version?")]
    Answer {
        /// What is not understood.
        source: serde_json::Error,
    },
}

/// Speaks to a control plane.
#[derive(Clone, Debug)]
pub struct ControlClient {
    socket: PathBuf,
}

impl ControlClient {
    /// Will speak to the control plane that answers on `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The socket it speaks to.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Applies policies; returns once they are in force, or it is known why not yet.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; nothing is in force then that was not before.
    pub async fn apply(&self, request: &ApplyRequest) -> Result<Applied, ClientError> {
        let body = serde_json::to_vec(request).map_err(|source| ClientError::Answer { source })?;
        self.ask(Method::POST, "/policies", body).await
    }

    /// Deletes the policies of a project: all, or those of one file.
    ///
    /// # Errors
    ///
    /// [`ClientError`] when they may still be there.
    pub async fn delete(&self, project: &str, file: Option<&str>) -> Result<Applied, ClientError> {
        let request = DeleteRequest { project: project.to_owned(), file: file.map(str::to_owned) };
        let body = serde_json::to_vec(&request).map_err(|source| ClientError::Answer { source })?;
        self.ask(Method::DELETE, "/policies", body).await
    }

    /// Every policy, and which workloads it judges.
    ///
    /// # Errors
    ///
    /// [`ClientError`] when there is no answer.
    pub async fn list(&self) -> Result<Vec<PolicyStatus>, ClientError> {
        self.ask(Method::GET, "/policies", Vec::new()).await
    }

    /// How the control plane stands.
    ///
    /// # Errors
    ///
    /// [`ClientError`] when there is no answer.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.ask(Method::GET, "/status", Vec::new()).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Vec<u8>,
    ) -> Result<T, ClientError> {
        let answer = unix::ask(&self.socket, method, target, body.into())
            .await
            .map_err(|source| ClientError::Ask { source })?;
        if answer.status.is_success() {
            return serde_json::from_slice(&answer.body)
                .map_err(|source| ClientError::Answer { source });
        }
        Err(refusal(&answer))
    }
}

fn refusal(answer: &Answer) -> ClientError {
    match serde_json::from_slice::<Refusal>(&answer.body) {
        Ok(Refusal { message, problems }) => ClientError::Refused { message, problems },
        Err(_) => {
            let message = format!("it answered {}", answer.status);
            ClientError::Refused { message, problems: Vec::new() }
        }
    }
}

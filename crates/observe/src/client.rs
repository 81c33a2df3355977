//! Asking a watcher over its Unix socket.

use std::path::PathBuf;

use carrack_net::unix::{self, Answer, AskError};
use carrack_telemetry::access::Record;
use http::StatusCode;
use serde::de::DeserializeOwned;

use crate::graph::Graph;
use crate::why::Explanation;

/// Why a watcher gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// It could not be asked.
    #[error("asking what happened")]
    Ask {
        /// Why.
        source: AskError,
    },
    /// It could not say.
    #[error("it is not known what happened: {message}")]
    Refused {
        /// What it said.
        message: String,
    },
    /// Its answer is not understood.
    #[error("reading what happened: is the daemon of another version?")]
    Answer {
        /// What is not understood.
        source: serde_json::Error,
    },
}

/// Speaks to a watcher.
#[derive(Clone, Debug)]
pub struct ObserveClient {
    socket: PathBuf,
}

impl ObserveClient {
    /// Will speak to the watcher that answers on `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Who calls whom.
    ///
    /// # Errors
    ///
    /// [`ClientError`] when there is no answer.
    pub async fn graph(&self) -> Result<Graph, ClientError> {
        read(&self.ask("/api/graph").await?)
    }

    /// The newest records, newest first; only those that were refused when `refused`.
    ///
    /// # Errors
    ///
    /// [`ClientError`] when there is no answer.
    pub async fn records(&self, limit: usize, refused: bool) -> Result<Vec<Record>, ClientError> {
        read(&self.ask(&format!("/api/records?limit={limit}&refused={refused}")).await?)
    }

    /// Explains the record or decision called `id`; `None` when no record is left of it.
    ///
    /// # Errors
    ///
    /// [`ClientError`] when there is no answer, or `id` is no id.
    pub async fn why(&self, id: &str) -> Result<Option<Explanation>, ClientError> {
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(ClientError::Refused { message: format!("`{id}` is no id") });
        }
        let answer = self.ask(&format!("/api/why/{id}")).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        read(&answer).map(Some)
    }

    /// The proxy's metrics.
    ///
    /// # Errors
    ///
    /// [`ClientError`] when there is no answer.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        Ok(String::from_utf8_lossy(&self.ask("/metrics").await?.body).into_owned())
    }

    async fn ask(&self, target: &str) -> Result<Answer, ClientError> {
        unix::get(&self.socket, target).await.map_err(|source| ClientError::Ask { source })
    }
}

fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T, ClientError> {
    if !answer.status.is_success() {
        let message = String::from_utf8_lossy(&answer.body).trim().to_owned();
        return Err(ClientError::Refused { message });
    }
    serde_json::from_slice(&answer.body).map_err(|source| ClientError::Answer { source })
}

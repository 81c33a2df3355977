//! HTTP over Unix sockets, from the asking side, and binding them from the answering side.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// A whole answer fits in this much memory, or it is refused.
const ANSWER_BYTES: usize = 64 << 20;
/// A local server that takes longer than this is stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The whole body.
    pub body: Bytes,
}

/// Why a local server gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// Nobody listens there.
    #[error("connecting to {}: is its server running?", socket.display())]
    Connect {
        /// The Unix socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The request cannot be written down.
    #[error("asking {} for `{target}`: not a request", socket.display())]
    Request {
        /// The Unix socket.
        socket: PathBuf,
        /// What was asked for.
        target: String,
        /// What is wrong with it.
        source: http::Error,
    },
    /// The conversation broke.
    #[error("asking {} for `{target}`", socket.display())]
    Conversation {
        /// The Unix socket.
        socket: PathBuf,
        /// What was asked for.
        target: String,
        /// What broke.
        source: hyper::Error,
    },
    /// The answer broke underway or is larger than anybody here would read.
    #[error("reading the answer of {} to `{target}`", socket.display())]
    Answer {
        /// The Unix socket.
        socket: PathBuf,
        /// What was asked for.
        target: String,
        /// What broke.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There was no answer in time.
    #[error("{} has not answered `{target}` within {} s", socket.display(), PATIENCE.as_secs())]
    Late {
        /// The Unix socket.
        socket: PathBuf,
        /// What was asked for.
        target: String,
    },
}

impl AskError {
    /// Whether the same question, asked again, may be answered.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Conversation { .. } | Self::Late { .. } => true,
            Self::Request { .. } | Self::Answer { .. } => false,
        }
    }
}

/// Asks for `target`, such as `/metrics`.
///
/// # Errors
///
/// [`AskError`] when there is no answer; an answer of any status is one.
pub async fn get(socket: &Path, target: &str) -> Result<Answer, AskError> {
    ask(socket, Method::GET, target, Bytes::new()).await
}

/// Sends `body` to `target` as JSON.
///
/// # Errors
///
/// [`AskError`] when there is no answer; an answer of any status is one.
pub async fn post(socket: &Path, target: &str, body: impl Into<Bytes>) -> Result<Answer, AskError> {
    ask(socket, Method::POST, target, body.into()).await
}

/// Sends `body` to `target` by `method`; an empty body has no content type, any other is JSON.
///
/// # Errors
///
/// [`AskError`] when there is no answer; an answer of any status is one.
pub async fn ask(
    socket: &Path,
    method: Method,
    target: &str,
    body: Bytes,
) -> Result<Answer, AskError> {
    match timeout(PATIENCE, ask_patiently(socket, method, target, body)).await {
        Ok(answer) => answer,
        Err(_) => Err(AskError::Late { socket: socket.to_owned(), target: target.to_owned() }),
    }
}

async fn ask_patiently(
    socket: &Path,
    method: Method,
    target: &str,
    body: Bytes,
) -> Result<Answer, AskError> {
    let (at, asked) = (|| socket.to_owned(), || target.to_owned());
    let mut request =
        Request::builder().method(method).uri(target).header(header::HOST, "localhost");
    if !body.is_empty() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let request = request.body(Full::new(body)).map_err(|source| AskError::Request {
        socket: at(),
        target: asked(),
        source,
    })?;
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| AskError::Connect { socket: at(), source })?;
    let broke = |source| AskError::Conversation { socket: at(), target: asked(), source };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broke)?;
    let conversation = async {
        let response = sender.send_request(request).await.map_err(broke)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
        let body =
            body.map_err(|source| AskError::Answer { socket: at(), target: asked(), source })?;
        Ok(Answer { status, body: body.to_bytes() })
    };
    tokio::pin!(conversation, connection);
    tokio::select! {
        biased;
        answer = &mut conversation => answer,
        ended = &mut connection => match ended {
            Ok(()) => conversation.await,
            Err(source) => Err(broke(source)),
        },
    }
}

/// Why a Unix socket could not be opened for answering.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another server answers there.
    #[error("{} is in use by a running server: stop it first", socket.display())]
    Taken {
        /// The Unix socket.
        socket: PathBuf,
    },
    /// Something there is not a socket.
    #[error("{} exists and is not a socket: move it away", socket.display())]
    NotASocket {
        /// The path.
        socket: PathBuf,
    },
    /// The system refused.
    #[error("opening the socket {}: check that its directory exists and is writable", socket.display())]
    Bind {
        /// The Unix socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Listens on a Unix socket that only its owner may use, replacing one a dead server left behind.
///
/// # Errors
///
/// [`BindError`] when a server answers there already or the path cannot be used.
pub fn bind(socket: &Path) -> Result<UnixListener, BindError> {
    let failed = |source| BindError::Bind { socket: socket.to_owned(), source };
    match fs::symlink_metadata(socket) {
        Ok(there) if !there.file_type().is_socket() => {
            return Err(BindError::NotASocket { socket: socket.to_owned() });
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(socket).is_ok() => {
            return Err(BindError::Taken { socket: socket.to_owned() });
        }
        Ok(_) | Err(_) => {}
    }
    // Bound under another name and moved into place, so that nobody finds it with the wrong mode
    // or before it listens.
    let mut fresh = socket.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let fresh = PathBuf::from(fresh);
    match fs::remove_file(&fresh) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(failed(source)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&fresh).map_err(failed)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    fs::rename(&fresh, socket).map_err(failed)?;
    Ok(listener)
}

//! Answering certificate requests on a unix socket.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use carrack_spiffe::SpiffeId;
use jiff::Timestamp;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::wire::{CREATE_CERTIFICATE, CertificateRequest, CertificateResponse, SERVICE_NAME};
use crate::{Authority, IssueError};

/// Far over what a request needs.
const MAXIMUM_MESSAGE: usize = 64 * 1024;
/// A caller may have this many requests under way on one connection.
const CONCURRENT_REQUESTS: usize = 64;
/// How long one request may take; signing takes well under a millisecond.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Says which workloads there are.
///
/// Asked anew for every certificate, so an identity can be had as soon as its
/// workload is listed and no longer once it is not.
pub trait Entries: Send + Sync {
    /// Whether a workload of this identity is listed now.
    fn allows(&self, id: &SpiffeId) -> bool;
}

impl<F: Fn(&SpiffeId) -> bool + Send + Sync> Entries for F {
    fn allows(&self, id: &SpiffeId) -> bool {
        self(id)
    }
}

/// Why serving ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The socket failed.
    #[error("accepting certificate requests")]
    Accept(#[from] tonic::transport::Error),
}

/// Makes the socket, in place of one left by an earlier run, open to its owner only.
pub(crate) fn listen(socket: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers certificate requests on `listener` until `shutdown` resolves, then
/// finishes those under way.
///
/// A caller must be root or run as this process does, by the kernel's word, and
/// may ask for the identities that `entries` knows.
///
/// # Errors
///
/// [`ServeError`] when the socket fails.
pub async fn serve(
    listener: UnixListener,
    authority: Arc<Authority>,
    entries: Arc<dyn Entries>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let own_uid = rustix::process::geteuid().as_raw();
    let service = CertificateService { issuing: Issuing { authority, entries, own_uid } };
    Server::builder()
        .concurrency_limit_per_connection(CONCURRENT_REQUESTS)
        .timeout(REQUEST_TIMEOUT)
        .add_service(service)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown)
        .await?;
    Ok(())
}

/// The service as tonic wants it: a path picked by hand, one method.
#[derive(Clone)]
struct CertificateService {
    issuing: Issuing,
}

impl NamedService for CertificateService {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<http::Request<Body>> for CertificateService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let issuing = self.issuing.clone();
        Box::pin(async move {
            if request.uri().path() != CREATE_CERTIFICATE {
                return Ok(Status::unimplemented("only CreateCertificate is served").into_http());
            }
            let codec = ProstCodec::<CertificateResponse, CertificateRequest>::default();
            let mut grpc = Grpc::new(codec)
                .apply_max_message_size_config(Some(MAXIMUM_MESSAGE), Some(MAXIMUM_MESSAGE));
            Ok(grpc.unary(issuing, request).await)
        })
    }
}

/// What one request is answered from.
#[derive(Clone)]
struct Issuing {
    authority: Arc<Authority>,
    entries: Arc<dyn Entries>,
    own_uid: u32,
}

impl UnaryService<CertificateRequest> for Issuing {
    type Response = CertificateResponse;
    type Future = BoxFuture<Response<CertificateResponse>, Status>;

    fn call(&mut self, request: Request<CertificateRequest>) -> Self::Future {
        let answer = self.answer(&request);
        if let Err(status) = &answer {
            tracing::warn!(code = ?status.code(), reason = status.message(), "certificate refused");
        }
        Box::pin(std::future::ready(answer.map(Response::new)))
    }
}

impl Issuing {
    fn answer(&self, request: &Request<CertificateRequest>) -> Result<CertificateResponse, Status> {
        self.attest(request)?;
        let request = request.get_ref();
        let id = requested_id(request)?;
        if !self.entries.allows(&id) {
            return Err(Status::permission_denied(format!(
                "no workload with the identity `{id}` is listed; start its container first"
            )));
        }
        let lifetime = u64::try_from(request.validity_duration)
            .ok()
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs);
        let issued = self
            .authority
            .issue(&request.csr, &id, lifetime, Timestamp::now())
            .map_err(|error| refusal(&error))?;
        tracing::info!(%id, serial = issued.serial, expires = %issued.expires, "certificate issued");
        Ok(CertificateResponse { cert_chain: vec![issued.leaf_pem, issued.root_pem] })
    }

    /// Asks the kernel who connected.
    fn attest(&self, request: &Request<CertificateRequest>) -> Result<(), Status> {
        let peer = request
            .extensions()
            .get::<UdsConnectInfo>()
            .and_then(|connection| connection.peer_cred)
            .ok_or_else(|| Status::unauthenticated("the caller's credentials are unknown"))?;
        if peer.uid() == 0 || peer.uid() == self.own_uid {
            return Ok(());
        }
        Err(Status::permission_denied(format!(
            "user {} may not ask for certificates; only root and user {} may",
            peer.uid(),
            self.own_uid
        )))
    }
}

fn requested_id(request: &CertificateRequest) -> Result<SpiffeId, Status> {
    let text = request.identity().ok_or_else(|| {
        Status::invalid_argument("the metadata names no workload in `ImpersonatedIdentity`")
    })?;
    SpiffeId::parse(text).map_err(|error| {
        Status::invalid_argument(format!("`ImpersonatedIdentity` is not a SPIFFE ID: {error}"))
    })
}

fn refusal(error: &IssueError) -> Status {
    let code = match error {
        IssueError::Request { .. } | IssueError::Key { .. } => Code::InvalidArgument,
        IssueError::NotOurs { .. } => Code::PermissionDenied,
        IssueError::RootExpired { .. } => Code::FailedPrecondition,
        IssueError::Randomness { .. } | IssueError::Sign { .. } => Code::Internal,
    };
    Status::new(code, error.to_string())
}

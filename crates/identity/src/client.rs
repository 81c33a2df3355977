//! Asking an authority for a certificate.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use carrack_spiffe::{Bundle, BundleError, SpiffeId, X509Svid, X509SvidError};
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::net::UnixStream;
use tonic::client::Grpc;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;
use zeroize::Zeroizing;

use crate::wire::{CREATE_CERTIFICATE, CertificateRequest, CertificateResponse};

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// More certificates than any chain has.
const MAXIMUM_CHAIN: usize = 8;

/// Asks the authority behind a unix socket for certificates.
///
/// Connects when first asked, and again when the connection is lost. Clones share
/// the connection.
#[derive(Clone, Debug)]
pub struct CertificateClient {
    socket: PathBuf,
    channel: Channel,
}

/// A workload's certificate and the key that belongs to it.
pub struct Svid {
    /// Whom the certificate names.
    pub id: SpiffeId,
    /// The leaf, and whatever stands between it and the root, in DER.
    pub chain_der: Vec<CertificateDer<'static>>,
    /// The private key in PKCS #8 DER; wiped from memory when dropped.
    pub key_der: Zeroizing<Vec<u8>>,
    /// The last second the leaf may be used.
    pub expires: Timestamp,
    /// The roots to verify peers with.
    pub bundle: Bundle,
}

impl fmt::Debug for Svid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Svid")
            .field("id", &self.id)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// A key or a signing request could not be made.
    #[error("making a key and a signing request for `{id}`")]
    Request {
        /// Whose certificate was wanted.
        id: SpiffeId,
        /// What went wrong.
        source: rcgen::Error,
    },
    /// The authority is not there, or does not answer.
    #[error("asking the authority at {} for the certificate of `{id}`", socket.display())]
    Unreachable {
        /// The authority's socket.
        socket: PathBuf,
        /// Whose certificate was wanted.
        id: SpiffeId,
        /// What went wrong.
        source: Box<Status>,
    },
    /// The authority answered that it will not.
    #[error("the authority refused a certificate for `{id}`: {reason}")]
    Refused {
        /// Whose certificate was wanted.
        id: SpiffeId,
        /// The authority's words.
        reason: String,
    },
    /// The answer is no chain of certificates.
    #[error("the authority's answer for `{id}` is not a leaf, a chain and a root in PEM")]
    Chain {
        /// Whose certificate was wanted.
        id: SpiffeId,
    },
    /// The leaf breaks a rule.
    #[error("the certificate issued for `{id}` is not an X.509-SVID")]
    Leaf {
        /// Whose certificate was wanted.
        id: SpiffeId,
        /// The broken rule.
        source: X509SvidError,
    },
    /// The leaf names someone else, or belongs to another key.
    #[error("the certificate issued for `{id}` names `{named}` or is for another key")]
    OtherLeaf {
        /// Whose certificate was wanted.
        id: SpiffeId,
        /// Whom it names.
        named: SpiffeId,
    },
    /// The root is none.
    #[error("the root sent along with the certificate of `{id}` cannot serve")]
    Root {
        /// Whose certificate was wanted.
        id: SpiffeId,
        /// What is wrong with it.
        source: BundleError,
    },
}

impl FetchError {
    /// Whether the same request, tried again, may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

impl CertificateClient {
    /// A client of the authority that listens on `socket`. Nothing is sent yet; must
    /// be called within a tokio runtime.
    pub fn connect(socket: &Path) -> Self {
        // The authority is named by its socket; HTTP/2 wants a host name besides.
        let endpoint = Endpoint::from(Uri::from_static("http://identity")).timeout(REQUEST_TIMEOUT);
        let channel = endpoint.connect_with_connector_lazy(UnixConnector(socket.to_owned()));
        Self { socket: socket.to_owned(), channel }
    }

    /// Makes a key, asks for a certificate that names `id`, and checks the answer.
    ///
    /// The key is made in memory, for this certificate only, and stays there.
    /// `lifetime` asks for less than the authority's default.
    ///
    /// # Errors
    ///
    /// [`FetchError`]; [`FetchError::is_transient`] says whether to try again.
    pub async fn fetch(
        &self,
        id: &SpiffeId,
        lifetime: Option<Duration>,
    ) -> Result<Svid, FetchError> {
        let (key, request) =
            signing_request().map_err(|source| FetchError::Request { id: id.clone(), source })?;
        let seconds = lifetime.map_or(0, |lifetime| lifetime.as_secs());
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        let request = CertificateRequest::new(request, seconds, &id.to_string());
        let chain = self.ask(request).await.map_err(|status| self.failure(id, status))?;
        check(id, &key, &chain)
    }

    async fn ask(&self, request: CertificateRequest) -> Result<Vec<String>, Status> {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec = ProstCodec::<CertificateRequest, CertificateResponse>::default();
        let path = PathAndQuery::from_static(CREATE_CERTIFICATE);
        Ok(grpc.unary(Request::new(request), path, codec).await?.into_inner().cert_chain)
    }

    fn failure(&self, id: &SpiffeId, status: Status) -> FetchError {
        use tonic::Code;
        let id = id.clone();
        match status.code() {
            Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::Unimplemented => {
                FetchError::Refused { id, reason: status.message().to_owned() }
            }
            _ => FetchError::Unreachable {
                socket: self.socket.clone(),
                id,
                source: Box::new(status),
            },
        }
    }
}

/// A fresh key, and a request signed by it that asks for nothing.
fn signing_request() -> Result<(KeyPair, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    let request = parameters.serialize_request(&key)?.pem()?;
    Ok((key, request))
}

/// Believes nothing of the answer: the leaf must name `id`, be for our key, and
/// there must be a root.
fn check(id: &SpiffeId, key: &KeyPair, chain: &[String]) -> Result<Svid, FetchError> {
    let malformed = || FetchError::Chain { id: id.clone() };
    let Some((root_pem, chain_pem)) = chain.split_last() else {
        return Err(malformed());
    };
    if chain_pem.is_empty() || chain.len() > MAXIMUM_CHAIN {
        return Err(malformed());
    }
    let chain_der = chain_pem
        .iter()
        .map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| malformed())?;
    let leaf = chain_der.first().ok_or_else(malformed)?;
    let leaf =
        X509Svid::parse(leaf).map_err(|source| FetchError::Leaf { id: id.clone(), source })?;
    if leaf.id() != id || leaf.public_key() != rcgen::PublicKeyData::subject_public_key_info(key) {
        return Err(FetchError::OtherLeaf { id: id.clone(), named: leaf.id().clone() });
    }
    let expires = Timestamp::from_second(leaf.validity().not_after).map_err(|_| malformed())?;
    let bundle = Bundle::from_pem(id.trust_domain().clone(), root_pem.as_bytes())
        .map_err(|source| FetchError::Root { id: id.clone(), source })?;
    let key_der = Zeroizing::new(key.serialize_der());
    Ok(Svid { id: id.clone(), chain_der, key_der, expires, bundle })
}

/// Connects to the socket whatever the address says.
#[derive(Clone, Debug)]
struct UnixConnector(PathBuf);

impl Service<Uri> for UnixConnector {
    type Response = TokioIo<UnixStream>;
    type Error = std::io::Error;
    type Future = tonic::codegen::BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(
        &mut self,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _address: Uri) -> Self::Future {
        let socket = self.0.clone();
        Box::pin(async move { Ok(TokioIo::new(UnixStream::connect(socket).await?)) })
    }
}

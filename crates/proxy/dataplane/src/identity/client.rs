//! Asking the authority for one certificate.

use std::path::{Path, PathBuf};
use std::task::{Context, Poll};
use std::time::Duration;

use carrack_net::tls::{CredentialError, Held};
use carrack_spiffe::{Bundle, BundleError, SpiffeId};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::UnixStream;
use tonic::client::Grpc;
use tonic::codegen::Service;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;
use zeroize::Zeroizing;

use super::wire::{CREATE_CERTIFICATE, CertificateRequest, CertificateResponse};

const ANSWER: Duration = Duration::from_secs(10);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("making a key and a signing request for {id}")]
    Request { id: SpiffeId, source: rcgen::Error },
    #[error("asking the authority at {} for a certificate of {id}", socket.display())]
    Ask { socket: PathBuf, id: SpiffeId, source: Box<Status> },
    #[error("the authority answered {id} with fewer than a leaf and a root")]
    Short { id: SpiffeId },
    #[error("reading the certificates that the authority issued to {id}")]
    Pem { id: SpiffeId, source: pem::Error },
    #[error("reading the roots that the authority sent to {id}")]
    Bundle { id: SpiffeId, source: BundleError },
    #[error("using the certificate that the authority issued to {id}")]
    Use { id: SpiffeId, source: CredentialError },
}

/// Asks for certificates over one connection, made when first needed.
#[derive(Clone)]
pub(super) struct Client {
    socket: PathBuf,
    channel: Channel,
    lifetime: Option<Duration>,
}

impl Client {
    pub(super) fn new(socket: &Path, lifetime: Option<Duration>) -> Self {
        // The authority is named by its socket; HTTP/2 wants a name all the same.
        let endpoint = Endpoint::from(Uri::from_static("http://identity")).timeout(ANSWER);
        let channel = endpoint.connect_with_connector_lazy(ToSocket(socket.to_owned()));
        Self { socket: socket.to_owned(), channel, lifetime }
    }

    /// Makes a key that never leaves this process and has it certified as `id`.
    pub(super) async fn fetch(&self, id: &SpiffeId) -> Result<Held, CertificateError> {
        let (key, csr) = signing_request()
            .map_err(|source| CertificateError::Request { id: id.clone(), source })?;
        let answer = self.ask(id, csr).await.map_err(|status| CertificateError::Ask {
            socket: self.socket.clone(),
            id: id.clone(),
            source: Box::new(status),
        })?;
        let [leaf_and_more @ .., root] = &answer.cert_chain[..] else {
            return Err(CertificateError::Short { id: id.clone() });
        };
        if leaf_and_more.is_empty() {
            return Err(CertificateError::Short { id: id.clone() });
        }
        let mut chain = Vec::new();
        for text in leaf_and_more {
            for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
                let pem = |source| CertificateError::Pem { id: id.clone(), source };
                chain.push(certificate.map_err(pem)?);
            }
        }
        let bundle = Bundle::from_pem(id.trust_domain().clone(), root.as_bytes())
            .map_err(|source| CertificateError::Bundle { id: id.clone(), source })?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.as_slice()));
        Held::new(id, chain, &key, &bundle)
            .map_err(|source| CertificateError::Use { id: id.clone(), source })
    }

    async fn ask(&self, id: &SpiffeId, csr: String) -> Result<CertificateResponse, Status> {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let seconds = self.lifetime.map_or(0, |lifetime| lifetime.as_secs());
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        let request = CertificateRequest::new(csr, seconds, &id.to_string());
        let codec = ProstCodec::<CertificateRequest, CertificateResponse>::default();
        let path = PathAndQuery::from_static(CREATE_CERTIFICATE);
        Ok(grpc.unary(Request::new(request), path, codec).await?.into_inner())
    }
}

fn signing_request() -> Result<(Zeroizing<Vec<u8>>, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    // The authority decides what the certificate says; the request carries the key and no more.
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(&key)?.pem()?;
    Ok((Zeroizing::new(key.serialize_der()), csr))
}

/// Connects to the socket, whatever the address says.
#[derive(Clone)]
struct ToSocket(PathBuf);

impl Service<Uri> for ToSocket {
    type Response = TokioIo<UnixStream>;
    type Error = std::io::Error;
    type Future = tonic::codegen::BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _address: Uri) -> Self::Future {
        let socket = self.0.clone();
        Box::pin(async move { Ok(TokioIo::new(UnixStream::connect(socket).await?)) })
    }
}

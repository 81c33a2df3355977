//! A small authority: signs what it is asked for, over Istio's certificate protocol.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use carrack_net::tls::{Credentials, Held};
use carrack_spiffe::{Bundle, SpiffeId};
use prost_types::value::Kind;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
struct Asked {
    #[prost(string, tag = "1")]
    csr: String,
    #[prost(int64, tag = "3")]
    validity_duration: i64,
    #[prost(message, optional, tag = "4")]
    metadata: Option<prost_types::Struct>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Answered {
    #[prost(string, repeated, tag = "1")]
    cert_chain: Vec<String>,
}

/// Signs certificates for whoever asks.
#[derive(Clone)]
pub(crate) struct Authority {
    issuer: Arc<CertifiedIssuer<'static, KeyPair>>,
    /// Seconds that certificates live.
    lifetime: Arc<AtomicU64>,
}

impl Authority {
    pub(crate) fn new(lifetime: Duration) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().expect("key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("signs");
        Self { issuer: Arc::new(issuer), lifetime: Arc::new(AtomicU64::new(lifetime.as_secs())) }
    }

    /// Answers on `socket` until the returned task is aborted.
    pub(crate) fn serve(&self, socket: &Path) -> tokio::task::JoinHandle<()> {
        let listener = UnixListener::bind(socket).expect("binds");
        let service = Signing(self.clone());
        tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming(UnixListenerStream::new(listener)).await.expect("serves");
        })
    }

    /// Credentials for any name.
    pub(crate) fn credentials(&self, id: &str) -> Credentials {
        let key = KeyPair::generate().expect("key");
        let csr = CertificateParams::default().serialize_request(&key).expect("csr");
        let leaf = self.sign(&csr.pem().expect("pem"), id);
        let id = SpiffeId::parse(id).expect("id");
        let chain = vec![CertificateDer::from_pem_slice(leaf.as_bytes()).expect("pem")];
        let trust_domain = id.trust_domain().clone();
        let bundle = Bundle::new(trust_domain, vec![self.issuer.der().to_vec()]).expect("bundle");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let credentials = Credentials::empty();
        credentials.put(Held::new(&id, chain, &key, &bundle).expect("fits"));
        credentials
    }

    fn sign(&self, csr: &str, id: &str) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(csr).expect("csr");
        request.params = CertificateParams::default();
        request.params.subject_alt_names = vec![SanType::URI(id.try_into().expect("ascii"))];
        request.params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        request.params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let now = std::time::SystemTime::now();
        let lifetime = Duration::from_secs(self.lifetime.load(Ordering::Relaxed));
        request.params.not_before = now.into();
        request.params.not_after = (now + lifetime).into();
        request.signed_by(&self.issuer).expect("signs").pem()
    }
}

#[derive(Clone)]
struct Signing(Authority);

impl NamedService for Signing {
    const NAME: &'static str = "istio.v1.auth.IstioCertificateService";
}

impl Service<http::Request<Body>> for Signing {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let signing = self.clone();
        Box::pin(async move {
            let codec = ProstCodec::<Answered, Asked>::default();
            Ok(Grpc::new(codec).unary(signing, request).await)
        })
    }
}

impl UnaryService<Asked> for Signing {
    type Response = Answered;
    type Future = BoxFuture<Response<Answered>, Status>;

    fn call(&mut self, request: Request<Asked>) -> Self::Future {
        let asked = request.into_inner();
        let fields = asked.metadata.map(|metadata| metadata.fields).unwrap_or_default();
        let named = fields.get("ImpersonatedIdentity").and_then(|value| value.kind.clone());
        let Some(Kind::StringValue(id)) = named else {
            return Box::pin(std::future::ready(Err(Status::invalid_argument("no identity"))));
        };
        let cert_chain = vec![self.0.sign(&asked.csr, &id), self.0.issuer.pem()];
        Box::pin(std::future::ready(Ok(Response::new(Answered { cert_chain }))))
    }
}

//! Two identities meet over TLS; strangers do not get in.

use std::sync::Arc;

use carrack_net::tls::{self, CredentialError, Credentials, Held};
use carrack_spiffe::{Bundle, SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio_rustls::{TlsAcceptor, TlsConnector};

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    bundle: Bundle,
}

impl Authority {
    fn new(trust_domain: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("signs");
        let trust_domain = TrustDomain::new(trust_domain).expect("trust domain");
        let bundle = Bundle::new(trust_domain, vec![issuer.der().to_vec()]).expect("bundle");
        Self { issuer, bundle }
    }

    fn issue(&self, id: &str, wanted: &str, trust: &Bundle) -> Result<Held, CredentialError> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into().expect("ascii"))];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("key");
        let leaf = params.signed_by(&key, &self.issuer).expect("signs");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let wanted = SpiffeId::parse(wanted).expect("id");
        Held::new(&wanted, vec![leaf.der().clone()], &key, trust)
    }

    fn holding(&self, id: &str) -> Arc<Credentials> {
        let credentials = Credentials::empty();
        credentials.put(self.issue(id, id, &self.bundle).expect("fits"));
        Arc::new(credentials)
    }
}

/// What client and server learn about each other, if they do.
async fn meet(client: Arc<Credentials>, server: Arc<Credentials>) -> Option<(SpiffeId, SpiffeId)> {
    let acceptor =
        TlsAcceptor::from(Arc::new(tls::server_config(server, &[b"h2"]).expect("config")));
    let connector =
        TlsConnector::from(Arc::new(tls::client_config(client, &[b"h2"]).expect("config")));
    let (near, far) = tokio::io::duplex(65536);
    let name = ServerName::try_from("mesh.invalid").expect("name");
    let (near, far) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
    let (near, far) = (near.ok()?, far.ok()?);
    let seen = tls::peer_identity(near.get_ref().1.peer_certificates())?;
    let caller = tls::peer_identity(far.get_ref().1.peer_certificates())?;
    assert_eq!(near.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    Some((seen, caller))
}

const API: &str = "spiffe://mesh.test/ns/shop/sa/api";
const EDGE: &str = "spiffe://mesh.test/ns/shop/sa/edge";

#[tokio::test]
async fn each_learns_who_the_other_is() {
    let authority = Authority::new("mesh.test");
    let met = meet(authority.holding(EDGE), authority.holding(API)).await.expect("meet");
    assert_eq!((met.0.to_string(), met.1.to_string()), (API.to_owned(), EDGE.to_owned()));
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let (ours, theirs) = (Authority::new("mesh.test"), Authority::new("mesh.test"));
    assert!(meet(theirs.holding(EDGE), ours.holding(API)).await.is_none());
    assert!(meet(ours.holding(EDGE), theirs.holding(API)).await.is_none());
}

#[tokio::test]
async fn an_identity_of_another_trust_domain_is_refused_whoever_signed_it() {
    let authority = Authority::new("mesh.test");
    let stranger = authority.holding("spiffe://other.test/ns/shop/sa/edge");
    assert!(meet(stranger, authority.holding(API)).await.is_none());
}

#[tokio::test]
async fn nobody_comes_in_without_a_certificate() {
    let authority = Authority::new("mesh.test");
    assert!(meet(Arc::new(Credentials::empty()), authority.holding(API)).await.is_none());
    assert!(meet(authority.holding(EDGE), Arc::new(Credentials::empty())).await.is_none());
}

#[tokio::test]
async fn a_rotated_certificate_is_shown_from_the_next_handshake_on() {
    let authority = Authority::new("mesh.test");
    let server = authority.holding(API);
    let before = server.held().expect("held").svid().serial().to_owned();
    server.put(authority.issue(API, API, &authority.bundle).expect("fits"));
    assert_ne!(server.held().expect("held").svid().serial(), before);
    assert!(meet(authority.holding(EDGE), server).await.is_some());
}

#[test]
fn someone_elses_certificate_is_not_taken() {
    let authority = Authority::new("mesh.test");
    let error = authority.issue(EDGE, API, &authority.bundle).expect_err("refused");
    assert_eq!(error.to_string(), format!("the certificate is for {EDGE}, not for {API}"));
}

//! What one identity shows and whom it trusts, replaced as a whole when it rotates.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use carrack_spiffe::{Bundle, SpiffeId, TrustDomain, Validity, X509Svid};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor};

/// The certificate and trust of one identity. New handshakes use what was put in last;
/// connections that stand are not touched.
pub struct Credentials {
    held: ArcSwapOption<Held>,
}

/// One certificate with its key, and the roots of the trust domain.
pub struct Held {
    key: Arc<CertifiedKey>,
    svid: X509Svid,
    trust_domain: TrustDomain,
    anchors: Vec<TrustAnchor<'static>>,
}

/// Why a certificate, key and bundle are no credentials.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// There is no certificate.
    #[error("the certificate chain is empty")]
    Empty,
    /// The leaf breaks the rules of an X.509-SVID.
    #[error("reading the leaf certificate")]
    Leaf {
        /// Which rule.
        source: carrack_spiffe::X509SvidError,
    },
    /// It is another identity's.
    #[error("the certificate is for {held}, not for {wanted}")]
    OtherIdentity {
        /// Whose it is.
        held: SpiffeId,
        /// Whose it should be.
        wanted: SpiffeId,
    },
    /// The key cannot be used, or is not the certificate's.
    #[error("pairing the certificate of {id} with its key")]
    Key {
        /// Whose it is.
        id: SpiffeId,
        /// What the TLS library said.
        source: rustls::Error,
    },
    /// A root cannot be read.
    #[error("reading a root certificate of `{trust_domain}`")]
    Root {
        /// Whose root.
        trust_domain: TrustDomain,
        /// What is wrong with it.
        source: webpki::Error,
    },
}

impl Held {
    /// Pairs a chain, leaf first, with its key, for `wanted` and nobody else.
    ///
    /// # Errors
    ///
    /// [`CredentialError`] when the parts do not fit together or are someone else's.
    pub fn new(
        wanted: &SpiffeId,
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'_>,
        bundle: &Bundle,
    ) -> Result<Self, CredentialError> {
        let leaf = chain.first().ok_or(CredentialError::Empty)?;
        let svid = X509Svid::parse(leaf).map_err(|source| CredentialError::Leaf { source })?;
        if svid.id() != wanted {
            let (held, wanted) = (svid.id().clone(), wanted.clone());
            return Err(CredentialError::OtherIdentity { held, wanted });
        }
        let unusable = |source| CredentialError::Key { id: wanted.clone(), source };
        let key = CertifiedKey::new(chain, any_supported_type(key).map_err(unusable)?);
        key.keys_match().map_err(unusable)?;
        Ok(Self {
            key: Arc::new(key),
            svid,
            trust_domain: bundle.trust_domain().clone(),
            anchors: anchors(bundle)?,
        })
    }

    /// The certificate's facts.
    #[must_use]
    pub fn svid(&self) -> &X509Svid {
        &self.svid
    }

    /// When it may be used.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.svid.validity()
    }

    pub(super) fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    pub(super) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }
}

fn anchors(bundle: &Bundle) -> Result<Vec<TrustAnchor<'static>>, CredentialError> {
    let read = |root: &[u8]| {
        let der = CertificateDer::from(root);
        webpki::anchor_from_trusted_cert(&der).map(|anchor| anchor.to_owned())
    };
    bundle.roots().map(read).collect::<Result<_, _>>().map_err(|source| CredentialError::Root {
        trust_domain: bundle.trust_domain().clone(),
        source,
    })
}

impl Credentials {
    /// Holds nothing yet: every handshake fails until something is put in.
    #[must_use]
    pub fn empty() -> Self {
        Self { held: ArcSwapOption::const_empty() }
    }

    /// Replaces what is held, for handshakes that begin from now on.
    pub fn put(&self, held: Held) {
        self.held.store(Some(Arc::new(held)));
    }

    /// What is held.
    #[must_use]
    pub fn held(&self) -> Option<Arc<Held>> {
        self.held.load_full()
    }
}

impl ResolvesServerCert for Credentials {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.held.load().as_ref().map(|held| Arc::clone(&held.key))
    }
}

impl ResolvesClientCert for Credentials {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.held.load().as_ref().map(|held| Arc::clone(&held.key))
    }

    fn has_certs(&self) -> bool {
        self.held.load().is_some()
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("svid", &self.svid).finish_non_exhaustive()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("held", &self.held.load()).finish()
    }
}

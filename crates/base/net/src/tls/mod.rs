//! Mutual TLS 1.3 between SPIFFE identities.
//!
//! ```text
//! Svid ──credentials──▶ Credentials (swapped on rotation) ─┬─ server_config ─▶ accepts
//! Bundle ───────────────────────────────────────────────────┴─ client_config ─▶ connects
//! ```
//!
//! A handshake that succeeds proves that the peer holds a certificate of this trust domain that
//! follows the rules of an X.509-SVID. *Which* peer it is, [`peer_identity`] tells afterwards;
//! whoever connects must compare it with whom they meant to reach before they send anything.

mod credentials;
mod verifier;

use std::sync::Arc;

use carrack_spiffe::SpiffeId;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::CertificateDer;

pub use credentials::{CredentialError, Credentials, Held};

use verifier::PeerVerifier;

/// Why a TLS configuration could not be made.
#[derive(Debug, thiserror::Error)]
#[error("setting up TLS 1.3")]
pub struct ConfigError {
    /// What the TLS library said.
    pub source: rustls::Error,
}

/// Accepts connections from peers of the same trust domain, showing the certificate that
/// `credentials` hold at that moment.
///
/// # Errors
///
/// [`ConfigError`] when the cryptographic provider lacks TLS 1.3.
pub fn server_config(
    credentials: Arc<Credentials>,
    alpn: &[&[u8]],
) -> Result<ServerConfig, ConfigError> {
    let provider = provider();
    let verifier = Arc::new(PeerVerifier::new(Arc::clone(&credentials), &provider));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| ConfigError { source })?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(credentials);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    // Connections are pooled and few: a resumed session would only outlive the trust it rests on.
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Connects to peers of the same trust domain, showing the certificate that `credentials` hold at
/// that moment.
///
/// # Errors
///
/// [`ConfigError`] when the cryptographic provider lacks TLS 1.3.
pub fn client_config(
    credentials: Arc<Credentials>,
    alpn: &[&[u8]],
) -> Result<ClientConfig, ConfigError> {
    let provider = provider();
    let verifier = Arc::new(PeerVerifier::new(Arc::clone(&credentials), &provider));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| ConfigError { source })?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(credentials);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// Who the peer of a finished handshake is: the SPIFFE ID of its leaf certificate.
#[must_use]
pub fn peer_identity(chain: Option<&[CertificateDer<'_>]>) -> Option<SpiffeId> {
    let leaf = chain?.first()?;
    carrack_spiffe::X509Svid::parse(leaf).ok().map(|svid| svid.id().clone())
}

/// AES-128 before AES-256: as safe here, and faster.
fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    let cipher_suites =
        vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];
    Arc::new(CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() })
}

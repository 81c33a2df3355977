//! What a peer presents.

use carrack_spiffe::{Bundle, SpiffeId, TrustDomain, X509Svid};

use crate::text::text;

pub(crate) fn spiffe_id(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Ok(id) = SpiffeId::parse(text) {
        assert_eq!(id.to_string(), text);
    }
}

pub(crate) fn svid(bytes: &[u8]) {
    X509Svid::parse(bytes).ok();
}

pub(crate) fn bundle(bytes: &[u8]) {
    let trust_domain = TrustDomain::new("carrack.local".to_owned()).unwrap();
    Bundle::from_pem(trust_domain, bytes).ok();
}

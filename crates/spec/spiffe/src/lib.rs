//! SPIFFE's words: trust domains, SPIFFE IDs, bundles, and what makes a
//! certificate an X.509-SVID.
//!
//! ```text
//! "spiffe://shop.test/ns/shop/sa/api" ──parse──▶ SpiffeId
//! DER ──X509Svid::parse──▶ SpiffeId, public key, validity
//! PEM ──Bundle::from_pem──▶ roots of one trust domain
//! ```
//!
//! Everything here is pure: no clock, socket or file. Whether a certificate is
//! signed by a root is a question for the TLS library, which is given the
//! [`Bundle`]; issuing certificates is `carrack-identity`'s.

mod bundle;
mod id;
mod svid;

pub use bundle::{Bundle, BundleError};
pub use id::{SpiffeId, SpiffeIdError, TrustDomain, TrustDomainError};
pub use svid::{Validity, X509Svid, X509SvidError};

//! The roots of a trust domain, and their PEM form.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::TrustDomain;

const LABEL: &str = "CERTIFICATE";
/// Characters to a line of PEM.
const LINE: usize = 64;

/// The certificates a trust domain's SVIDs chain up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    trust_domain: TrustDomain,
    roots: Vec<Vec<u8>>,
}

/// Why something is not a bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// There is not one root in it.
    #[error("the bundle of `{trust_domain}` has no root certificate")]
    Empty {
        /// Whose bundle.
        trust_domain: TrustDomain,
    },
    /// A part is not well-formed PEM.
    #[error("part {number} of the bundle of `{trust_domain}` is not PEM")]
    NotPem {
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// Which part, from one.
        number: usize,
    },
    /// A part is something other than a certificate.
    #[error("part {number} of the bundle of `{trust_domain}` is not a certificate")]
    NotACertificate {
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// Which part, from one.
        number: usize,
    },
    /// A certificate may not sign others.
    #[error("certificate {number} of the bundle of `{trust_domain}` is not an authority")]
    NotAnAuthority {
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// Which part, from one.
        number: usize,
    },
}

impl Bundle {
    /// Makes a bundle of DER certificates.
    ///
    /// # Errors
    ///
    /// [`BundleError`] when there is none, or one of them is not an authority's
    /// certificate.
    pub fn new(trust_domain: TrustDomain, roots: Vec<Vec<u8>>) -> Result<Self, BundleError> {
        if roots.is_empty() {
            return Err(BundleError::Empty { trust_domain });
        }
        for (number, root) in (1..).zip(&roots) {
            check_root(&trust_domain, number, root)?;
        }
        Ok(Self { trust_domain, roots })
    }

    /// Reads the roots from PEM; text between the parts is passed over.
    ///
    /// # Errors
    ///
    /// As for [`Bundle::new`], and when a part is not PEM or not a certificate.
    pub fn from_pem(trust_domain: TrustDomain, pem: &[u8]) -> Result<Self, BundleError> {
        let mut roots = Vec::new();
        for (number, part) in (1..).zip(Pem::iter_from_buffer(pem)) {
            let trust_domain = trust_domain.clone();
            let Ok(part) = part else {
                return Err(BundleError::NotPem { trust_domain, number });
            };
            if part.label != LABEL {
                return Err(BundleError::NotACertificate { trust_domain, number });
            }
            roots.push(part.contents);
        }
        Self::new(trust_domain, roots)
    }

    /// Whose roots these are.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The roots in DER.
    pub fn roots(&self) -> impl Iterator<Item = &[u8]> {
        self.roots.iter().map(Vec::as_slice)
    }

    /// The roots in PEM, in their order.
    pub fn to_pem(&self) -> String {
        self.roots().map(certificate_to_pem).collect()
    }
}

/// One DER certificate as PEM.
fn certificate_to_pem(der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {LABEL}-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

fn check_root(trust_domain: &TrustDomain, number: usize, der: &[u8]) -> Result<(), BundleError> {
    let Ok(([], certificate)) = X509Certificate::from_der(der) else {
        return Err(BundleError::NotACertificate { trust_domain: trust_domain.clone(), number });
    };
    if certificate.is_ca() {
        Ok(())
    } else {
        Err(BundleError::NotAnAuthority { trust_domain: trust_domain.clone(), number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    fn domain() -> TrustDomain {
        TrustDomain::new("shop.test").unwrap()
    }

    fn certificate(ca: bool) -> Vec<u8> {
        let mut parameters = CertificateParams::default();
        if ca {
            parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        parameters.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn pem_written_is_pem_read() {
        let bundle = Bundle::new(domain(), vec![certificate(true), certificate(true)]).unwrap();
        assert_eq!(Bundle::from_pem(domain(), bundle.to_pem().as_bytes()).unwrap(), bundle);
    }

    #[test]
    fn a_leaf_is_not_taken_for_a_root() {
        assert!(matches!(
            Bundle::new(domain(), vec![certificate(true), certificate(false)]),
            Err(BundleError::NotAnAuthority { number: 2, .. })
        ));
    }

    #[test]
    fn an_empty_file_and_a_key_are_refused() {
        assert!(matches!(Bundle::from_pem(domain(), b""), Err(BundleError::Empty { .. })));
        let key = KeyPair::generate().unwrap().serialize_pem();
        assert!(matches!(
            Bundle::from_pem(domain(), key.as_bytes()),
            Err(BundleError::NotACertificate { number: 1, .. })
        ));
    }
}

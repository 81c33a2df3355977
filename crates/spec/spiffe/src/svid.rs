//! What makes an X.509 certificate an SVID.

use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::{SpiffeId, SpiffeIdError};

/// When a certificate may be used, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second it may be used.
    pub not_before: i64,
    /// The last second it may be used.
    pub not_after: i64,
}

impl Validity {
    /// Whether `now`, in seconds since 1970, falls within.
    pub fn contains(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

/// A leaf certificate that follows the rules of an X.509-SVID.
///
/// Holding one says that the certificate has the right shape; that a root of the
/// trust domain signed it is for the TLS library to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct X509Svid {
    id: SpiffeId,
    validity: Validity,
    /// DER of the SubjectPublicKeyInfo.
    public_key: Vec<u8>,
    serial: String,
}

/// Why a certificate is not the leaf of an X.509-SVID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum X509SvidError {
    /// The bytes are no certificate.
    #[error("the bytes are not one DER certificate")]
    NotACertificate,
    /// An extension that decides the matter cannot be read.
    #[error("the certificate's {extension} cannot be read")]
    Extension {
        /// The extension's name.
        extension: &'static str,
    },
    /// There must be exactly one URI name.
    #[error("the certificate has {count} URI names; an SVID has exactly one")]
    UriNames {
        /// How many there are.
        count: usize,
    },
    /// The URI name is not a SPIFFE ID.
    #[error("the certificate's URI name is not a SPIFFE ID")]
    Id(#[from] SpiffeIdError),
    /// A leaf names a workload, not a trust domain.
    #[error("the certificate names the trust domain `{id}` and no workload in it")]
    NoPath {
        /// The trust domain's own ID.
        id: SpiffeId,
    },
    /// The certificate may sign others.
    #[error("the certificate is an authority, not a leaf")]
    Authority,
    /// The key usage is absent or wrong.
    #[error("the certificate's key usage {problem}")]
    KeyUsage {
        /// What is wrong, in words.
        problem: &'static str,
    },
    /// The extended key usage lacks one of the two it must have if it is there.
    #[error("the certificate's extended key usage lacks server or client authentication")]
    ExtendedKeyUsage,
}

impl X509Svid {
    /// Reads a leaf certificate in DER and checks it against the X.509-SVID rules.
    ///
    /// # Errors
    ///
    /// [`X509SvidError`] names the first rule that is broken.
    pub fn parse(der: &[u8]) -> Result<Self, X509SvidError> {
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|_| X509SvidError::NotACertificate)?;
        if !rest.is_empty() {
            return Err(X509SvidError::NotACertificate);
        }
        let id = only_uri_name(&certificate)?;
        if id.path().is_empty() {
            return Err(X509SvidError::NoPath { id });
        }
        check_leaf(&certificate)?;
        check_extended_key_usage(&certificate)?;
        Ok(Self {
            id,
            validity: Validity {
                not_before: certificate.validity().not_before.timestamp(),
                not_after: certificate.validity().not_after.timestamp(),
            },
            public_key: certificate.public_key().raw.to_vec(),
            serial: certificate.raw_serial_as_string(),
        })
    }

    /// Whom the certificate names.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// When it may be used.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// The public key, as a DER SubjectPublicKeyInfo.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// The serial number in colon-separated hexadecimal, as tools print it.
    pub fn serial(&self) -> &str {
        &self.serial
    }
}

/// The one URI name as a SPIFFE ID.
pub(crate) fn only_uri_name(certificate: &X509Certificate<'_>) -> Result<SpiffeId, X509SvidError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| X509SvidError::Extension { extension: "subject alternative name" })?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    match uris.as_slice() {
        [uri] => Ok(SpiffeId::parse(uri)?),
        _ => Err(X509SvidError::UriNames { count: uris.len() }),
    }
}

fn check_leaf(certificate: &X509Certificate<'_>) -> Result<(), X509SvidError> {
    let constraints = certificate
        .basic_constraints()
        .map_err(|_| X509SvidError::Extension { extension: "basic constraints" })?;
    if constraints.is_some_and(|extension| extension.value.ca) {
        return Err(X509SvidError::Authority);
    }
    let usage = certificate
        .key_usage()
        .map_err(|_| X509SvidError::Extension { extension: "key usage" })?
        .ok_or(X509SvidError::KeyUsage { problem: "is absent" })?;
    if !usage.critical {
        return Err(X509SvidError::KeyUsage { problem: "is not critical" });
    }
    if usage.value.key_cert_sign() || usage.value.crl_sign() {
        return Err(X509SvidError::KeyUsage { problem: "lets it sign certificates or lists" });
    }
    if !usage.value.digital_signature() {
        return Err(X509SvidError::KeyUsage { problem: "does not let it sign" });
    }
    Ok(())
}

fn check_extended_key_usage(certificate: &X509Certificate<'_>) -> Result<(), X509SvidError> {
    let usage = certificate
        .extended_key_usage()
        .map_err(|_| X509SvidError::Extension { extension: "extended key usage" })?;
    match usage {
        Some(usage) if !(usage.value.server_auth && usage.value.client_auth) => {
            Err(X509SvidError::ExtendedKeyUsage)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair,
        KeyUsagePurpose, SanType,
    };

    const ID: &str = "spiffe://shop.test/ns/shop/sa/api";

    fn leaf() -> CertificateParams {
        let mut parameters = CertificateParams::default();
        parameters.subject_alt_names = vec![uri(ID)];
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        parameters
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn parse(parameters: CertificateParams) -> Result<X509Svid, X509SvidError> {
        let key = KeyPair::generate().unwrap();
        X509Svid::parse(parameters.self_signed(&key).unwrap().der())
    }

    #[test]
    fn a_proper_leaf_gives_its_id() {
        assert_eq!(parse(leaf()).unwrap().id().to_string(), ID);
    }

    #[test]
    fn two_uri_names_are_refused_and_so_is_none() {
        let mut two = leaf();
        two.subject_alt_names.push(uri("spiffe://shop.test/ns/shop/sa/store"));
        assert_eq!(parse(two), Err(X509SvidError::UriNames { count: 2 }));
        let mut none = leaf();
        none.subject_alt_names = vec![SanType::DnsName("api".try_into().unwrap())];
        assert_eq!(parse(none), Err(X509SvidError::UriNames { count: 0 }));
    }

    #[test]
    fn a_dns_name_beside_the_id_is_allowed() {
        let mut parameters = leaf();
        parameters.subject_alt_names.push(SanType::DnsName("api".try_into().unwrap()));
        assert!(parse(parameters).is_ok());
    }

    #[test]
    fn an_id_without_a_path_or_of_another_scheme_is_refused() {
        let mut bare = leaf();
        bare.subject_alt_names = vec![uri("spiffe://shop.test")];
        assert!(matches!(parse(bare), Err(X509SvidError::NoPath { .. })));
        let mut other = leaf();
        other.subject_alt_names = vec![uri("https://shop.test/x")];
        assert!(matches!(parse(other), Err(X509SvidError::Id(_))));
    }

    #[test]
    fn an_authority_is_no_leaf() {
        let mut parameters = leaf();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        assert_eq!(parse(parameters), Err(X509SvidError::Authority));
    }

    #[test]
    fn the_key_usage_must_be_there_and_only_sign_handshakes() {
        let mut absent = leaf();
        absent.key_usages.clear();
        assert_eq!(parse(absent), Err(X509SvidError::KeyUsage { problem: "is absent" }));
        let mut signs = leaf();
        signs.key_usages.push(KeyUsagePurpose::KeyCertSign);
        assert!(matches!(parse(signs), Err(X509SvidError::KeyUsage { .. })));
        let mut other = leaf();
        other.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
        assert!(matches!(parse(other), Err(X509SvidError::KeyUsage { .. })));
    }

    #[test]
    fn an_extended_key_usage_names_both_ends() {
        let mut parameters = leaf();
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        assert_eq!(parse(parameters), Err(X509SvidError::ExtendedKeyUsage));
    }

    #[test]
    fn bytes_that_are_no_certificate_are_refused() {
        assert_eq!(X509Svid::parse(b""), Err(X509SvidError::NotACertificate));
        let key = KeyPair::generate().unwrap();
        let mut der = leaf().self_signed(&key).unwrap().der().to_vec();
        der.push(0);
        assert_eq!(X509Svid::parse(&der), Err(X509SvidError::NotACertificate));
    }
}

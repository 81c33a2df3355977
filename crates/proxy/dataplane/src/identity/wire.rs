//! The messages of `istio.v1.auth.IstioCertificateService`, as far as they are used.

use prost_types::value::Kind;
use prost_types::{Struct, Value};

pub(super) const CREATE_CERTIFICATE: &str =
    "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// The metadata field in which a node's proxy names the workload it asks for.
const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";

/// A certificate is asked for.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CertificateRequest {
    /// The signing request, in PEM.
    #[prost(string, tag = "1")]
    csr: String,
    /// Its lifetime in seconds; zero leaves it to the authority.
    #[prost(int64, tag = "3")]
    validity_duration: i64,
    /// Whose certificate.
    #[prost(message, optional, tag = "4")]
    metadata: Option<Struct>,
}

/// The certificate, leaf first and root last, each in PEM.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CertificateResponse {
    #[prost(string, repeated, tag = "1")]
    pub(super) cert_chain: Vec<String>,
}

impl CertificateRequest {
    pub(super) fn new(csr: String, validity_duration: i64, identity: &str) -> Self {
        let value = Value { kind: Some(Kind::StringValue(identity.to_owned())) };
        let fields = [(IMPERSONATED_IDENTITY.to_owned(), value)].into();
        Self { csr, validity_duration, metadata: Some(Struct { fields }) }
    }
}

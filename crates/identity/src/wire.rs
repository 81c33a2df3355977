//! The messages of `istio.v1.auth.IstioCertificateService`, as far as they are
//! used. Written by hand: two messages do not want a code generator.

use prost_types::value::Kind;
use prost_types::{Struct, Value};

/// The one method, as HTTP/2 spells it.
pub(crate) const CREATE_CERTIFICATE: &str =
    "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// The service's name, which is the first segment of the path.
pub(crate) const SERVICE_NAME: &str = "istio.v1.auth.IstioCertificateService";
/// The metadata field in which a node's agent names the workload it asks for.
const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";

/// A certificate is asked for.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CertificateRequest {
    /// The signing request, in PEM.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// How many seconds the certificate should live; not positive asks for the default.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    /// Where the workload's identity is named.
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<Struct>,
}

/// The certificate, the leaf first and the root last, each in PEM.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CertificateResponse {
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

impl CertificateRequest {
    pub(crate) fn new(csr: String, validity_seconds: i64, identity: &str) -> Self {
        let value = Value { kind: Some(Kind::StringValue(identity.to_owned())) };
        let fields = [(IMPERSONATED_IDENTITY.to_owned(), value)].into_iter().collect();
        Self { csr, validity_duration: validity_seconds, metadata: Some(Struct { fields }) }
    }

    /// The identity named in the metadata.
    pub(crate) fn identity(&self) -> Option<&str> {
        let value = self.metadata.as_ref()?.fields.get(IMPERSONATED_IDENTITY)?;
        match value.kind.as_ref()? {
            Kind::StringValue(identity) => Some(identity),
            _ => None,
        }
    }
}

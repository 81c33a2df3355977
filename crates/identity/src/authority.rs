//! The authority of a trust domain: a root, and what it signs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::rand;
use carrack_spiffe::{Bundle, BundleError, SpiffeId, TrustDomain};
use jiff::Timestamp;
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, ExtendedKeyUsagePurpose,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    PublicKey, SanType, SerialNumber,
};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::{IdentityConfig, root};

/// The longest a certificate may live.
pub const MAXIMUM_LIFETIME: Duration = Duration::from_hours(24);
/// How far in the past a certificate begins, for clocks that differ, in seconds.
const CLOCK_SKEW: i64 = 60;
/// Far over what a signing request needs.
const MAXIMUM_REQUEST: usize = 16 * 1024;

/// Issues the certificates of one trust domain.
///
/// Sharing one between threads is fine; issuing changes nothing in it.
pub struct Authority {
    trust_domain: TrustDomain,
    bundle: Bundle,
    issuer: Issuer<'static, KeyPair>,
    root_ends: i64,
    lifetime: Duration,
}

/// Why an authority could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory or a file in it could not be made or read.
    #[error("opening the authority's files at {}", path.display())]
    Directory {
        /// The directory or file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// A root could not be generated.
    #[error("generating the authority's root")]
    Generate {
        /// What went wrong.
        source: rcgen::Error,
    },
    /// The system gives no randomness.
    #[error("drawing a serial number from the system's randomness")]
    Randomness,
    /// The key file is not what was written.
    #[error(
        "{} is not an authority's key and certificate; restore it from a backup, or remove it to begin a new trust domain",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The root certificate cannot be one of the bundle.
    #[error("the root certificate in {} cannot serve", path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        source: BundleError,
    },
    /// The root belongs to another trust domain.
    #[error(
        "{} holds the authority of `{found}`, not of `{wanted}`; name that trust domain or another directory",
        path.display()
    )]
    OtherTrustDomain {
        /// The directory.
        path: PathBuf,
        /// What the root certificate names.
        found: String,
        /// What was asked for.
        wanted: TrustDomain,
    },
    /// The lifetime asked for is none or too long.
    #[error("certificates may live between one minute and 24 hours, not {asked:?}")]
    Lifetime {
        /// What was asked for.
        asked: Duration,
    },
}

/// Why a certificate was not issued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// The request is not a signing request, or not signed by its own key.
    #[error("the signing request for `{id}` cannot be read or is not signed by its own key")]
    Request {
        /// Whose certificate was asked for.
        id: SpiffeId,
    },
    /// The key is of a kind that is not certified.
    #[error("the key for `{id}` is none of ECDSA P-256, ECDSA P-384 and Ed25519")]
    Key {
        /// Whose certificate was asked for.
        id: SpiffeId,
    },
    /// The name is not this authority's to give.
    #[error("`{id}` is not a workload of the trust domain `{trust_domain}`")]
    NotOurs {
        /// Whose certificate was asked for.
        id: SpiffeId,
        /// Whose authority this is.
        trust_domain: TrustDomain,
    },
    /// The root is past its end.
    #[error(
        "the root of `{trust_domain}` has expired; remove the authority's directory to begin a new one"
    )]
    RootExpired {
        /// Whose authority this is.
        trust_domain: TrustDomain,
    },
    /// The system gives no randomness.
    #[error("drawing a serial number for `{id}` from the system's randomness")]
    Randomness {
        /// Whose certificate was asked for.
        id: SpiffeId,
    },
    /// Signing failed.
    #[error("signing the certificate of `{id}`")]
    Sign {
        /// Whose certificate was asked for.
        id: SpiffeId,
        /// What went wrong.
        source: rcgen::Error,
    },
}

/// A certificate as it was issued.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The leaf in PEM.
    pub leaf_pem: String,
    /// The root in PEM.
    pub root_pem: String,
    /// The leaf's serial number, in hexadecimal.
    pub serial: String,
    /// The last second it may be used.
    pub expires: Timestamp,
}

impl Authority {
    /// Opens the authority of `trust_domain` in `directory`, generating its root the
    /// first time.
    ///
    /// The root's key is an ECDSA P-256 key in a file that only its owner may read.
    /// Two processes that open an empty directory at once get the same root.
    /// `bundle.pem` beside it holds the root for those outside the mesh.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; in particular when the directory belongs to another trust
    /// domain.
    pub fn open(directory: &Path, trust_domain: &TrustDomain) -> Result<Self, OpenError> {
        Self::open_at(directory, trust_domain, Timestamp::now())
    }

    /// As [`Authority::open`], at a moment of the caller's choosing.
    ///
    /// # Errors
    ///
    /// As for [`Authority::open`].
    pub fn open_at(
        directory: &Path,
        trust_domain: &TrustDomain,
        now: Timestamp,
    ) -> Result<Self, OpenError> {
        let path = || directory.to_owned();
        let root::Root { certificate, key } = root::open(directory, trust_domain, now)?;
        let bundle = Bundle::new(trust_domain.clone(), vec![certificate.to_vec()])
            .map_err(|source| OpenError::Root { path: path(), source })?;
        let damaged = || OpenError::Damaged { path: path() };
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| damaged())?;
        check_trust_domain(&parsed, directory, trust_domain)?;
        if parsed.public_key().raw != rcgen::PublicKeyData::subject_public_key_info(&key) {
            return Err(damaged());
        }
        let root_ends = parsed.validity().not_after.timestamp();
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|_| damaged())?;
        root::write_bundle(directory, &bundle)
            .map_err(|source| OpenError::Directory { path: path(), source })?;
        let lifetime = IdentityConfig::DEFAULT_LIFETIME;
        Ok(Self { trust_domain: trust_domain.clone(), bundle, issuer, root_ends, lifetime })
    }

    /// Sets how long certificates live when a request does not ask for less.
    ///
    /// # Errors
    ///
    /// [`OpenError::Lifetime`] under a minute or over [`MAXIMUM_LIFETIME`].
    pub fn with_lifetime(self, lifetime: Duration) -> Result<Self, OpenError> {
        if lifetime < Duration::from_mins(1) || lifetime > MAXIMUM_LIFETIME {
            return Err(OpenError::Lifetime { asked: lifetime });
        }
        Ok(Self { lifetime, ..self })
    }

    /// Whose certificates this authority issues.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The root that its certificates chain up to.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Issues a certificate that names `id` for the key in `request`, a PEM signing
    /// request.
    ///
    /// Nothing but the key is taken from the request: whatever names, usages or
    /// constraints it asks for are passed over. The certificate begins a minute
    /// before `now` and ends after `lifetime`, or sooner when the authority's own
    /// limit or its root's end comes first.
    ///
    /// # Errors
    ///
    /// [`IssueError`] when the request proves no key, the key is of a weak kind, or
    /// `id` is not a workload of this trust domain.
    pub fn issue(
        &self,
        request: &str,
        id: &SpiffeId,
        lifetime: Option<Duration>,
        now: Timestamp,
    ) -> Result<Issued, IssueError> {
        if id.trust_domain() != &self.trust_domain || id.path().is_empty() {
            let trust_domain = self.trust_domain.clone();
            return Err(IssueError::NotOurs { id: id.clone(), trust_domain });
        }
        let key = proven_key(request, id)?;
        let lifetime = lifetime.filter(|asked| *asked <= self.lifetime).unwrap_or(self.lifetime);
        let lifetime = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        let ends = now.as_second().saturating_add(lifetime).min(self.root_ends);
        let expires = match Timestamp::from_second(ends) {
            Ok(expires) if expires > now => expires,
            _ => return Err(IssueError::RootExpired { trust_domain: self.trust_domain.clone() }),
        };
        let serial = serial_number().map_err(|_| IssueError::Randomness { id: id.clone() })?;
        let sign = |source| IssueError::Sign { id: id.clone(), source };
        let mut parameters = leaf(id).map_err(sign)?;
        set_validity(&mut parameters, now.as_second(), ends);
        let hexadecimal = serial.to_string();
        parameters.serial_number = Some(serial);
        let leaf = parameters.signed_by(&key, &self.issuer).map_err(sign)?;
        Ok(Issued {
            leaf_pem: leaf.pem(),
            root_pem: self.bundle.to_pem(),
            serial: hexadecimal,
            expires,
        })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Authority").field("trust_domain", &self.trust_domain).finish()
    }
}

fn check_trust_domain(
    root: &X509Certificate<'_>,
    directory: &Path,
    wanted: &TrustDomain,
) -> Result<(), OpenError> {
    let names = root.subject_alternative_name().ok().flatten();
    let found = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .find_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        })
        .unwrap_or_default();
    if found == wanted.id().to_string() {
        return Ok(());
    }
    let path = directory.to_owned();
    Err(OpenError::OtherTrustDomain { path, found, wanted: wanted.clone() })
}

/// The key of a signing request that is signed by that key.
fn proven_key(request: &str, id: &SpiffeId) -> Result<PublicKey, IssueError> {
    let refused = || IssueError::Request { id: id.clone() };
    if request.len() > MAXIMUM_REQUEST {
        return Err(refused());
    }
    let request = CertificateSigningRequestParams::from_pem(request).map_err(|_| refused())?;
    let allowed = [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519];
    if !allowed.contains(&request.public_key.algorithm()) {
        return Err(IssueError::Key { id: id.clone() });
    }
    Ok(request.public_key)
}

/// What every leaf says, whoever asks. The subject stays empty, which makes the
/// alternative name critical: there is no second name to be mistaken for the first.
fn leaf(id: &SpiffeId) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.subject_alt_names = vec![SanType::URI(Ia5String::try_from(id.to_string())?)];
    parameters.is_ca = rcgen::IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    parameters.use_authority_key_identifier_extension = true;
    Ok(parameters)
}

/// A positive serial number of 127 random bits.
pub(crate) fn serial_number() -> Result<SerialNumber, OpenError> {
    let mut bytes = [0_u8; 16];
    rand::fill(&mut bytes).map_err(|_| OpenError::Randomness)?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Sets when a certificate begins, with room for clocks that differ, and ends.
pub(crate) fn set_validity(parameters: &mut CertificateParams, now: i64, ends: i64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let after = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    parameters.not_before = epoch + after(now.saturating_sub(CLOCK_SKEW));
    parameters.not_after = epoch + after(ends);
}

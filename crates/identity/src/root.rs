//! The authority's key and certificate on disk.
//!
//! Both stand in one file, so that there is never one without the other. The file
//! appears by a rename under a lock: two authorities opened at once on an empty
//! directory get the same root.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use carrack_spiffe::{Bundle, TrustDomain};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::authority::{OpenError, serial_number, set_validity};

const FILE: &str = "authority.pem";
const BUNDLE_FILE: &str = "bundle.pem";
const LOCK: &str = "lock";
/// Ten years, less what leap days add.
const LIFETIME_SECONDS: i64 = 3650 * 24 * 60 * 60;
/// Far over what two PEM parts need.
const MAXIMUM_FILE: u64 = 64 * 1024;

/// A root certificate and the key that signs with it.
pub(crate) struct Root {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: KeyPair,
}

/// Reads the root in `directory`, making one when there is none.
pub(crate) fn open(
    directory: &Path,
    trust_domain: &TrustDomain,
    now: Timestamp,
) -> Result<Root, OpenError> {
    let failed = |source| OpenError::Directory { path: directory.to_owned(), source };
    private_directory(directory).map_err(failed)?;
    let lock = lock(directory).map_err(failed)?;
    let path = directory.join(FILE);
    if !path.try_exists().map_err(failed)? {
        let pem = generate(trust_domain, now)?;
        write(directory, FILE, 0o600, pem.as_bytes()).map_err(failed)?;
    }
    let root = read(&path);
    drop(lock);
    root
}

fn private_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
}

/// Holds the directory against another opener until the file is dropped.
fn lock(directory: &Path) -> io::Result<File> {
    let path = directory.join(LOCK);
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    file.lock()?;
    Ok(file)
}

fn generate(trust_domain: &TrustDomain, now: Timestamp) -> Result<Zeroizing<String>, OpenError> {
    let failed = |source| OpenError::Generate { source };
    let mut parameters = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, format!("Carrack authority of {trust_domain}"));
    parameters.distinguished_name = name;
    let uri = trust_domain.id().to_string().try_into().map_err(failed)?;
    parameters.subject_alt_names = vec![SanType::URI(uri)];
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.serial_number = Some(serial_number()?);
    set_validity(&mut parameters, now.as_second(), now.as_second() + LIFETIME_SECONDS);
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = parameters.self_signed(&key).map_err(failed)?;
    let key = Zeroizing::new(key.serialize_pem());
    Ok(Zeroizing::new(format!("{}{}", key.as_str(), certificate.pem())))
}

/// Writes the roots for those outside the mesh.
pub(crate) fn write_bundle(directory: &Path, bundle: &Bundle) -> io::Result<()> {
    let _lock = lock(directory)?;
    write(directory, BUNDLE_FILE, 0o644, bundle.to_pem().as_bytes())
}

/// Puts a file in place whole or not at all. The lock is held, so the name of the
/// unfinished file is ours; one that a crash left is overwritten.
fn write(directory: &Path, name: &str, mode: u32, pem: &[u8]) -> io::Result<()> {
    let new = directory.join(format!("{name}.new"));
    let mut file =
        OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&new)?;
    file.write_all(pem)?;
    file.sync_all()?;
    fs::rename(&new, directory.join(name))?;
    File::open(directory)?.sync_all()
}

fn read(path: &Path) -> Result<Root, OpenError> {
    let failed = |source| OpenError::Directory { path: path.to_owned(), source };
    let damaged = || OpenError::Damaged { path: path.to_owned() };
    let mut pem = Zeroizing::new(Vec::new());
    File::open(path)
        .and_then(|file| file.take(MAXIMUM_FILE).read_to_end(&mut pem))
        .map_err(failed)?;
    let certificate = CertificateDer::from_pem_slice(&pem).map_err(|_| damaged())?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| damaged())?;
    let key = KeyPair::try_from(&key).map_err(|_| damaged())?;
    Ok(Root { certificate, key })
}

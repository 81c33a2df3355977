//! What the authority issues, what it keeps, and what others make of it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its own functions too")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use carrack_identity::{Authority, IssueError, OpenError};
use carrack_spiffe::{SpiffeId, TrustDomain, X509Svid};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData as _,
    SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

fn domain() -> TrustDomain {
    TrustDomain::new("shop.test").unwrap()
}

fn api() -> SpiffeId {
    SpiffeId::workload(&domain(), "shop", "api").unwrap()
}

fn request(parameters: CertificateParams) -> (KeyPair, String) {
    let key = KeyPair::generate().unwrap();
    let request = parameters.serialize_request(&key).unwrap().pem().unwrap();
    (key, request)
}

fn svid(pem: &str) -> X509Svid {
    X509Svid::parse(&CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap()
}

fn openssl_verifies(directory: &Path, leaf: &str, at: Timestamp) -> std::process::Output {
    let file = directory.join("leaf.pem");
    std::fs::write(&file, leaf).unwrap();
    Command::new("openssl")
        .args(["verify", "-x509_strict", "-purpose", "sslserver", "-attime"])
        .arg(at.as_second().to_string())
        .arg("-CAfile")
        .arg(directory.join("bundle.pem"))
        .arg(&file)
        .output()
        .expect("openssl is installed")
}

#[test]
fn openssl_accepts_what_is_issued_and_only_while_it_lasts() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::open(directory.path(), &domain()).unwrap();
    let now = Timestamp::now();
    let (key, request) = request(CertificateParams::default());
    let issued = authority.issue(&request, &api(), None, now).unwrap();
    let output = openssl_verifies(directory.path(), &issued.leaf_pem, now);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let later = issued.expires + Duration::from_secs(1);
    assert!(!openssl_verifies(directory.path(), &issued.leaf_pem, later).status.success());
    assert_eq!(svid(&issued.leaf_pem).public_key(), key.subject_public_key_info());
}

#[test]
fn only_the_key_is_taken_from_a_request() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::open(directory.path(), &domain()).unwrap();
    let mut greedy = CertificateParams::default();
    greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    greedy.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    greedy.subject_alt_names = vec![
        SanType::URI("spiffe://shop.test/ns/shop/sa/admin".try_into().unwrap()),
        SanType::DnsName("bank.test".try_into().unwrap()),
    ];
    let (_, request) = request(greedy);
    let issued = authority.issue(&request, &api(), None, Timestamp::now()).unwrap();
    assert_eq!(svid(&issued.leaf_pem).id(), &api());
    let text = Command::new("openssl")
        .args(["x509", "-noout", "-text", "-in"])
        .arg({
            let file = directory.path().join("greedy.pem");
            std::fs::write(&file, &issued.leaf_pem).unwrap();
            file
        })
        .output()
        .unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("CA:FALSE"), "{text}");
    assert!(!text.contains("bank.test") && !text.contains("admin"), "{text}");
}

#[test]
fn a_lifetime_is_never_longer_than_the_authority_gives() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::open(directory.path(), &domain())
        .unwrap()
        .with_lifetime(Duration::from_hours(2))
        .unwrap();
    let now = Timestamp::now();
    let (_, request) = request(CertificateParams::default());
    let validity = |asked| {
        let issued = authority.issue(&request, &api(), asked, now).unwrap();
        let validity = svid(&issued.leaf_pem).validity();
        assert_eq!(validity.not_before, now.as_second() - 60);
        validity.not_after - now.as_second()
    };
    assert_eq!(validity(None), 7200);
    assert_eq!(validity(Some(Duration::from_secs(300))), 300);
    assert_eq!(validity(Some(Duration::from_hours(2000))), 7200);
    let authority = Authority::open(directory.path(), &domain()).unwrap();
    let error = authority.with_lifetime(Duration::from_hours(25)).unwrap_err();
    assert!(matches!(error, OpenError::Lifetime { .. }));
}

#[test]
fn a_request_not_signed_by_its_own_key_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::open(directory.path(), &domain()).unwrap();
    let issue = |request: &str| {
        authority.issue(request, &api(), None, Timestamp::now()).expect_err("refused")
    };
    assert!(matches!(issue("nonsense"), IssueError::Request { .. }));
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let mut der = request.der().to_vec();
    let last = der.len() - 1;
    der[last] ^= 1;
    let pem = Command::new("openssl")
        .args(["req", "-inform", "DER", "-outform", "PEM", "-in"])
        .arg({
            let file = directory.path().join("request.der");
            std::fs::write(&file, der).unwrap();
            file
        })
        .output()
        .unwrap();
    assert!(matches!(issue(&String::from_utf8(pem.stdout).unwrap()), IssueError::Request { .. }));
}

#[test]
fn an_identity_of_another_trust_domain_is_not_ours_to_give() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::open(directory.path(), &domain()).unwrap();
    let (_, request) = request(CertificateParams::default());
    for id in ["spiffe://other.test/ns/shop/sa/api", "spiffe://shop.test"] {
        let id = SpiffeId::parse(id).unwrap();
        let error = authority.issue(&request, &id, None, Timestamp::now()).unwrap_err();
        assert!(matches!(error, IssueError::NotOurs { .. }));
    }
}

#[test]
fn the_root_is_kept_private_and_survives_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("identity");
    let first = Authority::open(&path, &domain()).unwrap().bundle().clone();
    let mode =
        |name: &str| std::fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("authority.pem"), 0o600);
    assert_eq!(mode(""), 0o700);
    assert_eq!(Authority::open(&path, &domain()).unwrap().bundle(), &first);
    let other = TrustDomain::new("other.test").unwrap();
    let error = Authority::open(&path, &other).unwrap_err();
    assert!(matches!(error, OpenError::OtherTrustDomain { .. }));
}

#[test]
fn two_that_open_at_once_share_one_root() {
    let directory = tempfile::tempdir().unwrap();
    let bundles: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    Authority::open(directory.path(), &domain()).unwrap().bundle().clone()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(bundles.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn what_a_crash_left_half_written_is_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("authority.pem.new"), "-----BEGIN").unwrap();
    assert!(Authority::open(directory.path(), &domain()).is_ok());
}

#[test]
fn a_damaged_key_file_is_named_and_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("authority.pem");
    std::fs::write(&file, "not a key").unwrap();
    let error = Authority::open(directory.path(), &domain()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "not a key");
}

#[test]
fn a_root_past_its_end_issues_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let long_ago = Timestamp::from_second(1_000_000_000).unwrap();
    let authority = Authority::open_at(directory.path(), &domain(), long_ago).unwrap();
    let (_, request) = request(CertificateParams::default());
    let error = authority.issue(&request, &api(), None, Timestamp::now()).unwrap_err();
    assert!(matches!(error, IssueError::RootExpired { .. }));
}

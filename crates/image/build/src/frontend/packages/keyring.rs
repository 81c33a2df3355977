//! Who may sign a Release file, and whether they did.
//!
//! ```text
//! InRelease ──Keyring::verify──▶ the signed text, and nothing but it
//! ```
//!
//! What is parsed further is the text the signature covers, taken from the
//! signature's own framing, never the file around it.

use jiff::Timestamp;
use pgp::composed::{
    CleartextSignedMessage, Deserializable as _, SignedPublicKey, SignedPublicSubKey,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::types::{KeyDetails, Tag, VerifyingKey};

const ARMOR_BEGINS: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
/// How far a signer's clock may be ahead of ours, in seconds.
const CLOCK_SKEW: i64 = 24 * 60 * 60;

/// The keys that may sign for a source.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keyring {
    certificates: Vec<SignedPublicKey>,
}

/// Why a signed file is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// There is no signature around the text.
    #[error("it is not clear-signed")]
    NotSigned,
    /// It was signed, but by none of the keys.
    #[error("it is signed by {signers}, and none of the source's {keys} keys is that one")]
    UnknownSigner {
        /// The key ids that the signatures name.
        signers: String,
        /// How many keys were tried.
        keys: usize,
    },
    /// A known key's signature does not fit the text.
    #[error("the signature by key {signer} does not fit the text; it was altered")]
    Bad {
        /// The key.
        signer: String,
    },
    /// A known key signed, but may not be used.
    #[error("key {signer} signed it, but that key {problem}")]
    Unusable {
        /// The key.
        signer: String,
        /// Why not.
        problem: &'static str,
    },
}

impl Keyring {
    /// Adds the keys of a keyring file, armored or not. Parts that are no usable key
    /// are passed over: a keyring may hold keys of kinds we do not know.
    ///
    /// Returns how many keys were added.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> usize {
        let before = self.certificates.len();
        match std::str::from_utf8(bytes) {
            Ok(text) if text.contains(ARMOR_BEGINS) => self.add_armored(text),
            _ => self
                .certificates
                .extend(SignedPublicKey::from_bytes_many(bytes).into_iter().flatten().flatten()),
        }
        self.certificates.len() - before
    }

    fn add_armored(&mut self, text: &str) {
        for block in text.split(ARMOR_BEGINS).skip(1) {
            let block = format!("{ARMOR_BEGINS}{block}");
            if let Ok((keys, _)) = SignedPublicKey::from_string_many(&block) {
                self.certificates.extend(keys.flatten());
            }
        }
    }

    /// Gives back the signed text of a clear-signed file, with plain line ends.
    ///
    /// At least one signature must be by a key of this ring that is not expired or
    /// revoked at `now`, and no signature by such a key may be false.
    ///
    /// # Errors
    ///
    /// [`SignatureError`] says what is wrong.
    pub(crate) fn verify(&self, file: &str, now: Timestamp) -> Result<String, SignatureError> {
        let (message, _) =
            CleartextSignedMessage::from_string(file).map_err(|_| SignatureError::NotSigned)?;
        let text = message.signed_text();
        let mut good = false;
        let mut refusal = None;
        for signature in message.signatures() {
            match self.check(signature, &text, now) {
                Some(Ok(())) => good = true,
                Some(Err(error @ SignatureError::Bad { .. })) => return Err(error),
                Some(Err(error)) => refusal = Some(error),
                None => {}
            }
        }
        match (good, refusal) {
            (true, _) => Ok(text.replace("\r\n", "\n")),
            (false, Some(error)) => Err(error),
            (false, None) => Err(self.unknown(message.signatures())),
        }
    }

    fn unknown(&self, signatures: &[Signature]) -> SignatureError {
        let signers: Vec<String> = signatures.iter().map(signer).collect();
        if signers.is_empty() {
            return SignatureError::NotSigned;
        }
        SignatureError::UnknownSigner { signers: signers.join(", "), keys: self.certificates.len() }
    }

    /// `None` when no key of this ring made the signature.
    fn check(
        &self,
        signature: &Signature,
        text: &str,
        now: Timestamp,
    ) -> Option<Result<(), SignatureError>> {
        for certificate in &self.certificates {
            if names(signature, &certificate.primary_key) {
                let key = &certificate.primary_key;
                return Some(check_with(signature, text, key, certificate, None, now));
            }
            for subkey in &certificate.public_subkeys {
                if names(signature, &subkey.key) {
                    let subkey = Some(subkey);
                    let key = &subkey?.key;
                    return Some(check_with(signature, text, key, certificate, subkey, now));
                }
            }
        }
        None
    }
}

fn check_with(
    signature: &Signature,
    text: &str,
    key: &impl VerifyingKey,
    certificate: &SignedPublicKey,
    subkey: Option<&SignedPublicSubKey>,
    now: Timestamp,
) -> Result<(), SignatureError> {
    let signer = signer(signature);
    let kind = signature.typ();
    if !matches!(kind, Some(SignatureType::Binary | SignatureType::Text))
        || signature.verify(key, text.as_bytes()).is_err()
    {
        return Err(SignatureError::Bad { signer });
    }
    let now = now.as_second();
    let problem = signature_problem(signature, now)
        .or_else(|| certificate_problem(certificate, now))
        .or_else(|| subkey.and_then(|subkey| subkey_problem(subkey, certificate, now)));
    match problem {
        Some(problem) => Err(SignatureError::Unusable { signer, problem }),
        None => Ok(()),
    }
}

/// Whether a signature says that `key` made it.
fn names(signature: &Signature, key: &impl KeyDetails) -> bool {
    let fingerprint = key.fingerprint();
    let id = key.legacy_key_id();
    signature.issuer_fingerprint().into_iter().any(|named| *named == fingerprint)
        || (signature.issuer_fingerprint().is_empty()
            && signature.issuer_key_id().into_iter().any(|named| *named == id))
}

fn signer(signature: &Signature) -> String {
    let fingerprints = signature.issuer_fingerprint();
    let ids = signature.issuer_key_id();
    match (fingerprints.first(), ids.first()) {
        (Some(fingerprint), _) => format!("{fingerprint:X}"),
        (None, Some(id)) => id.to_string().to_uppercase(),
        (None, None) => "an unnamed key".to_owned(),
    }
}

fn signature_problem(signature: &Signature, now: i64) -> Option<&'static str> {
    let strong = matches!(
        signature.hash_alg(),
        Some(
            HashAlgorithm::Sha256
                | HashAlgorithm::Sha384
                | HashAlgorithm::Sha512
                | HashAlgorithm::Sha3_256
                | HashAlgorithm::Sha3_512
        )
    );
    if !strong {
        return Some("signed with a digest that is no longer safe");
    }
    let Some(created) = signature.created() else {
        return Some("did not say when it signed");
    };
    let created = i64::from(created.as_secs());
    if created > now + CLOCK_SKEW {
        return Some("signed it at a time still to come; check this machine's clock");
    }
    match signature.signature_expiration_time() {
        Some(life) if life.as_secs() != 0 && created + i64::from(life.as_secs()) < now => {
            Some("limited the signature to a time that has passed")
        }
        _ => None,
    }
}

fn certificate_problem(certificate: &SignedPublicKey, now: i64) -> Option<&'static str> {
    let key = &certificate.primary_key;
    let details = &certificate.details;
    if details.revocation_signatures.iter().any(|s| s.verify_key(key).is_ok()) {
        return Some("has been revoked");
    }
    let direct = details.direct_signatures.iter().filter(|s| s.verify_key(key).is_ok());
    let users = details.users.iter().flat_map(|user| {
        user.signatures
            .iter()
            .filter(|s| s.verify_certification(key, Tag::UserId, &user.id).is_ok())
    });
    let Some(newest) = newest(direct.chain(users)) else {
        return Some("has no signature by itself");
    };
    if ended(newest, i64::from(key.created_at().as_secs()), now) {
        return Some("has expired");
    }
    None
}

fn subkey_problem(
    subkey: &SignedPublicSubKey,
    certificate: &SignedPublicKey,
    now: i64,
) -> Option<&'static str> {
    let primary = &certificate.primary_key;
    let valid = || {
        subkey.signatures.iter().filter(|s| s.verify_subkey_binding(primary, &subkey.key).is_ok())
    };
    if valid().any(|s| s.typ() == Some(SignatureType::SubkeyRevocation)) {
        return Some("has been revoked");
    }
    let Some(binding) = newest(valid()) else {
        return Some("does not belong to the certificate it stands in");
    };
    let backwards = binding
        .embedded_signature()
        .is_some_and(|s| s.verify_primary_key_binding(&subkey.key, primary).is_ok());
    if !binding.key_flags().sign() || !backwards {
        return Some("is not meant for signing");
    }
    if ended(binding, i64::from(subkey.key.created_at().as_secs()), now) {
        return Some("has expired");
    }
    None
}

fn newest<'a>(signatures: impl Iterator<Item = &'a Signature>) -> Option<&'a Signature> {
    signatures.max_by_key(|signature| signature.created().map(|created| created.as_secs()))
}

/// Whether the life that `statement` gives a key made at `created` is over.
fn ended(statement: &Signature, created: i64, now: i64) -> bool {
    statement
        .key_expiration_time()
        .is_some_and(|life| life.as_secs() != 0 && created + i64::from(life.as_secs()) < now)
}

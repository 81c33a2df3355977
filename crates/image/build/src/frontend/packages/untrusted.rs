//! Each reader of foreign text or bytes in this frontend, as a plain function, so
//! that fuzzing and property tests can reach it.

use std::io;

use carrack_oci::Digest;
use jiff::Timestamp;

use super::deb::{self, DebError};
use super::deb822::{self, Malformed};
use super::index::Universe;
use super::keyring::{Keyring, SignatureError};
use super::relation::{self, RelationError};
use super::release::{Release, ReleaseError};

/// Reads a package file to its end and says how many entries it holds.
///
/// # Errors
///
/// [`DebError`] when it is none.
pub fn deb(bytes: &[u8]) -> Result<usize, DebError> {
    let mut entries = 0;
    deb::read::<DebError>(bytes, |_, content| {
        entries += 1;
        io::copy(content, &mut io::sink())?;
        Ok(())
    })?;
    Ok(entries)
}

/// Reads paragraphs of fields and says how many there are.
///
/// # Errors
///
/// [`Malformed`] at the first line that is none.
pub fn deb822(text: &str) -> Result<usize, Malformed> {
    deb822::parse(text).try_fold(0, |count, paragraph| paragraph.map(|_| count + 1))
}

/// Reads a field of relations and says how many clauses it has.
///
/// # Errors
///
/// [`RelationError`] at the first that is none.
pub fn relations(text: &str) -> Result<usize, RelationError> {
    Ok(relation::parse_field(text)?.len())
}

/// Reads a Release file.
///
/// # Errors
///
/// [`ReleaseError`] when it is none.
pub fn release(text: &str) -> Result<(), ReleaseError> {
    Release::parse(text).map(drop)
}

/// Reads an index and looks for one package in it.
pub fn index(text: &str, package: &str) -> usize {
    let mut universe = Universe::new("amd64");
    universe.add(0, "untrusted", text.to_owned());
    universe.versions(package).map_or(0, |versions| versions.len())
}

/// Reads a clear-signed file against the keys of a keyring, which may be foreign too.
///
/// # Errors
///
/// [`SignatureError`] unless one of the keys signed it.
pub fn signed(text: &str, keys: &[u8]) -> Result<Digest, SignatureError> {
    let mut keyring = Keyring::default();
    keyring.add(keys);
    keyring.verify(text, Timestamp::UNIX_EPOCH).map(Digest::of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            deb(&bytes).ok();
            deb(&[b"!<arch>\n".as_slice(), &bytes].concat()).ok();
            signed(&String::from_utf8_lossy(&bytes), &bytes).ok();
        }

        #[test]
        fn no_text_makes_a_reader_panic(text in "([A-Za-z:(),.|=<>~ \n-]|é|\u{0}){0,200}") {
            deb822(&text).ok();
            relations(&text).ok();
            release(&text).ok();
            release(&format!("SHA256:\n {text}")).ok();
            index(&text, "a");
            index(&format!("Package: aa\nVersion: {text}\n"), "aa");
            signed(&format!("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{text}"), b"").ok();
        }
    }
}

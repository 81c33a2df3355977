//! One source, from its signed Release file to the text of its indexes.
//!
//! ```text
//! InRelease ──signature──▶ Release ──digest──▶ Packages.xz ──▶ paragraphs
//! ```

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use carrack_oci::Digest;
use jiff::Timestamp;

use super::cache::Cache;
use super::fetch::{FetchError, Fetcher, Wanted};
use super::keyring::Keyring;
use super::release::Release;
use super::sources::{self, SignedBy, Source};
use super::{PackagesError, deb};

const MAXIMUM_RELEASE: u64 = 32 * 1024 * 1024;
const MAXIMUM_INDEX: u64 = 1024 * 1024 * 1024;
/// The forms of an index, the smallest first.
const FORMS: [&str; 3] = [".xz", ".gz", ""];

/// What is needed to bring sources here.
pub(crate) struct Archive<'a> {
    pub(crate) cache: &'a Cache,
    pub(crate) fetcher: &'a Fetcher,
    pub(crate) apt_directory: &'a Path,
    pub(crate) now: Timestamp,
    /// Release files fetched less long ago are taken as they are.
    pub(crate) maximum_age: Duration,
}

/// A source whose Release file is believed.
pub(crate) struct Suite {
    pub(crate) source: Source,
    release: Release,
    /// The digest of what was signed.
    pub(crate) digest: Digest,
}

/// What asking a source came to.
pub(crate) enum Asked {
    /// Here it is; perhaps with something a person should know.
    Known(Box<Suite>, Option<String>),
    /// It does not answer, and is not known from before.
    Silent(String),
}

/// An index to be had.
pub(crate) struct IndexFile {
    /// For messages.
    pub(crate) name: String,
    pub(crate) wanted: Wanted,
    form: &'static str,
}

impl Archive<'_> {
    /// Brings the Release file of a source here and checks it.
    ///
    /// A source that does not answer is taken as it was last known, or left out. One
    /// that answers wrongly is an error.
    pub(crate) fn ask(&self, source: &Source) -> Result<Asked, PackagesError> {
        let address = source.suite_file("InRelease");
        let keys = self.keyring(source)?;
        let kept = self.cache.release(&address).map_err(PackagesError::cache)?;
        if let Some((text, age)) = &kept
            && *age <= self.maximum_age
            && let Ok(suite) = self.believe(source, &keys, text)
        {
            return Ok(Asked::Known(Box::new(suite), None));
        }
        let text = match self.fetcher.text(&address, MAXIMUM_RELEASE) {
            Ok(text) => text,
            Err(error) => return self.unanswered(source, &keys, kept, &error),
        };
        let suite = self.believe(source, &keys, &text)?;
        if let Some((old, _)) = &kept
            && let Ok(old) = self.believe(source, &keys, old)
            && old.release.date > suite.release.date
        {
            let message = format!("{address} is older than before; the newer one is used");
            return Ok(Asked::Known(Box::new(old), Some(message)));
        }
        self.cache.keep_release(&address, &text).map_err(PackagesError::cache)?;
        Ok(Asked::Known(Box::new(suite), None))
    }

    fn unanswered(
        &self,
        source: &Source,
        keys: &Keyring,
        kept: Option<(String, Duration)>,
        error: &FetchError,
    ) -> Result<Asked, PackagesError> {
        let why = match error {
            FetchError::Status { address, status: 404 } => {
                format!("there is no signed Release file at {address}")
            }
            _ => with_causes(error),
        };
        let Some((text, _)) = kept else {
            return Ok(Asked::Silent(format!("{}: {why}", source.place)));
        };
        let suite = self.believe(source, keys, &text)?;
        let message = format!("{why}; packages are looked up as they were when it last answered");
        Ok(Asked::Known(Box::new(suite), Some(message)))
    }

    /// Checks signature, date and name of a Release file.
    fn believe(&self, source: &Source, keys: &Keyring, text: &str) -> Result<Suite, PackagesError> {
        let address = || source.suite_file("InRelease");
        let signed = keys
            .verify(text, self.now)
            .map_err(|source| PackagesError::Signature { release: address(), source })?;
        let release = Release::parse(&signed)
            .map_err(|source| PackagesError::Release { release: address(), source })?;
        if let Some(until) = release.valid_until
            && source.check_valid_until
            && until < self.now
        {
            return Err(PackagesError::Expired { release: address(), until });
        }
        let asked = source.suite.split('/').next().unwrap_or_default();
        let is_flat = source.suite.ends_with('/');
        if !is_flat && !release.names.is_empty() && !release.names.iter().any(|n| n == asked) {
            return Err(PackagesError::OtherSuite {
                release: address(),
                asked: source.suite.clone(),
                found: release.names.join(" or "),
            });
        }
        Ok(Suite { source: source.clone(), release, digest: Digest::of(&signed) })
    }

    fn keyring(&self, source: &Source) -> Result<Keyring, PackagesError> {
        let mut keys = Keyring::default();
        let mut added = 0;
        let files = match &source.signed_by {
            SignedBy::Inline(text) => {
                added += keys.add(text.as_bytes());
                Vec::new()
            }
            SignedBy::Files(files) => files.clone(),
            SignedBy::Host => {
                let parts = self.apt_directory.join("trusted.gpg.d");
                let mut files = sources::listed(&parts, |e| matches!(e, Some("gpg" | "asc")))
                    .map_err(|(path, source)| PackagesError::Configuration { path, source })?;
                files.extend(Some(self.apt_directory.join("trusted.gpg")).filter(|p| p.is_file()));
                files
            }
        };
        for path in files {
            let bytes = std::fs::read(&path)
                .map_err(|source| PackagesError::Configuration { path, source })?;
            added += keys.add(&bytes);
        }
        if added == 0 {
            return Err(PackagesError::NoKeys { place: source.place.clone() });
        }
        Ok(keys)
    }

    /// The text of an index that was downloaded.
    pub(crate) fn read(&self, index: &IndexFile) -> Result<String, PackagesError> {
        let failed = |source| PackagesError::Index { index: index.name.clone(), source };
        let file = self
            .cache
            .blob(&index.wanted.digest)
            .map_err(PackagesError::cache)?
            .ok_or_else(|| PackagesError::cache(std::io::ErrorKind::NotFound.into()))?;
        let limited = |reader: &mut dyn std::io::Read| {
            let mut text = String::new();
            reader.take(MAXIMUM_INDEX + 1).read_to_string(&mut text)?;
            if text.len() as u64 > MAXIMUM_INDEX {
                return Err(std::io::Error::other("it unpacks to more than 1 GiB"));
            }
            Ok(text)
        };
        let file = std::io::BufReader::new(file);
        match index.form {
            ".xz" => deb::xz(file).and_then(|mut reader| limited(&mut reader)),
            ".gz" => limited(&mut flate2::read::MultiGzDecoder::new(file)),
            _ => limited(&mut { file }),
        }
        .map_err(failed)
    }
}

impl Suite {
    /// The indexes that list packages, as the Release file vouches for them. One it
    /// does not mention does not exist.
    pub(crate) fn indexes(&self, architecture: &str) -> Vec<IndexFile> {
        self.source.indexes(architecture).iter().filter_map(|name| self.index(name)).collect()
    }

    fn index(&self, name: &str) -> Option<IndexFile> {
        let (form, (digest, size)) = FORMS
            .iter()
            .find_map(|form| Some((*form, self.release.file(&format!("{name}{form}"))?)))?;
        let plain = self.source.suite_file(&format!("{name}{form}"));
        let mut addresses = vec![plain.clone()];
        if self.release.by_hash {
            let directory = name.rsplit_once('/').map_or(String::new(), |(d, _)| format!("{d}/"));
            let by_hash = format!("{directory}by-hash/SHA256/{}", digest.hex());
            addresses.insert(0, self.source.suite_file(&by_hash));
        }
        let wanted = Wanted { name: plain.clone(), addresses, digest: digest.clone(), size: *size };
        Some(IndexFile { name: plain, wanted, form })
    }
}

/// An error with what caused it, in one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

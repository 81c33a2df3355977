//! A Release file: which indexes a suite has, their digests, and until when it
//! may be believed.

use std::collections::BTreeMap;

use carrack_oci::{Algorithm, Digest};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

use super::deb822;

/// Far over any index: Debian's largest is a tenth of it.
const MAXIMUM_INDEX: u64 = 1024 * 1024 * 1024;

/// What a signed Release file says, as far as it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Release {
    pub(crate) date: Option<Timestamp>,
    pub(crate) valid_until: Option<Timestamp>,
    pub(crate) by_hash: bool,
    pub(crate) names: Vec<String>,
    files: BTreeMap<String, (Digest, u64)>,
}

/// Why a Release file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// It is not one paragraph of fields.
    #[error("it is not one paragraph of fields")]
    Malformed(#[source] Option<deb822::Malformed>),
    /// A date cannot be read.
    #[error("its {field} `{text}` is not a date")]
    Date {
        /// The field.
        field: &'static str,
        /// What stands there.
        text: String,
    },
    /// A line of digests cannot be read.
    #[error("its line `{line}` is not a SHA-256 digest, a size and a name")]
    File {
        /// The line.
        line: String,
    },
    /// There are no SHA-256 digests in it.
    #[error("it has no SHA-256 digests")]
    NoDigests,
}

impl Release {
    /// Reads a Release file. The caller has checked its signature.
    pub(crate) fn parse(text: &str) -> Result<Self, ReleaseError> {
        let paragraph = deb822::parse(text)
            .next()
            .ok_or(ReleaseError::Malformed(None))?
            .map_err(|error| ReleaseError::Malformed(Some(error)))?;
        let date = |field| match paragraph.get(field) {
            Some(text) => parse_date(field, text).map(Some),
            None => Ok(None),
        };
        let digests = paragraph.get("SHA256").ok_or(ReleaseError::NoDigests)?;
        Ok(Self {
            date: date("Date")?,
            valid_until: date("Valid-Until")?,
            by_hash: paragraph.get("Acquire-By-Hash") == Some("yes"),
            names: ["Suite", "Codename"]
                .into_iter()
                .filter_map(|field| paragraph.get(field).map(str::to_owned))
                .collect(),
            files: parse_files(digests)?,
        })
    }

    /// The digest and size of a file, by its name below the suite.
    pub(crate) fn file(&self, name: &str) -> Option<&(Digest, u64)> {
        self.files.get(name)
    }
}

fn parse_date(field: &'static str, text: &str) -> Result<Timestamp, ReleaseError> {
    // Debian writes `UTC`, which the mail format knows only as `GMT` or an offset.
    let offset = match text.strip_suffix("UTC") {
        Some(rest) => format!("{rest}+0000"),
        None => text.to_owned(),
    };
    DateTimeParser::new()
        .relaxed_weekday(true)
        .parse_timestamp(&offset)
        .map_err(|_| ReleaseError::Date { field, text: text.to_owned() })
}

fn parse_files(field: &str) -> Result<BTreeMap<String, (Digest, u64)>, ReleaseError> {
    let mut files = BTreeMap::new();
    for line in field.lines().map(str::trim_ascii).filter(|line| !line.is_empty()) {
        let file = parse_file(line).ok_or_else(|| ReleaseError::File { line: line.to_owned() })?;
        files.insert(file.0, (file.1, file.2));
    }
    Ok(files)
}

fn parse_file(line: &str) -> Option<(String, Digest, u64)> {
    let mut words = line.split_ascii_whitespace();
    let (digest, size, name) = (words.next()?, words.next()?, words.next()?);
    let digest = Digest::new(Algorithm::Sha256, digest).ok()?;
    let size = size.parse().ok().filter(|size| *size <= MAXIMUM_INDEX)?;
    words.next().is_none().then(|| (name.to_owned(), digest, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn dates_digests_and_names_are_read() {
        let release = Release::parse(&format!(
            "Origin: Debian\nSuite: oldstable\nCodename: bookworm\nDate: Sat, 21 Nov 2026 00:53:02 UTC\n\
             Valid-Until: Sat, 28 Nov 2026 00:53:02 UTC\nAcquire-By-Hash: yes\nMD5Sum:\n x 1 y\n\
             SHA256:\n {DIGEST} 0 main/binary-amd64/Packages.xz\n"
        ))
        .unwrap();
        assert!(release.by_hash);
        assert_eq!(release.names, ["oldstable", "bookworm"]);
        let life = release.valid_until.unwrap().duration_since(release.date.unwrap());
        assert_eq!(life.as_hours(), 168);
        assert_eq!(release.file("main/binary-amd64/Packages.xz").unwrap().1, 0);
        assert_eq!(release.file("main/binary-amd64/Packages"), None);
    }

    #[test]
    fn a_release_without_digests_or_with_bad_lines_is_refused() {
        assert_eq!(Release::parse("Suite: x\n"), Err(ReleaseError::NoDigests));
        assert!(matches!(Release::parse("SHA256:\n x 1 y\n"), Err(ReleaseError::File { .. })));
        assert!(matches!(
            Release::parse(&format!("SHA256:\n {DIGEST} 99999999999 y\n")),
            Err(ReleaseError::File { .. })
        ));
        assert!(matches!(
            Release::parse("Date: yesterday\nSHA256:\n"),
            Err(ReleaseError::Date { field: "Date", .. })
        ));
    }
}

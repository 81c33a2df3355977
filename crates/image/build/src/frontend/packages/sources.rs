//! Where packages come from: the host's apt configuration, or lines in a recipe.
//!
//! Both forms apt knows are read, `sources.list` lines and `*.sources` paragraphs.
//! What apt would do and we do not (unsigned sources, other transports) is a
//! warning that names the file and line, and the source is left out.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::deb822::{self, Paragraph};

/// One suite of one archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// Without a slash at its end.
    pub(crate) uri: String,
    /// `bookworm`, or `./` for an archive without suites.
    pub(crate) suite: String,
    pub(crate) components: Vec<String>,
    pub(crate) signed_by: SignedBy,
    /// Whether a Release file past its date is refused.
    pub(crate) check_valid_until: bool,
    /// The file and line that name it.
    pub(crate) place: String,
}

/// Whose signature a source must bear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SignedBy {
    /// The keys in these files.
    Files(Vec<PathBuf>),
    /// The keys in this text.
    Inline(String),
    /// Whatever keys the host trusts for all sources.
    Host,
}

/// A source that is left out, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeftOut {
    pub(crate) place: String,
    pub(crate) reason: String,
}

/// The sources of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sources {
    pub(crate) used: Vec<Source>,
    pub(crate) left_out: Vec<LeftOut>,
}

/// What a source says, in either form, before it is judged.
#[derive(Default)]
struct Stated {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    options: Vec<(String, String)>,
}

impl Sources {
    /// Reads the apt configuration in `directory` for one architecture.
    ///
    /// # Errors
    ///
    /// The first file that cannot be read.
    pub(crate) fn of_host(
        directory: &Path,
        architecture: &str,
    ) -> Result<Self, (PathBuf, io::Error)> {
        let mut sources = Self::default();
        for path in source_files(directory)? {
            let text = fs::read_to_string(&path).map_err(|source| (path.clone(), source))?;
            if path.extension().is_some_and(|extension| extension == "sources") {
                sources.add_paragraphs(&text, &path, architecture);
            } else {
                for (number, line) in (1..).zip(text.lines()) {
                    sources.add_line(line, &format!("{}:{number}", path.display()), architecture);
                }
            }
        }
        Ok(sources)
    }

    /// Adds one line in the form of `sources.list`.
    pub(crate) fn add_line(&mut self, line: &str, place: &str, architecture: &str) {
        let line = line.split_once('#').map_or(line, |(line, _)| line).trim_ascii();
        match parse_line(line) {
            Some(stated) => self.add(stated, place, architecture),
            None if line.is_empty() || line.starts_with("deb-src") => {}
            None => self.leave_out(place, "it is not `deb [options] URI suite component...`"),
        }
    }

    fn add_paragraphs(&mut self, text: &str, path: &Path, architecture: &str) {
        for (number, paragraph) in (1..).zip(deb822::parse(text)) {
            let place = format!("{} (paragraph {number})", path.display());
            match paragraph {
                Ok(paragraph) if is_wanted(&paragraph) => {
                    self.add(Stated::of_paragraph(&paragraph), &place, architecture);
                }
                Ok(_) => {}
                Err(error) => {
                    let place = format!("{}:{}", path.display(), error.line);
                    self.leave_out(&place, &error.to_string());
                }
            }
        }
    }

    fn add(&mut self, stated: Stated, place: &str, architecture: &str) {
        if !stated.is_for(architecture) {
            return;
        }
        let signed_by = match stated.judge() {
            Ok(signed_by) => signed_by,
            Err(reason) => return self.leave_out(place, &reason),
        };
        let check_valid_until = !stated.says_no("check-valid-until");
        for uri in &stated.uris {
            for suite in &stated.suites {
                self.used.push(Source {
                    uri: expand(uri, architecture).trim_end_matches('/').to_owned(),
                    suite: expand(suite, architecture),
                    components: stated.components.clone(),
                    signed_by: signed_by.clone(),
                    check_valid_until,
                    place: place.to_owned(),
                });
            }
        }
    }

    fn leave_out(&mut self, place: &str, reason: &str) {
        self.left_out.push(LeftOut { place: place.to_owned(), reason: reason.to_owned() });
    }
}

impl Source {
    /// The address of a file, by its name below the suite.
    pub(crate) fn suite_file(&self, name: &str) -> String {
        match self.suite.strip_suffix('/') {
            Some(".") => format!("{}/{name}", self.uri),
            Some(directory) => format!("{}/{directory}/{name}", self.uri),
            None => format!("{}/dists/{}/{name}", self.uri, self.suite),
        }
    }

    /// The address of a package file, by its name below the archive.
    pub(crate) fn package_file(&self, name: &str) -> String {
        format!("{}/{}", self.uri, name.trim_start_matches("./"))
    }

    /// The names below the suite of the indexes that list packages.
    pub(crate) fn indexes(&self, architecture: &str) -> Vec<String> {
        if self.suite.ends_with('/') {
            return vec!["Packages".to_owned()];
        }
        let name = |component| format!("{component}/binary-{architecture}/Packages");
        self.components.iter().map(name).collect()
    }
}

impl Stated {
    fn of_paragraph(paragraph: &Paragraph<'_>) -> Self {
        let words = |name| paragraph.words(name).map(str::to_owned).collect();
        let options = paragraph
            .fields()
            .map(|(name, value)| {
                let name = match name.to_ascii_lowercase().as_str() {
                    "architectures" => "arch".to_owned(),
                    "architectures-remove" => "arch-".to_owned(),
                    other => other.to_owned(),
                };
                (name, value.to_owned())
            })
            .collect();
        let (uris, suites, components) = (words("URIs"), words("Suites"), words("Components"));
        Self { uris, suites, components, options }
    }

    fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(option, _)| option == name).map(|(_, value)| value.as_str())
    }

    fn says_no(&self, name: &str) -> bool {
        self.option(name).is_some_and(is_no)
    }

    fn is_for(&self, architecture: &str) -> bool {
        let lists = |name: &str| {
            self.option(name).map(|value| {
                value
                    .split(|c: char| c == ',' || c.is_ascii_whitespace())
                    .any(|listed| listed == architecture)
            })
        };
        lists("arch").unwrap_or(true) && !lists("arch-").unwrap_or(false)
    }

    /// What the source must be signed by, or why it is not used.
    fn judge(&self) -> Result<SignedBy, String> {
        if self.uris.is_empty() || self.suites.is_empty() {
            return Err("it names no URI or no suite".to_owned());
        }
        let flat = self.suites.iter().filter(|suite| suite.ends_with('/')).count();
        if flat != 0 && flat != self.suites.len() {
            return Err("it mixes suites with and without `/` at the end".to_owned());
        }
        if (flat == 0) == self.components.is_empty() {
            return Err("components belong to a suite that does not end in `/`".to_owned());
        }
        if self.option("trusted").is_some_and(|value| !is_no(value)) {
            return Err("it asks to be trusted unsigned, which is not done".to_owned());
        }
        for uri in &self.uris {
            let scheme = uri.split_once(':').map_or("", |(scheme, _)| scheme);
            if !matches!(scheme, "http" | "https" | "file") {
                return Err(format!("`{uri}` is neither http, https nor file"));
            }
        }
        signed_by(self.option("signed-by"))
    }
}

fn signed_by(option: Option<&str>) -> Result<SignedBy, String> {
    let Some(value) = option.filter(|value| !value.is_empty()) else {
        return Ok(SignedBy::Host);
    };
    if value.contains("-----BEGIN") {
        return Ok(SignedBy::Inline(inline_key(value)));
    }
    let words: Vec<&str> = value
        .split(|c: char| c == ',' || c.is_ascii_whitespace())
        .filter(|word| !word.is_empty())
        .collect();
    if words.iter().any(|word| !word.starts_with('/')) {
        return Err("its Signed-By names a fingerprint; name the key's file".to_owned());
    }
    Ok(SignedBy::Files(words.into_iter().map(PathBuf::from).collect()))
}

/// A key in a field: each line is indented, and a lone dot stands for an empty one.
fn inline_key(value: &str) -> String {
    value
        .lines()
        .map(str::trim_ascii)
        .map(|line| if line == "." { "\n".to_owned() } else { format!("{line}\n") })
        .collect()
}

pub(crate) fn is_no(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "no" | "false" | "0" | "off" | "without")
}

fn is_wanted(paragraph: &Paragraph<'_>) -> bool {
    paragraph.words("Types").any(|kind| kind == "deb")
        && !paragraph.get("Enabled").is_some_and(is_no)
}

fn expand(text: &str, architecture: &str) -> String {
    text.replace("$(ARCH)", architecture)
}

/// Reads `deb [options] URI suite component...`.
fn parse_line(line: &str) -> Option<Stated> {
    let rest = line.strip_prefix("deb")?;
    let rest = rest.strip_prefix(|c: char| c.is_ascii_whitespace())?.trim_ascii();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let options = options
        .split_ascii_whitespace()
        .map(|option| {
            let (name, value) = option.split_once('=')?;
            Some((name.to_ascii_lowercase(), value.to_owned()))
        })
        .collect::<Option<Vec<_>>>()?;
    let mut words = rest.split_ascii_whitespace().map(str::to_owned);
    Some(Stated {
        uris: vec![words.next()?],
        suites: vec![words.next()?],
        components: words.collect(),
        options,
    })
}

/// The files apt would read, in its order.
fn source_files(directory: &Path) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let mut files = Vec::new();
    let main = directory.join("sources.list");
    if main.is_file() {
        files.push(main);
    }
    let mut parts = listed(&directory.join("sources.list.d"), |extension| {
        matches!(extension, Some("list" | "sources"))
    })?;
    files.append(&mut parts);
    Ok(files)
}

/// The files of a directory whose extension is wanted, by name; none when there is no
/// such directory.
pub(crate) fn listed(
    directory: &Path,
    wanted: impl Fn(Option<&str>) -> bool,
) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let failed = |error| (directory.to_owned(), error);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if wanted(path.extension().and_then(|extension| extension.to_str())) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Sources {
        let mut sources = Sources::default();
        sources.add_line(text, "test:1", "amd64");
        sources
    }

    #[test]
    fn a_line_names_a_suite_and_its_indexes() {
        let sources = line(
            "deb [ arch=amd64,arm64 signed-by=/k.gpg ] http://a.test/debian/ sid main contrib # x",
        );
        let source = &sources.used[0];
        assert_eq!(source.signed_by, SignedBy::Files(vec!["/k.gpg".into()]));
        assert_eq!(source.suite_file("InRelease"), "http://a.test/debian/dists/sid/InRelease");
        assert_eq!(
            source.indexes("amd64"),
            ["main/binary-amd64/Packages", "contrib/binary-amd64/Packages"]
        );
        assert_eq!(source.package_file("pool/x.deb"), "http://a.test/debian/pool/x.deb");
    }

    #[test]
    fn an_archive_without_suites_has_its_files_at_the_top() {
        let sources = line("deb http://a.test/x ./");
        assert_eq!(sources.used[0].suite_file("InRelease"), "http://a.test/x/InRelease");
        assert_eq!(sources.used[0].indexes("amd64"), ["Packages"]);
        assert_eq!(sources.used[0].package_file("./a.deb"), "http://a.test/x/a.deb");
    }

    #[test]
    fn other_architectures_comments_and_source_packages_are_passed_over() {
        for text in [
            "deb [arch=arm64] http://a x main",
            "# deb http://a x main",
            "",
            "deb-src http://a x main",
        ] {
            assert_eq!(line(text), Sources::default(), "{text}");
        }
    }

    #[test]
    fn what_is_not_done_is_left_out_by_name() {
        for (text, reason) in [
            ("deb [trusted=yes] http://a x main", "unsigned"),
            ("deb cdrom:[x]/ x main", "neither http, https nor file"),
            ("deb [signed-by=ABCDEF] http://a x main", "fingerprint"),
            ("deb http://a x", "components"),
            ("deb http://a", "it is not `deb"),
            ("rpm http://a", "it is not `deb"),
        ] {
            let sources = line(text);
            assert!(sources.left_out[0].reason.contains(reason), "{text}: {sources:?}");
            assert!(sources.used.is_empty());
        }
    }

    #[test]
    fn paragraphs_are_read_with_their_keys_and_switches() {
        let mut sources = Sources::default();
        let text = "Types: deb deb-src\nURIs: http://a.test/d https://b.test/d\nSuites: one two\n\
            Components: main\nCheck-Valid-Until: no\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n\n\
            Enabled: no\nTypes: deb\nURIs: http://c.test\nSuites: x\nComponents: main\n\n\
            Types: deb-src\nURIs: http://d.test\nSuites: x\nComponents: main\n";
        sources.add_paragraphs(text, Path::new("/x.sources"), "amd64");
        assert_eq!(sources.used.len(), 4);
        assert!(!sources.used[0].check_valid_until);
        assert_eq!(
            sources.used[0].signed_by,
            SignedBy::Inline("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc\n".to_owned())
        );
        assert_eq!(sources.left_out, []);
    }
}

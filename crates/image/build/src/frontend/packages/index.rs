//! The packages that are on offer.
//!
//! An index is kept as its text. It is gone over once for names and `Provides`; the
//! rest of a paragraph is read when that package is looked at, which is the case
//! for a few hundred of sixty thousand.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use carrack_oci::{Algorithm, Digest};
use debversion::Version;

use super::deb822::{self, Paragraph};
use super::relation::{self, Alternatives, Operator, Relation};

/// One version of one package, as its index describes it.
#[derive(Clone, Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: Version,
    pub(crate) architecture: String,
    /// `same`, `foreign`, `allowed` or nothing.
    pub(crate) multi_arch: Option<String>,
    /// `Pre-Depends` and `Depends`.
    pub(crate) depends: Vec<Alternatives>,
    pub(crate) provides: Vec<Relation>,
    /// `Conflicts` and `Breaks`.
    pub(crate) conflicts: Vec<Relation>,
    pub(crate) replaces: Vec<Relation>,
    pub(crate) priority: Priority,
    pub(crate) file: String,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
    /// The number of the source that lists it.
    pub(crate) source: usize,
}

/// How much a package belongs to every system; the first is preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Priority {
    Required,
    Important,
    Standard,
    Optional,
    Other,
}

/// A paragraph of an index that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{index} describes the package `{name}` wrongly: {problem}")]
pub struct IndexError {
    index: String,
    name: String,
    problem: String,
}

/// Where a paragraph stands.
#[derive(Clone, Debug)]
struct Place {
    index: usize,
    range: Range<usize>,
}

/// An index: the number of its source, its name for messages, and its text.
#[derive(Debug)]
struct Index {
    source: usize,
    name: String,
    text: String,
}

/// Every package of every index.
#[derive(Debug, Default)]
pub(crate) struct Universe {
    architecture: String,
    indexes: Vec<Index>,
    by_name: HashMap<String, Vec<Place>>,
    providers: HashMap<String, Vec<String>>,
    read: RefCell<HashMap<String, Rc<[Rc<Package>]>>>,
}

impl Universe {
    /// An empty universe of one architecture, beside `all`.
    pub(crate) fn new(architecture: &str) -> Self {
        Self { architecture: architecture.to_owned(), ..Self::default() }
    }

    /// Adds an index of a source. Where two list the same version, the first added
    /// counts.
    pub(crate) fn add(&mut self, source: usize, name: &str, text: String) {
        let index = self.indexes.len();
        let mut start = 0;
        for paragraph in text.split("\n\n") {
            let range = start..start + paragraph.len();
            start = range.end + 2;
            let Some(package) = field(paragraph, "Package") else { continue };
            let place = Place { index, range };
            self.by_name.entry(package.to_owned()).or_default().push(place);
            for provided in field(paragraph, "Provides").into_iter().flat_map(|f| f.split(',')) {
                let end = provided.find('(').unwrap_or(provided.len());
                let (provided, _) = provided.split_at(end);
                let providers = self.providers.entry(provided.trim_ascii().to_owned()).or_default();
                if providers.last().is_none_or(|last| last != package) {
                    providers.push(package.to_owned());
                }
            }
        }
        self.indexes.push(Index { source, name: name.to_owned(), text });
    }

    /// The versions of a package, the newest first.
    ///
    /// # Errors
    ///
    /// [`IndexError`] when its paragraph cannot be read.
    pub(crate) fn versions(&self, name: &str) -> Result<Rc<[Rc<Package>]>, IndexError> {
        if let Some(read) = self.read.borrow().get(name) {
            return Ok(Rc::clone(read));
        }
        let mut packages = Vec::new();
        for place in self.by_name.get(name).into_iter().flatten() {
            let package = self.read_package(name, place)?;
            if package.architecture == self.architecture || package.architecture == "all" {
                packages.push(Rc::new(package));
            }
        }
        packages.sort_by(|a, b| b.version.cmp(&a.version));
        packages.dedup_by(|later, first| later.version == first.version);
        let packages: Rc<[Rc<Package>]> = packages.into();
        self.read.borrow_mut().insert(name.to_owned(), Rc::clone(&packages));
        Ok(packages)
    }

    /// The newest version of every package that provides `name`, the most usual first.
    ///
    /// # Errors
    ///
    /// As for [`Universe::versions`].
    pub(crate) fn providers(&self, wanted: &Relation) -> Result<Vec<Rc<Package>>, IndexError> {
        let mut names: Vec<&String> =
            self.providers.get(&wanted.name).into_iter().flatten().collect();
        names.sort();
        names.dedup();
        let mut packages = Vec::new();
        for name in names {
            let newest = self.versions(name)?.first().cloned();
            packages.extend(newest.filter(|package| package.provides_what(wanted)));
        }
        packages.sort_by(|a, b| (a.priority, &a.name).cmp(&(b.priority, &b.name)));
        Ok(packages)
    }

    fn paragraph(&self, place: &Place) -> Option<Paragraph<'_>> {
        let text = self.indexes.get(place.index)?.text.get(place.range.clone())?;
        deb822::parse(text).next()?.ok()
    }

    fn read_package(&self, name: &str, place: &Place) -> Result<Package, IndexError> {
        let index = self.indexes.get(place.index);
        let refused = |problem: String| IndexError {
            index: index.map(|index| index.name.clone()).unwrap_or_default(),
            name: name.to_owned(),
            problem,
        };
        let paragraph = self
            .paragraph(place)
            .ok_or_else(|| refused("it is not a paragraph of fields".to_owned()))?;
        Package::read(&paragraph, index.map_or(0, |index| index.source)).map_err(refused)
    }
}

impl Package {
    fn read(paragraph: &Paragraph<'_>, source: usize) -> Result<Self, String> {
        let required =
            |field: &str| paragraph.get(field).ok_or_else(|| format!("it has no `{field}`"));
        let name = required("Package")?;
        if !relation::is_package_name(name) {
            return Err(format!("`{name}` is not a package's name"));
        }
        let version = required("Version")?;
        let size = required("Size")?;
        let digest = required("SHA256")?;
        let mut depends = alternatives(paragraph, "Pre-Depends")?;
        depends.extend(alternatives(paragraph, "Depends")?);
        let mut conflicts = list(paragraph, "Conflicts")?;
        conflicts.extend(list(paragraph, "Breaks")?);
        Ok(Self {
            name: name.to_owned(),
            version: version.parse().map_err(|_| format!("`{version}` is not a version"))?,
            architecture: required("Architecture")?.to_owned(),
            multi_arch: paragraph.get("Multi-Arch").map(str::to_owned),
            depends,
            provides: list(paragraph, "Provides")?,
            conflicts,
            replaces: list(paragraph, "Replaces")?,
            priority: Priority::named(paragraph.get("Priority").unwrap_or_default()),
            file: checked_file(required("Filename")?)?,
            size: size.parse().map_err(|_| format!("`{size}` is not a size"))?,
            digest: Digest::new(Algorithm::Sha256, digest)
                .map_err(|_| format!("`{digest}` is not a SHA-256 digest"))?,
            source,
        })
    }

    /// Whether this package is, or provides, what a relation names.
    pub(crate) fn satisfies(&self, wanted: &Relation) -> bool {
        (self.name == wanted.name && wanted.admits(&self.version)) || self.provides_what(wanted)
    }

    /// A provided name without a version satisfies only relations without one.
    fn provides_what(&self, wanted: &Relation) -> bool {
        self.provides.iter().filter(|provided| provided.name == wanted.name).any(|provided| {
            match &provided.version {
                Some((Operator::Equal, version)) => wanted.admits(version),
                _ => wanted.version.is_none(),
            }
        })
    }
}

impl Priority {
    fn named(name: &str) -> Self {
        match name {
            "required" => Self::Required,
            "important" => Self::Important,
            "standard" => Self::Standard,
            "optional" => Self::Optional,
            _ => Self::Other,
        }
    }
}

/// A file's name below the archive must stay below it.
fn checked_file(name: &str) -> Result<String, String> {
    let odd = |c: char| c.is_ascii_control() || matches!(c, '?' | '#' | '\\') || c.is_whitespace();
    let leaves = name.split('/').any(|segment| segment == "..") || name.starts_with('/');
    if leaves || name.is_empty() || name.contains(odd) {
        return Err(format!("`{name}` is not a file below the archive"));
    }
    Ok(name.to_owned())
}

fn alternatives(paragraph: &Paragraph<'_>, field: &str) -> Result<Vec<Alternatives>, String> {
    relation::parse_field(paragraph.get(field).unwrap_or_default())
        .map_err(|error| format!("in `{field}`, {error}"))
}

fn list(paragraph: &Paragraph<'_>, field: &str) -> Result<Vec<Relation>, String> {
    relation::parse_list(paragraph.get(field).unwrap_or_default())
        .map_err(|error| format!("in `{field}`, {error}"))
}

/// A field of one line, found without reading the others.
fn field<'a>(paragraph: &'a str, name: &str) -> Option<&'a str> {
    let begins = |text: &'a str| text.strip_prefix(name)?.strip_prefix(':');
    let value = begins(paragraph.trim_start_matches('\n'))
        .or_else(|| paragraph.split('\n').find_map(begins))?;
    Some(value.split_once('\n').map_or(value, |(line, _)| line).trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn universe(text: &str) -> Universe {
        let mut universe = Universe::new("amd64");
        let text = text.replace(
            "END",
            &format!("Architecture: amd64\nFilename: pool/x.deb\nSize: 1\nSHA256: {DIGEST}\n"),
        );
        universe.add(0, "test", text);
        universe
    }

    #[test]
    fn the_newest_version_comes_first() {
        let universe = universe(
            "Package: ab\nVersion: 1.9\nEND\nPackage: ab\nVersion: 1.10\nEND\nPackage: abc\nVersion: 3\nEND\n",
        );
        let versions: Vec<_> =
            universe.versions("ab").unwrap().iter().map(|p| p.version.to_string()).collect();
        assert_eq!(versions, ["1.10", "1.9"]);
    }

    #[test]
    fn a_provided_name_satisfies_only_what_its_version_allows() {
        let universe = universe(
            "Package: mawk\nVersion: 1\nProvides: awk, awk-api (= 2)\nPriority: required\nEND\n\
             \nPackage: gawk\nVersion: 1\nProvides: awk\nPriority: optional\nEND\n",
        );
        let names = |relation| {
            let wanted = Relation::parse(relation).unwrap();
            let packages = universe.providers(&wanted).unwrap();
            packages.iter().map(|p| p.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names("awk"), ["mawk", "gawk"]);
        assert_eq!(names("awk (>= 1)"), [] as [String; 0]);
        assert_eq!(names("awk-api (>= 2)"), ["mawk"]);
        assert_eq!(names("awk-api (>> 2)"), [] as [String; 0]);
    }

    #[test]
    fn a_package_file_outside_the_archive_is_refused() {
        for file in ["../x.deb", "/x.deb", "a/../../x.deb", "x.deb?y", ""] {
            assert!(checked_file(file).is_err(), "{file}");
        }
        let universe = universe("Package: ab\nVersion: 1\nFilename: ../x\nEND\n");
        let error = universe.versions("ab").unwrap_err();
        assert!(error.to_string().contains("not a file below the archive"), "{error}");
    }

    #[test]
    fn a_package_of_another_architecture_is_not_on_offer() {
        let universe = universe(
            "Package: ab\nVersion: 1\nArchitecture: arm64\nFilename: x\nSize: 1\nSHA256: DIG\n"
                .replace("DIG", DIGEST)
                .as_str(),
        );
        assert!(universe.versions("ab").unwrap().is_empty());
    }
}

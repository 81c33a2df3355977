//! From the packages a recipe names to all that must be there.
//!
//! The choice depends on the recipe and the indexes only, never on what order a
//! table happens to have: names are taken in the order they were asked for, the
//! first alternative that fits is taken, and of a package its newest version that
//! fits. Recommendations are not followed, and nothing is there for being
//! essential: an image holds what it names, and what that needs.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::index::{IndexError, Package, Universe};
use super::relation::{Alternatives, Relation};

/// The package that says directories are joined below `/usr`. An image's are from the
/// start, so it comes before the alternative that would join them, which brings a
/// whole Perl for its script.
const JOINED: &str = "usr-is-merged";
/// More packages than any image has.
const MAXIMUM_PACKAGES: usize = 10_000;

/// Why there is no set of packages that fits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// Nothing on offer has the name, or the version.
    #[error("{wanted_by} needs `{wanted}`: {}", reasons.join("; "))]
    Unsatisfied {
        /// Who asks for it.
        wanted_by: String,
        /// What is asked for.
        wanted: String,
        /// Why each candidate does not fit.
        reasons: Vec<String>,
    },
    /// An index describes a package wrongly.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The dependencies do not end.
    #[error("more than {MAXIMUM_PACKAGES} packages would be needed")]
    TooMany,
}

/// Finds the packages that satisfy `wanted`, by name.
///
/// # Errors
///
/// [`ResolveError`] names what cannot be had, who needs it, and why not.
pub(crate) fn resolve(
    universe: &Universe,
    wanted: &[Relation],
) -> Result<BTreeMap<String, Rc<Package>>, ResolveError> {
    let mut search = Search { universe, chosen: BTreeMap::new(), open: VecDeque::new() };
    for relation in wanted {
        search.open.push_back((vec![relation.clone()], "the recipe".to_owned()));
    }
    while let Some((clause, wanted_by)) = search.open.pop_front() {
        search.satisfy(&clause, &wanted_by)?;
        if search.chosen.len() > MAXIMUM_PACKAGES {
            return Err(ResolveError::TooMany);
        }
    }
    Ok(search.chosen)
}

struct Search<'a> {
    universe: &'a Universe,
    chosen: BTreeMap<String, Rc<Package>>,
    /// Clauses still to satisfy, and who asks.
    open: VecDeque<(Alternatives, String)>,
}

impl Search<'_> {
    fn satisfy(&mut self, clause: &Alternatives, wanted_by: &str) -> Result<(), ResolveError> {
        if clause.iter().any(|relation| self.has(relation)) {
            return Ok(());
        }
        let mut reasons = Vec::new();
        let (joined, others): (Vec<_>, Vec<_>) =
            clause.iter().partition(|relation| relation.name == JOINED);
        for relation in joined.into_iter().chain(others) {
            let candidates = self.candidates(relation)?;
            if candidates.is_empty() {
                reasons.push(self.absence(relation)?);
            }
            for candidate in candidates {
                match self.obstacle(&candidate) {
                    None => {
                        self.choose(candidate);
                        return Ok(());
                    }
                    Some(reason) => reasons.push(reason),
                }
            }
        }
        let wanted: Vec<String> = clause.iter().map(Relation::to_string).collect();
        Err(ResolveError::Unsatisfied {
            wanted_by: wanted_by.to_owned(),
            wanted: wanted.join(" | "),
            reasons,
        })
    }

    fn has(&self, relation: &Relation) -> bool {
        self.chosen.get(&relation.name).is_some_and(|package| package.satisfies(relation))
            || self.chosen.values().any(|package| package.satisfies(relation))
    }

    /// What could be chosen for a relation, the best first.
    fn candidates(&self, relation: &Relation) -> Result<Vec<Rc<Package>>, IndexError> {
        let versions = self.universe.versions(&relation.name)?;
        let mut candidates: Vec<_> =
            versions.iter().filter(|package| relation.admits(&package.version)).cloned().collect();
        candidates.extend(self.universe.providers(relation)?);
        Ok(candidates)
    }

    /// Why a package cannot be chosen beside those chosen already.
    fn obstacle(&self, candidate: &Package) -> Option<String> {
        let described = |package: &Package| format!("{} {}", package.name, package.version);
        if let Some(chosen) = self.chosen.get(&candidate.name) {
            return Some(format!("{} is chosen already", described(chosen)));
        }
        let other = self.chosen.values().find(|other| at_odds(candidate, other))?;
        Some(format!("{} conflicts with {}", described(candidate), described(other)))
    }

    fn choose(&mut self, package: Rc<Package>) {
        let name = format!("{} {}", package.name, package.version);
        self.open.extend(package.depends.iter().map(|clause| (clause.clone(), name.clone())));
        self.chosen.insert(package.name.clone(), package);
    }

    fn absence(&self, relation: &Relation) -> Result<String, IndexError> {
        let versions = self.universe.versions(&relation.name)?;
        let on_offer: Vec<String> = versions.iter().map(|p| p.version.to_string()).collect();
        Ok(match on_offer.as_slice() {
            [] => format!("no source has a package `{}`", relation.name),
            _ => format!("on offer is `{}` {}", relation.name, on_offer.join(", ")),
        })
    }
}

/// Whether one of two packages conflicts with, or breaks, the other. A package that
/// conflicts with a name it provides itself means every other provider.
fn at_odds(one: &Package, other: &Package) -> bool {
    one.conflicts.iter().any(|relation| other.satisfies(relation))
        || other.conflicts.iter().any(|relation| one.satisfies(relation))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// Each package is `name version`, then lines of fields.
    fn solve(packages: &[&str], wanted: &[&str]) -> Result<Vec<String>, String> {
        let mut universe = Universe::new("amd64");
        let mut text = String::new();
        for package in packages {
            let (head, fields) = package.split_once('\n').unwrap_or((package, ""));
            let (name, version) = head.split_once(' ').unwrap();
            text += &format!(
                "Package: {name}\nVersion: {version}\nArchitecture: all\nFilename: {name}.deb\n\
                 Size: 1\nSHA256: {DIGEST}\n{fields}\n\n"
            );
        }
        universe.add(0, "test", text);
        let wanted: Vec<_> = wanted.iter().map(|text| Relation::parse(text).unwrap()).collect();
        match resolve(&universe, &wanted) {
            Ok(chosen) => {
                Ok(chosen.values().map(|p| format!("{} {}", p.name, p.version)).collect())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn what_a_package_needs_comes_with_it_in_its_newest_version() {
        let packages = [
            "aa 1\nDepends: bb (>= 2)\nPre-Depends: cc\nRecommends: dd",
            "bb 1",
            "bb 2.1",
            "bb 2",
            "cc 1\nDepends: aa",
            "dd 1",
        ];
        assert_eq!(solve(&packages, &["aa"]).unwrap(), ["aa 1", "bb 2.1", "cc 1"]);
    }

    #[test]
    fn the_first_alternative_that_can_be_had_is_taken_unless_another_is_there() {
        let packages = ["aa 1\nDepends: xx | bb | cc", "bb 1", "cc 1"];
        assert_eq!(solve(&packages, &["aa"]).unwrap(), ["aa 1", "bb 1"]);
        assert_eq!(solve(&packages, &["cc", "aa"]).unwrap(), ["aa 1", "cc 1"]);
        assert_eq!(solve(&packages, &["aa", "cc"]).unwrap(), ["aa 1", "cc 1"]);
    }

    #[test]
    fn a_joined_usr_is_taken_as_it_is() {
        let packages = ["aa 1\nDepends: usrmerge | usr-is-merged", "usrmerge 1", "usr-is-merged 1"];
        assert_eq!(solve(&packages, &["aa"]).unwrap(), ["aa 1", "usr-is-merged 1"]);
    }

    #[test]
    fn a_virtual_package_is_had_from_a_provider() {
        let packages = [
            "aa 1\nDepends: mta",
            "bb 1\nProvides: mta",
            "cc 1\nProvides: mta\nPriority: important",
        ];
        assert_eq!(solve(&packages, &["aa"]).unwrap(), ["aa 1", "cc 1"]);
    }

    #[test]
    fn a_conflict_is_reported_with_both_sides() {
        let packages = ["aa 1\nConflicts: bb (<< 2)", "bb 1", "cc 1\nBreaks: aa"];
        assert!(solve(&packages, &["aa", "bb"]).unwrap_err().contains("bb 1 conflicts with aa 1"));
        assert!(solve(&packages, &["cc", "aa"]).unwrap_err().contains("aa 1 conflicts with cc 1"));
    }

    #[test]
    fn a_package_that_conflicts_with_what_it_provides_excludes_the_others_only() {
        let packages = ["aa 1\nProvides: mta\nConflicts: mta", "bb 1\nProvides: mta"];
        assert_eq!(solve(&packages, &["aa"]).unwrap(), ["aa 1"]);
        assert!(solve(&packages, &["aa", "bb"]).is_err());
    }

    #[test]
    fn what_is_missing_is_named_with_who_needs_it() {
        let error = solve(&["aa 1\nDepends: bb (>= 2)", "bb 1"], &["aa"]).unwrap_err();
        assert_eq!(error, "aa 1 needs `bb (>= 2)`: on offer is `bb` 1");
        let error = solve(&["aa 1"], &["zz"]).unwrap_err();
        assert_eq!(error, "the recipe needs `zz`: no source has a package `zz`");
    }

    #[test]
    fn a_version_asked_for_is_the_version_chosen() {
        assert_eq!(solve(&["aa 1", "aa 2"], &["aa=1"]).unwrap(), ["aa 1"]);
    }
}

//! Reading single values: each either is what its field takes, or a problem.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use indexmap::IndexMap;

use super::application::Environment;
use super::{interpolate, units};
use crate::cursor::Cursor;
use crate::problem::Problem;
use crate::yaml::{Node, Place, Value};

/// A file being read, and what was found wrong with it so far.
pub(super) struct Reading<'a> {
    pub(super) file: &'a str,
    pub(super) environment: &'a Environment,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(file: &'a str, environment: &'a Environment) -> Self {
        Self { file, environment, problems: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn problem_at(&mut self, place: Place, message: String) {
        self.problems.push(Problem { origin: place.origin(self.file), message });
    }

    /// Says what is wrong with the value at `at`, by its path.
    pub(super) fn wrong(&mut self, at: &Cursor<'_>, what: impl std::fmt::Display) {
        self.problem_at(at.node.place, format!("`{}` {what}", at.path));
    }

    /// Replaces the variables of every scalar below `node`. Keys are left alone.
    pub(super) fn interpolate(&mut self, node: &mut Node) {
        match &mut node.value {
            Value::Sequence(items) => items.iter_mut().for_each(|item| self.interpolate(item)),
            Value::Mapping(entries) => {
                entries.iter_mut().for_each(|entry| self.interpolate(&mut entry.value));
            }
            Value::Scalar { text, plain } if text.contains('$') => {
                match interpolate::interpolate(text, &self.environment.variables) {
                    Ok(interpolated) => {
                        *text = interpolated.text;
                        *plain = false;
                        for name in interpolated.unset {
                            let message =
                                format!("the variable `{name}` is not set; it becomes nothing");
                            self.warnings
                                .push(Problem { origin: node.place.origin(self.file), message });
                        }
                    }
                    Err(message) => self.problem_at(node.place, message),
                }
            }
            Value::Scalar { .. } => {}
        }
    }

    /// A scalar's text.
    pub(super) fn text(&mut self, at: &Cursor<'_>) -> Option<String> {
        let text = at.scalar().map(str::to_owned);
        if text.is_none() {
            self.wrong(at, format_args!("takes a text, not {}", at.node.kind()));
        }
        text
    }

    /// Whatever `parse` makes of a scalar; `takes` says what it wants.
    pub(super) fn parsed<T>(
        &mut self,
        at: &Cursor<'_>,
        takes: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let Some(text) = at.scalar() else {
            self.wrong(at, format_args!("takes {takes}, not {}", at.node.kind()));
            return None;
        };
        let parsed = parse(text);
        if parsed.is_none() {
            self.wrong(at, format_args!("takes {takes}, not `{text}`"));
        }
        parsed
    }

    pub(super) fn boolean(&mut self, at: &Cursor<'_>) -> Option<bool> {
        self.parsed(at, "`true` or `false`", |text| match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" | "1" => Some(true),
            "false" | "no" | "off" | "n" | "0" => Some(false),
            _ => None,
        })
    }

    pub(super) fn bytes(&mut self, at: &Cursor<'_>) -> Option<u64> {
        self.parsed(at, "a size such as `128m`", units::bytes)
    }

    pub(super) fn duration(&mut self, at: &Cursor<'_>) -> Option<Duration> {
        self.parsed(at, "a duration such as `1m30s`", units::duration)
    }

    pub(super) fn nano_cpus(&mut self, at: &Cursor<'_>) -> Option<u64> {
        self.parsed(at, "a number of CPUs such as `0.5`", units::nano_cpus)
    }

    /// A list of texts.
    pub(super) fn list(&mut self, at: &Cursor<'_>) -> Vec<String> {
        if !at.is_sequence() {
            self.wrong(at, format_args!("takes a list, not {}", at.node.kind()));
        }
        at.items().iter().filter_map(|item| self.text(item)).collect()
    }

    /// One text or a list of them, each with its place.
    pub(super) fn one_or_many<'n>(&mut self, at: &Cursor<'n>) -> Vec<Cursor<'n>> {
        if at.is_sequence() {
            return at.items();
        }
        if at.scalar().is_none() {
            self.wrong(at, format_args!("takes a text or a list, not {}", at.node.kind()));
            return Vec::new();
        }
        vec![at.clone()]
    }

    /// A command: a list, or a line that is split into words.
    pub(super) fn command(&mut self, at: &Cursor<'_>) -> Option<Vec<String>> {
        if at.is_sequence() {
            return Some(self.list(at));
        }
        self.parsed(at, "a list or a line whose quotes are closed", units::words)
    }

    /// `NAME: value` or `NAME=value` pairs; `None` where no value was written.
    pub(super) fn pairs(&mut self, at: &Cursor<'_>) -> IndexMap<String, Option<String>> {
        let mut pairs = IndexMap::new();
        if at.is_mapping() {
            for (name, value) in at.entries() {
                let value = if value.node.is_null() { None } else { self.text(&value) };
                pairs.insert(name, value);
            }
        } else if at.is_sequence() {
            for item in at.items() {
                let Some(text) = self.text(&item) else { continue };
                let (name, value) = match text.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (text.as_str(), None),
                };
                pairs.insert(name.to_owned(), value);
            }
        } else {
            self.wrong(at, format_args!("takes a mapping or a list, not {}", at.node.kind()));
        }
        for name in pairs.keys().filter(|name| name.is_empty() || name.contains(['=', '\0'])) {
            let message = format!("`{}` holds `{name}`, which is no name", at.path);
            self.problems.push(Problem { origin: at.node.place.origin(self.file), message });
        }
        pairs
    }

    /// Variables: those without a value take the shell's, or are left out.
    pub(super) fn variables(&mut self, at: &Cursor<'_>) -> IndexMap<String, String> {
        let variables = &self.environment.variables;
        self.pairs(at)
            .into_iter()
            .filter_map(|(name, value)| {
                let value = value.or_else(|| variables.get(&name).cloned())?;
                Some((name, value))
            })
            .collect()
    }

    /// Labels: those without a value are empty.
    pub(super) fn labels(&mut self, at: &Cursor<'_>) -> IndexMap<String, String> {
        self.pairs(at).into_iter().map(|(name, value)| (name, value.unwrap_or_default())).collect()
    }

    /// A path in a container: absolute, and without `..`.
    pub(super) fn container_path(&mut self, at: &Cursor<'_>, path: &str) -> Option<String> {
        let climbs = Path::new(path).components().any(|part| part == Component::ParentDir);
        if !path.starts_with('/') || climbs || path.contains('\0') {
            self.wrong(at, format_args!("takes an absolute path without `..`, not `{path}`"));
            return None;
        }
        Some(path.to_owned())
    }

    /// A path on the host: `~` is the home directory, the rest starts at the project's.
    pub(super) fn host_path(&mut self, path: &str) -> PathBuf {
        let path = match (path.strip_prefix('~'), self.environment.variables.get("HOME")) {
            (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
                format!("{home}{rest}")
            }
            _ => path.to_owned(),
        };
        normal(&self.environment.directory.join(path))
    }
}

/// `path` without `.` and with every `..` taken back, links not looked at.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => normal.push(part),
        }
    }
    normal
}

//! The variables an instruction sees.

use std::collections::{BTreeMap, BTreeSet};

use carrack_oci::Platform;
use indexmap::IndexMap;

use crate::frontend::dockerfile::expand::{ExpandError, expand, expand_document, expand_words};
use crate::frontend::dockerfile::instruction::Argument;
use crate::frontend::dockerfile::{Position, Problem, Word};

/// Build arguments that need no `ARG` and leave no trace: how this machine reaches others.
const PROXIES: &[&str] = &[
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// The values that `ARG` can give without being told.
pub(super) fn platform_arguments(platform: &Platform) -> BTreeMap<String, String> {
    let variant = platform.variant.clone().unwrap_or_default();
    let mut values = BTreeMap::new();
    for prefix in ["TARGET", "BUILD"] {
        values.insert(format!("{prefix}PLATFORM"), platform.to_string());
        values.insert(format!("{prefix}OS"), platform.os.clone());
        values.insert(format!("{prefix}ARCH"), platform.architecture.clone());
        values.insert(format!("{prefix}VARIANT"), variant.clone());
    }
    values
}

/// The proxy settings among the build arguments, as `NAME=value`.
pub(super) fn proxies(arguments: &BTreeMap<String, String>) -> Vec<String> {
    let proxies = arguments.iter().filter(|(name, _)| PROXIES.contains(&name.as_str()));
    proxies.map(|(name, value)| format!("{name}={value}")).collect()
}

/// The build arguments that no `ARG` in the file names.
pub(super) fn unused(
    arguments: &BTreeMap<String, String>,
    declared: &BTreeSet<String>,
) -> Vec<String> {
    let unused = |name: &&String| !declared.contains(*name) && !PROXIES.contains(&name.as_str());
    arguments.keys().filter(unused).cloned().collect()
}

/// What stands outside every stage, for `ARG` to ask for.
#[derive(Clone, Debug)]
pub(super) struct Globals {
    /// Given by the person.
    pub(super) given: BTreeMap<String, String>,
    /// From `ARG`s before the first `FROM`.
    pub(super) declared: BTreeMap<String, String>,
    /// Always known.
    pub(super) platform: BTreeMap<String, String>,
}

impl Globals {
    /// What `name` is before the first stage.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        self.declared.get(name).or_else(|| self.platform.get(name)).cloned()
    }
}

/// Expands words, and keeps every problem met.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    file: &'a str,
    escape: char,
    /// Environment and build arguments; what was set last is what is seen.
    pub(super) variables: IndexMap<String, String>,
    pub(super) problems: Vec<Problem>,
}

impl<'a> Scope<'a> {
    pub(super) fn new(file: &'a str, escape: char) -> Self {
        Self { file, escape, variables: IndexMap::new(), problems: Vec::new() }
    }

    pub(super) fn problem(&mut self, position: Position, message: impl Into<String>) {
        let message = message.into();
        self.problems.push(Problem { file: self.file.to_owned(), position, message });
    }

    fn keep<T: Default>(&mut self, position: Position, result: Result<T, ExpandError>) -> T {
        result.unwrap_or_else(|error| {
            self.problem(position, error.to_string());
            T::default()
        })
    }

    /// The word expanded; empty when it could not be, which is kept as a problem.
    pub(super) fn expand(&mut self, word: &Word) -> String {
        let lookup = |name: &str| self.variables.get(name).cloned();
        let result = expand(&word.text, self.escape, &lookup);
        self.keep(word.position, result)
    }

    /// The words that the word expands to.
    pub(super) fn expand_words(&mut self, word: &Word) -> Vec<String> {
        let lookup = |name: &str| self.variables.get(name).cloned();
        let result = expand_words(&word.text, self.escape, &lookup);
        self.keep(word.position, result)
    }

    /// A heredoc's text expanded.
    pub(super) fn expand_document(&mut self, text: &str, position: Position) -> String {
        let lookup = |name: &str| self.variables.get(name).cloned();
        let result = expand_document(text, self.escape, &lookup);
        self.keep(position, result)
    }

    /// Takes up an `ARG`: what the person gave, else its default, else what is
    /// known outside the stages. Without any of them the name stays unset.
    pub(super) fn declare(&mut self, argument: &Argument, globals: &Globals) -> Option<String> {
        let value = match (globals.given.get(&argument.name), &argument.default) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(default)) => Some(self.expand(default)),
            (None, None) => globals.get(&argument.name),
        };
        if let Some(value) = &value {
            self.variables.insert(argument.name.clone(), value.clone());
        }
        value
    }
}

//! A recipe: which packages, which accounts, and what the image runs.
//!
//! The fields are apko's where they fit. A field that is not known is refused with
//! its line and column, because a misspelled one would otherwise be a missing one.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use super::relation::Relation;

/// A recipe that has been read and checked.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The file it was read from; relative paths in it start at its directory.
    pub(crate) file: PathBuf,
    /// The text, which stands for the recipe in cache keys.
    pub(crate) text: String,
    pub(crate) packages: Vec<Relation>,
    pub(crate) repositories: Vec<(String, String)>,
    pub(crate) keyring: Vec<PathBuf>,
    pub(crate) architecture: Option<Architecture>,
    pub(crate) accounts: Accounts,
    pub(crate) paths: Vec<PathEntry>,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) command: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) working_directory: Option<String>,
    pub(crate) stop_signal: Option<String>,
    pub(crate) volumes: Vec<String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// A processor, by the names that recipes, Debian and images have for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Architecture {
    Amd64,
    Arm64,
}

/// Everything that is wrong with a recipe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct RecipeError {
    problems: Vec<String>,
}

impl fmt::Display for RecipeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.problems.join("\n"))
    }
}

/// The recipe as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    contents: Contents,
    #[serde(default)]
    accounts: Accounts,
    #[serde(default)]
    entrypoint: Option<Spanned<Entrypoint>>,
    #[serde(default)]
    cmd: Option<Spanned<String>>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    work_dir: Option<Spanned<String>>,
    #[serde(default)]
    stop_signal: Option<String>,
    #[serde(default)]
    volumes: Vec<String>,
    #[serde(default)]
    paths: Vec<Spanned<WrittenPath>>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    archs: Vec<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    packages: Vec<Spanned<String>>,
    #[serde(default)]
    repositories: Vec<Spanned<String>>,
    #[serde(default)]
    keyring: Vec<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entrypoint {
    command: String,
}

/// The accounts beside those every Debian has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Accounts {
    /// Who the image runs as: a name, or a number.
    pub(crate) run_as: Option<String>,
    pub(crate) users: Vec<User>,
    pub(crate) groups: Vec<Group>,
}

/// An account to add.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct User {
    pub(crate) username: String,
    pub(crate) uid: u32,
    /// The primary group; the user's own number unless given.
    #[serde(default)]
    pub(crate) gid: Option<u32>,
    #[serde(default)]
    pub(crate) homedir: Option<String>,
    #[serde(default)]
    pub(crate) shell: Option<String>,
}

/// A group to add.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Group {
    pub(crate) groupname: String,
    pub(crate) gid: u32,
    #[serde(default)]
    pub(crate) members: Vec<String>,
}

/// Something to make or change after the packages are unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathEntry {
    pub(crate) path: String,
    pub(crate) action: PathAction,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: Option<u32>,
    pub(crate) recursive: bool,
}

/// What is done at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PathAction {
    Directory,
    EmptyFile,
    Symlink(String),
    HardLink(String),
    Permissions,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPath {
    path: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    gid: u32,
    #[serde(default)]
    permissions: Option<String>,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    recursive: bool,
}

impl Recipe {
    /// Reads a recipe. `file` is its name for messages and the place relative paths
    /// in it start from; it is not opened.
    ///
    /// # Errors
    ///
    /// [`RecipeError`] with every problem and its place. YAML that cannot be read, or
    /// a field that is not known, is the only problem reported then.
    pub fn parse(text: &str, file: &Path) -> Result<Self, RecipeError> {
        let written: Written = serde_saphyr::from_str(text).map_err(|error| {
            let place = error.location().map(|at| place(file, at)).unwrap_or_default();
            let text = error.without_snippet().to_string();
            // The place stands in front, where it is looked for.
            let problem =
                text.split_once(" at line ").map_or(text.as_str(), |(problem, _)| problem);
            RecipeError { problems: vec![format!("{place}{problem}")] }
        })?;
        let mut check = Check { file, problems: Vec::new() };
        let recipe = check.recipe(written, text);
        if check.problems.is_empty() {
            Ok(recipe)
        } else {
            Err(RecipeError { problems: check.problems })
        }
    }
}

impl Architecture {
    /// The processor this program runs on.
    pub(crate) fn host() -> Option<Self> {
        Self::named(std::env::consts::ARCH)
    }

    fn named(name: &str) -> Option<Self> {
        match name {
            "amd64" | "x86_64" => Some(Self::Amd64),
            "arm64" | "aarch64" => Some(Self::Arm64),
            _ => None,
        }
    }

    /// What Debian and images call it; for these two they agree.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

/// Turns what is written into a recipe, gathering problems on the way.
struct Check<'a> {
    file: &'a Path,
    problems: Vec<String>,
}

impl Check<'_> {
    fn recipe(&mut self, written: Written, text: &str) -> Recipe {
        let directory = self.file.parent().unwrap_or(Path::new("")).to_owned();
        let Contents { packages, repositories, keyring } = written.contents;
        let repositories = repositories
            .iter()
            .map(|line| (line.value.clone(), self.place(line.referenced)))
            .collect();
        if packages.is_empty() {
            self.problems.push(format!("{}: `contents.packages` is empty", self.file.display()));
        }
        let entrypoint = written.entrypoint.map(|entry| (entry.value.command, entry.referenced));
        let command = written.cmd.map(|command| (command.value, command.referenced));
        Recipe {
            file: self.file.to_owned(),
            text: text.to_owned(),
            packages: packages.iter().filter_map(|package| self.package(package)).collect(),
            repositories,
            keyring: keyring.into_iter().map(|path| directory.join(path)).collect(),
            architecture: self.architecture(&written.archs),
            accounts: written.accounts,
            paths: written.paths.into_iter().filter_map(|path| self.path(path)).collect(),
            entrypoint: self.words(entrypoint),
            command: self.words(command),
            environment: self.environment(written.environment),
            working_directory: written.work_dir.and_then(|path| self.absolute(path)),
            stop_signal: written.stop_signal,
            volumes: written.volumes,
            annotations: written.annotations,
        }
    }

    fn place(&self, at: Location) -> String {
        format!("{}:{}:{}", self.file.display(), at.line(), at.column())
    }

    fn problem(&mut self, at: Location, problem: &str) {
        let place = self.place(at);
        self.problems.push(format!("{place}: {problem}"));
    }

    fn package(&mut self, written: &Spanned<String>) -> Option<Relation> {
        match Relation::parse(&written.value) {
            Ok(relation) => Some(relation),
            Err(error) => {
                self.problem(written.referenced, &error.to_string());
                None
            }
        }
    }

    fn architecture(&mut self, written: &[Spanned<String>]) -> Option<Architecture> {
        let (first, rest) = written.split_first()?;
        if let Some(second) = rest.first() {
            self.problem(second.referenced, "a recipe makes one image, for one of `archs`");
        }
        let architecture = Architecture::named(&first.value);
        if architecture.is_none() {
            let problem = format!("`{}` is none of x86_64, amd64, aarch64 and arm64", first.value);
            self.problem(first.referenced, &problem);
        }
        architecture
    }

    fn words(&mut self, command: Option<(String, Location)>) -> Vec<String> {
        let Some((command, at)) = command else { return Vec::new() };
        split_words(&command).unwrap_or_else(|| {
            self.problem(at, &format!("`{command}` has a quote that does not end"));
            Vec::new()
        })
    }

    fn environment(&mut self, written: BTreeMap<String, String>) -> BTreeMap<String, String> {
        for name in written.keys().filter(|name| name.is_empty() || name.contains('=')) {
            let file = self.file.display();
            self.problems.push(format!("{file}: `{name}` is not an environment variable's name"));
        }
        written
    }

    fn absolute(&mut self, path: Spanned<String>) -> Option<String> {
        if path.value.starts_with('/') {
            return Some(path.value);
        }
        self.problem(path.referenced, &format!("`{}` is not an absolute path", path.value));
        None
    }

    fn path(&mut self, written: Spanned<WrittenPath>) -> Option<PathEntry> {
        let at = written.referenced;
        match PathEntry::read(written.value) {
            Ok(entry) => Some(entry),
            Err(problem) => {
                self.problem(at, &problem);
                None
            }
        }
    }
}

impl PathEntry {
    fn read(written: WrittenPath) -> Result<Self, String> {
        let WrittenPath { path, kind, uid, gid, permissions, source, recursive } = written;
        if !path.starts_with('/') || path.split('/').any(|segment| segment == "..") {
            return Err(format!("`{path}` is not an absolute path without `..`"));
        }
        let takes_source = matches!(kind.as_str(), "symlink" | "hardlink");
        if takes_source != source.is_some() {
            return Err(format!(
                "`source` belongs to symlink and hardlink, and `{kind}` stands here"
            ));
        }
        let action = match (kind.as_str(), source) {
            ("directory", _) => PathAction::Directory,
            ("empty-file", _) => PathAction::EmptyFile,
            ("permissions", _) => PathAction::Permissions,
            ("symlink", Some(source)) => PathAction::Symlink(source),
            ("hardlink", Some(source)) => PathAction::HardLink(source),
            _ => {
                return Err(format!(
                    "`{kind}` is none of directory, empty-file, hardlink, symlink and permissions"
                ));
            }
        };
        if recursive && action != PathAction::Permissions {
            return Err("`recursive` belongs to permissions".to_owned());
        }
        let mode = permissions.as_deref().map(parse_mode).transpose()?;
        Ok(Self { path, action, uid, gid, mode, recursive })
    }
}

/// Permissions are octal however they are written: `0o755`, `0755` or `755`.
fn parse_mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    u32::from_str_radix(digits, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| format!("`{text}` are not permissions such as 0o755"))
}

fn place(file: &Path, at: Location) -> String {
    format!("{}:{}:{}: ", file.display(), at.line(), at.column())
}

/// Splits a command as a shell would, without expanding anything; `None` when a
/// quote does not end.
fn split_words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            c if c.is_whitespace() => words.extend(word.take()),
            quote @ ('\'' | '"') => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next()? {
                        c if c == quote => break,
                        '\\' if quote == '"' => word.push(characters.next()?),
                        c => word.push(c),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(characters.next()?),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Recipe, String> {
        Recipe::parse(text, Path::new("base.yaml")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_recipe_with_every_field_is_read() {
        let recipe = parse(
            "contents:\n  repositories: ['deb http://a.test/d sid main']\n  keyring: [k.gpg]\n  packages: [nginx-light, 'python3 (>= 3.11)', libc6=2.36-9]\n\
             accounts:\n  run-as: app\n  groups: [{groupname: app, gid: 900, members: [app]}]\n  users: [{username: app, uid: 900, homedir: /srv, shell: /bin/sh}]\n\
             entrypoint: {command: \"/usr/bin/python3 -c 'print(1)'\"}\ncmd: --help\nwork-dir: /srv\nstop-signal: SIGQUIT\nvolumes: [/data]\n\
             environment: {A: b}\nannotations: {org.example: x}\narchs: [x86_64]\n\
             paths:\n- {path: /srv/x, type: directory, uid: 900, permissions: 0o750}\n- {path: /l, type: symlink, source: srv/x}\n",
        )
        .unwrap();
        assert_eq!(recipe.packages[2].to_string(), "libc6 (= 2.36-9)");
        assert_eq!(recipe.entrypoint, ["/usr/bin/python3", "-c", "print(1)"]);
        assert_eq!(recipe.paths[0].mode, Some(0o750));
        assert_eq!(recipe.architecture, Some(Architecture::Amd64));
        assert_eq!(recipe.accounts.users[0].uid, 900);
        assert_eq!(recipe.keyring, [PathBuf::from("k.gpg")]);
    }

    #[test]
    fn an_unknown_field_is_refused_with_its_place() {
        let error = parse("contents:\n  packages: [aa]\n  package: [bb]\n").unwrap_err();
        assert!(error.starts_with("base.yaml:3:3: "), "{error}");
        assert!(error.contains("unknown field `package`"), "{error}");
        assert!(!error.contains("line 3"), "{error}");
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let error = parse(
            "contents: {packages: ['A B', ok, '../x']}\narchs: [mips]\nwork-dir: srv\n\
             paths:\n- {path: x, type: directory}\n- {path: /x, type: fifo}\n- {path: /x, type: directory, permissions: 0o99}\n",
        )
        .unwrap_err();
        for expected in [
            "`A B`",
            "`../x`",
            "`mips`",
            "base.yaml:3:11: `srv`",
            "`x` is not",
            "`fifo` is none",
            "`0o99`",
        ] {
            assert!(error.contains(expected), "{expected} in {error}");
        }
        assert_eq!(error.lines().count(), 7, "{error}");
    }

    #[test]
    fn a_recipe_without_packages_is_none() {
        assert!(parse("contents: {packages: []}\n").unwrap_err().contains("is empty"));
        assert!(parse("{}").is_err());
    }

    #[test]
    fn commands_are_split_as_a_shell_would() {
        assert_eq!(
            split_words(r#"a "b c" d\ e 'f"g' """#).unwrap(),
            ["a", "b c", "d e", "f\"g", ""]
        );
        assert_eq!(split_words("a 'b"), None);
    }
}

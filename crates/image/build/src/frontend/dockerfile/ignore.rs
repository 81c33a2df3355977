//! `.dockerignore`: what of the build context a build does not see.
//!
//! The last pattern that matches a path, or a directory above it, decides; one
//! that starts with `!` brings back what an earlier one took away.

use super::glob::Glob;

/// The patterns of a `.dockerignore`.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    glob: Glob,
    pattern: String,
    brings_back: bool,
}

/// A pattern that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the ignore file is not a pattern: `{pattern}`")]
pub struct IgnoreError {
    /// Counted from 1.
    pub line: usize,
    /// As written.
    pub pattern: String,
}

impl Ignore {
    /// Reads the file's text.
    ///
    /// # Errors
    ///
    /// [`IgnoreError`] for the first line that is malformed.
    pub fn parse(text: &str) -> Result<Self, IgnoreError> {
        let mut rules = Vec::new();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (index, line) in text.lines().enumerate() {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let line_text = line.trim();
            let (written, brings_back) = match line_text.strip_prefix('!') {
                Some(rest) => (rest.trim(), true),
                None => (line_text, false),
            };
            let pattern = clean(written);
            let malformed = || IgnoreError { line: index + 1, pattern: line_text.to_owned() };
            if written.is_empty() {
                return Err(malformed());
            }
            if pattern.is_empty() {
                continue;
            }
            let glob = Glob::deep(&pattern).ok_or_else(malformed)?;
            rules.push(Rule { glob, pattern, brings_back });
        }
        Ok(Self { rules })
    }

    /// Whether `path`, relative to the context and without a leading slash, is left out.
    pub fn ignores(&self, path: &str) -> bool {
        let mut ignored = false;
        for rule in &self.rules {
            if rule.brings_back == ignored && rule.matches_with_parents(path) {
                ignored = !rule.brings_back;
            }
        }
        ignored
    }

    /// Whether an ignored directory must be walked all the same, since something
    /// in it may have been brought back.
    pub fn may_bring_back_below(&self, directory: &str) -> bool {
        self.rules.iter().any(|rule| {
            rule.brings_back
                && (rule.pattern.contains("**") || same_start(&rule.pattern, directory))
        })
    }
}

impl Rule {
    fn matches_with_parents(&self, path: &str) -> bool {
        let parents = path.match_indices('/').filter_map(|(index, _)| path.get(..index));
        self.glob.matches(path) || parents.into_iter().any(|parent| self.glob.matches(parent))
    }
}

/// Whether the pattern's first directories could be those of `directory`.
fn same_start(pattern: &str, directory: &str) -> bool {
    pattern
        .split('/')
        .zip(directory.split('/'))
        .all(|(pattern, name)| Glob::shallow(pattern).is_none_or(|glob| glob.matches(name)))
}

/// The pattern without `.`, empty and `..` parts and outer slashes, as Go's `filepath.Clean` has it.
fn clean(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rules: &str, path: &str, expected: bool) {
        let ignore = Ignore::parse(rules).expect("patterns are well formed");
        assert_eq!(ignore.ignores(path), expected, "{rules:?} on {path}");
    }

    #[test]
    fn a_directory_takes_what_is_below_it() {
        check("target", "target/debug/x", true);
        check("/target/", "target/debug/x", true);
        check("target", "src/target", false);
        check("**/target", "src/target/x", true);
    }

    #[test]
    fn the_last_match_decides() {
        check("*.md\n!README.md", "README.md", false);
        check("*.md\n!README.md", "NEWS.md", true);
        check("*\n!src", "src/a.c", false);
        check("*\n!src\nsrc/*.o", "src/a.o", true);
        check("!README.md\n*.md", "README.md", true);
    }

    #[test]
    fn comments_blank_lines_and_dots_mean_nothing() {
        check("# all\n\n  ./a/../b  \n", "b", true);
        check("# all\n\n  ./a/../b  \n", "a", false);
        check("/\n.\n", "anything", false);
    }

    #[test]
    fn a_malformed_pattern_is_named_with_its_line() {
        let error = Ignore::parse("ok\n[a").expect_err("the class is open");
        assert_eq!(error, IgnoreError { line: 2, pattern: "[a".to_owned() });
        assert!(Ignore::parse("!").is_err());
    }

    #[test]
    fn an_ignored_directory_is_walked_only_where_something_may_come_back() {
        let ignore = Ignore::parse("*\n!src/keep").expect("well formed");
        assert!(ignore.may_bring_back_below("src"));
        assert!(!ignore.may_bring_back_below("target"));
        assert!(!ignore.may_bring_back_below("src/other"));
    }
}

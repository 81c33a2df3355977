//! The little of `apt.conf` that decides which sources are believed.
//!
//! Who administers the host may have said there that Release files past their date
//! are fine (a mirror that is frozen on purpose), and that holds here as well. A
//! proxy named there is not used, and said to be not.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::sources;

/// What the host's apt configuration says about fetching.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Whether a Release file past its date is refused.
    pub(crate) check_valid_until: bool,
    /// A proxy that apt would use.
    pub(crate) proxy: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { check_valid_until: true, proxy: None }
    }
}

impl Settings {
    /// Reads `apt.conf.d` and `apt.conf` in the directory; what is read last counts.
    ///
    /// # Errors
    ///
    /// The first file that cannot be read.
    pub(crate) fn of_host(directory: &Path) -> Result<Self, (PathBuf, io::Error)> {
        let mut settings = Self::default();
        let mut files = sources::listed(&directory.join("apt.conf.d"), |extension| {
            extension.is_none_or(|extension| extension == "conf")
        })?;
        files.extend(Some(directory.join("apt.conf")).filter(|path| path.is_file()));
        for path in files.into_iter().filter(|path| path.is_file()) {
            let bytes = fs::read(&path).map_err(|error| (path.clone(), error))?;
            settings.take(&String::from_utf8_lossy(&bytes));
        }
        Ok(settings)
    }

    fn take(&mut self, text: &str) {
        for (name, value) in options(text) {
            match name.to_ascii_lowercase().as_str() {
                "acquire::check-valid-until" => self.check_valid_until = !sources::is_no(&value),
                "acquire::http::proxy" | "acquire::https::proxy" => {
                    let names_one = !value.is_empty() && !value.eq_ignore_ascii_case("direct");
                    self.proxy = names_one.then_some(value);
                }
                _ => {}
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Open,
    Close,
    End,
}

/// Every `Name::Of::Option value`, however deep in braces it was written.
fn options(text: &str) -> Vec<(String, String)> {
    let mut options = Vec::new();
    let mut scopes: Vec<String> = Vec::new();
    let mut words: Vec<String> = Vec::new();
    for token in tokens(text) {
        match token {
            Token::Word(word) => words.push(word),
            Token::Open => scopes.push(std::mem::take(&mut words).join(" ")),
            Token::End | Token::Close => {
                if let [name, rest @ ..] = words.as_slice() {
                    let path: Vec<&str> =
                        scopes.iter().map(String::as_str).chain([name.as_str()]).collect();
                    options.push((path.join("::"), rest.join(" ")));
                }
                words.clear();
                if token == Token::Close {
                    scopes.pop();
                }
            }
        }
    }
    options
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let after = rest.get(character.len_utf8()..).unwrap_or_default();
        rest = match character {
            '{' => single(&mut tokens, Token::Open, after),
            '}' => single(&mut tokens, Token::Close, after),
            ';' => single(&mut tokens, Token::End, after),
            '"' => {
                let (word, after) = after.split_once('"').unwrap_or((after, ""));
                single(&mut tokens, Token::Word(word.to_owned()), after)
            }
            '#' => past(after, "\n"),
            '/' if after.starts_with('/') => past(after, "\n"),
            '/' if after.starts_with('*') => past(after, "*/"),
            c if c.is_whitespace() => after,
            _ => {
                let ends = |c: char| c.is_whitespace() || matches!(c, '{' | '}' | ';' | '"');
                let (word, after) = rest.split_at(rest.find(ends).unwrap_or(rest.len()));
                single(&mut tokens, Token::Word(word.to_owned()), after)
            }
        };
    }
    tokens
}

fn single<'a>(tokens: &mut Vec<Token>, token: Token, rest: &'a str) -> &'a str {
    tokens.push(token);
    rest
}

fn past<'a>(text: &'a str, end: &str) -> &'a str {
    text.split_once(end).map_or("", |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: (bool, Option<&str>)) {
        let mut settings = Settings::default();
        settings.take(text);
        let found = (settings.check_valid_until, settings.proxy.as_deref());
        assert_eq!(found, expected, "for {text}");
    }

    #[test]
    fn options_are_read_flat_and_nested_and_the_last_one_counts() {
        check("", (true, None));
        check("Acquire::Check-Valid-Until \"false\";", (false, None));
        check("acquire { check-valid-until no; };", (false, None));
        check("Acquire::Check-Valid-Until 0; Acquire { Check-Valid-Until \"yes\"; }", (true, None));
        check("Acquire { http { Proxy \"http://p:1\"; }; };", (true, Some("http://p:1")));
        check(
            "Acquire::http::Proxy \"http://p:1\"; Acquire::http::Proxy \"DIRECT\";",
            (true, None),
        );
    }

    #[test]
    fn comments_and_quoted_text_hide_nothing_else() {
        check("// Acquire::Check-Valid-Until no;\n# Acquire::Check-Valid-Until no;", (true, None));
        check("/* x */ A { \"http://a // b\"; }; Acquire::Check-Valid-Until no;", (false, None));
        check("} } ; \" Acquire", (true, None));
    }
}

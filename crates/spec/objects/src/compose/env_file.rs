//! Files of variables: `.env` and what `env_file` names.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::interpolate;
use crate::problem::Problem;
use crate::yaml::Place;

/// Parses a file of `NAME=value` lines.
///
/// `#` starts a comment at the start of a line and after a space; single quotes
/// keep a value as it is, double quotes know `\n`, `\t`, `\"`, `\\` and `\$`;
/// both may span lines. `export` before a name is allowed. Unquoted and double-
/// quoted values are interpolated with the names above them in the file and with
/// `variables`. A name without `=` takes its value from `variables`, or is left out.
///
/// # Errors
///
/// Every line that is none of this.
pub fn parse_env_file(
    text: &str,
    file: &str,
    variables: &BTreeMap<String, String>,
) -> Result<IndexMap<String, String>, Vec<Problem>> {
    let mut reader =
        Reader { file, known: variables.clone(), found: IndexMap::new(), problems: Vec::new() };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.split('\n').enumerate();
    while let Some((number, line)) = lines.next() {
        reader.line(number, line.trim_end_matches('\r'), &mut lines);
    }
    if reader.problems.is_empty() { Ok(reader.found) } else { Err(reader.problems) }
}

/// Parses a file of `NAME=value` lines whose values are taken as they stand.
///
/// # Errors
///
/// Every line that is neither empty, nor a comment, nor has a name.
pub fn parse_raw_env_file(
    text: &str,
    file: &str,
) -> Result<IndexMap<String, String>, Vec<Problem>> {
    let mut found = IndexMap::new();
    let mut problems = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        match line.split_once('=') {
            Some((name, value)) if is_name(name) => {
                found.insert(name.to_owned(), value.to_owned());
            }
            _ => problems.push(not_a_line(file, number)),
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(problems) }
}

type Lines<'t> = std::iter::Enumerate<std::str::Split<'t, char>>;

struct Reader<'a> {
    file: &'a str,
    known: BTreeMap<String, String>,
    found: IndexMap<String, String>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn line(&mut self, number: usize, line: &str, more: &mut Lines<'_>) {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            return;
        }
        let line = line.strip_prefix("export ").map_or(line, str::trim_start);
        let Some((name, value)) = line.split_once('=') else {
            self.bare_name(number, line.trim_end());
            return;
        };
        let name = name.trim_end();
        if !is_name(name) {
            self.problems.push(not_a_line(self.file, number));
            return;
        }
        match self.value(value.trim_start(), more) {
            Ok(value) => {
                self.known.insert(name.to_owned(), value.clone());
                self.found.insert(name.to_owned(), value);
            }
            Err(message) => self.problems.push(problem(self.file, number, message)),
        }
    }

    fn bare_name(&mut self, number: usize, name: &str) {
        if !is_name(name) {
            self.problems.push(not_a_line(self.file, number));
        } else if let Some(value) = self.known.get(name) {
            self.found.insert(name.to_owned(), value.clone());
        }
    }

    fn value(&self, value: &str, more: &mut Lines<'_>) -> Result<String, String> {
        match value.chars().next() {
            Some('\'') => quoted(value, '\'', more),
            Some('"') => {
                let text = quoted(value, '"', more)?;
                self.interpolated(&unescaped(&text))
            }
            _ => self.interpolated(without_comment(value).trim_end()),
        }
    }

    fn interpolated(&self, text: &str) -> Result<String, String> {
        interpolate::interpolate(text, &self.known).map(|interpolated| interpolated.text)
    }
}

/// The text between `quote`s, over as many lines as it takes.
fn quoted(value: &str, quote: char, more: &mut Lines<'_>) -> Result<String, String> {
    let mut text = String::new();
    let mut rest = value.strip_prefix(quote).unwrap_or(value).to_owned();
    loop {
        if let Some(end) = closing(&rest, quote) {
            let (inside, after) = rest.split_at(end);
            text.push_str(inside);
            let after = after.strip_prefix(quote).unwrap_or(after).trim();
            if !after.is_empty() && !after.starts_with('#') {
                return Err(format!("`{after}` stands after the closing quote"));
            }
            return Ok(text);
        }
        text.push_str(&rest);
        text.push('\n');
        let (_, line) = more.next().ok_or("a quote is left open")?;
        rest = line.trim_end_matches('\r').to_owned();
    }
}

fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped && quote == '"';
        ends.then_some(at)
    })
}

fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            out.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('$') => out.push_str("$$"),
            Some(other @ ('"' | '\\' | '\'')) => out.push(other),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

/// `value` up to a `#` that follows a space.
fn without_comment(value: &str) -> &str {
    let mut after_space = true;
    let end = value.char_indices().find_map(|(at, c)| {
        let starts = c == '#' && after_space;
        after_space = c == ' ' || c == '\t';
        starts.then_some(at)
    });
    value.split_at(end.unwrap_or(value.len())).0
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn not_a_line(file: &str, number: usize) -> Problem {
    problem(file, number, "is not `NAME=value`".to_owned())
}

fn problem(file: &str, number: usize, message: String) -> Problem {
    let line = u32::try_from(number).unwrap_or(u32::MAX).saturating_add(1);
    Problem { origin: Place { line, column: 1 }.origin(file), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &str)]) {
        let shell = BTreeMap::from([("SHELL_SET".to_owned(), "from the shell".to_owned())]);
        let found = parse_env_file(text, ".env", &shell).expect("parses");
        let found: Vec<_> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(found, expected, "for {text:?}");
    }

    #[test]
    fn plain_values_lose_comments_and_the_space_around_them() {
        check(
            "# a comment\nA=1\n\n B = two words # comment\nC=a#b\r\nD=\n",
            &[("A", "1"), ("B", "two words"), ("C", "a#b"), ("D", "")],
        );
    }

    #[test]
    fn quotes_keep_what_is_inside() {
        check(
            "A='$X # no'\nB=\"a\\n\\\"b\\\"\" # c\nC='two\nlines'\nD=''\nE=\"\"\n",
            &[("A", "$X # no"), ("B", "a\n\"b\""), ("C", "two\nlines"), ("D", ""), ("E", "")],
        );
    }

    #[test]
    fn values_see_the_names_above_them_and_the_shell() {
        check(
            "A=1\nB=${A}-$SHELL_SET\nC=\"\\$A\"\nexport D=x\nSHELL_SET\nNOT_SET\n",
            &[
                ("A", "1"),
                ("B", "1-from the shell"),
                ("C", "$A"),
                ("D", "x"),
                ("SHELL_SET", "from the shell"),
            ],
        );
    }

    #[test]
    fn every_bad_line_is_reported() {
        let problems =
            parse_env_file("A B\n1=2\nC='open\n", ".env", &BTreeMap::new()).expect_err("refused");
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            problems,
            [
                ".env:1:1: is not `NAME=value`",
                ".env:2:1: is not `NAME=value`",
                ".env:3:1: a quote is left open"
            ]
        );
    }

    #[test]
    fn a_raw_file_is_taken_as_it_stands() {
        let found = parse_raw_env_file("A='x' # y\n#B=1\n", "f").expect("parses");
        assert_eq!(found.get("A").map(String::as_str), Some("'x' # y"));
        assert_eq!(found.len(), 1);
    }
}

//! BuildKit's own parser and shell-word cases, run against ours.
//!
//! They are read from where `CARRACK_JUDGE_BUILDKIT` says that BuildKit's
//! source is, and skipped where it says nothing.

use std::fs;
use std::path::{Path, PathBuf};

use super::expand::{expand, expand_words};
use super::lines::Lines;
use super::statement::{self, Statement};

fn judge() -> Option<PathBuf> {
    let source = std::env::var_os("CARRACK_JUDGE_BUILDKIT").map(PathBuf::from);
    if source.is_none() {
        println!("skipped: CARRACK_JUDGE_BUILDKIT names no BuildKit source tree");
    }
    Some(source?.join("frontend/dockerfile"))
}

/// The statement as BuildKit's parser prints it.
fn dump(statement: &Statement) -> String {
    if statement.keyword == "ONBUILD" {
        let rest = statement.words.iter().map(|word| word.text.as_str()).collect::<String>();
        let mut lines = Lines::new(&rest);
        let inner = statement::next(&mut lines).expect("a trigger").expect("well formed");
        return format!("(onbuild {})", dump(&inner));
    }
    let mut out = format!("({}", statement.keyword.to_lowercase());
    let quote = |text: &str| {
        let escape = |character| match character {
            '\\' | '"' => format!("\\{character}"),
            '\u{8}' => "\\b".to_owned(),
            '\u{c}' => "\\f".to_owned(),
            '\n' => "\\n".to_owned(),
            '\r' => "\\r".to_owned(),
            '\t' => "\\t".to_owned(),
            '\0' => "\\x00".to_owned(),
            other => other.to_string(),
        };
        format!("\"{}\"", text.chars().map(escape).collect::<String>())
    };
    if !statement.flags.is_empty() {
        let flags: Vec<_> = statement.flags.iter().map(|flag| quote(&flag.text)).collect();
        out += &format!(" [{}]", flags.join(" "));
    }
    let paired = matches!(statement.keyword.as_str(), "ENV" | "LABEL");
    let new_form = paired
        && statement
            .words
            .first()
            .is_some_and(|name| statement.original.contains(&format!("{}=", name.text)));
    for (index, word) in statement.words.iter().enumerate() {
        out += &format!(" {}", quote(&word.text));
        if paired && index % 2 == 1 {
            out += if new_form { " \"=\"" } else { " \"\"" };
        }
    }
    out + ")"
}

/// Every statement on a line of its own, or what was wrong with the first that could not be read.
fn dump_file(path: &Path) -> Result<String, String> {
    let text = fs::read_to_string(path).expect("the judge's file is there");
    let mut lines = Lines::new(&text);
    let mut out = String::new();
    while let Some(statement) = statement::next(&mut lines) {
        out += &dump(&statement.map_err(|fault| fault.message)?);
        out.push('\n');
    }
    if out.is_empty() { Err("no instructions".to_owned()) } else { Ok(out) }
}

fn cases(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the judge's directory is there");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn buildkits_golden_files_parse_the_same() {
    let Some(judge) = judge() else { return };
    let cases = cases(&judge.join("parser/testfiles"));
    assert!(cases.len() > 25, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let expected = fs::read_to_string(case.join("result")).expect("a result");
        let found = dump_file(&case.join("Dockerfile"));
        if found.as_deref() != Ok(&expected) {
            wrong.push(format!("{}\nexpected:\n{expected}\nfound:\n{found:#?}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    println!("{} golden files agree", cases.len());
}

#[test]
fn what_buildkit_refuses_to_parse_we_refuse() {
    let Some(judge) = judge() else { return };
    for case in cases(&judge.join("parser/testfiles-negative")) {
        let found = dump_file(&case.join("Dockerfile"));
        assert!(found.is_err(), "{} was read as {found:?}", case.display());
    }
}

#[test]
fn buildkits_variable_table_expands_the_same() {
    let Some(judge) = judge() else { return };
    let table = fs::read_to_string(judge.join("shell/envVarTest")).expect("the table");
    let lookup = |name: &str| {
        let known = [("PWD", "/home"), ("SHELL", "bash"), ("KOREAN", "한국어"), ("NULL", "")];
        known.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    };
    let mut count = 0;
    for (number, line) in table.lines().enumerate() {
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        let mut columns = line.trim().split('|').map(str::trim);
        let (Some(system), Some(source), Some(expected), None) =
            (columns.next(), columns.next(), columns.next(), columns.next())
        else {
            panic!("line {} of the table has not three columns", number + 1);
        };
        if system == "W" {
            continue;
        }
        let found = expand(source, '\\', &lookup);
        let expected = (expected != "error").then_some(expected);
        assert_eq!(found.as_deref().ok(), expected, "line {}: {source}: {found:?}", number + 1);
        count += 1;
    }
    println!("{count} rows agree");
}

#[test]
fn buildkits_word_table_splits_the_same() {
    let Some(judge) = judge() else { return };
    let table = fs::read_to_string(judge.join("shell/wordsTest")).expect("the table");
    let mut variables: Vec<(String, String)> = Vec::new();
    for line in table.lines() {
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        if let Some(set) = line.strip_prefix("ENV ") {
            let (name, value) = set.split_once('=').expect("a variable");
            variables.retain(|(known, _)| known != name);
            variables.push((name.trim_start().to_owned(), value.to_owned()));
            continue;
        }
        let (source, expected) = line.split_once('|').expect("two columns");
        let lookup = |name: &str| {
            variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        };
        let found = expand_words(source.trim(), '\\', &lookup);
        let expected = expected.trim_start();
        if expected == "error" {
            assert!(found.is_err(), "{source} became {found:?}");
        } else {
            let expected: Vec<_> = expected.split(',').map(ToOwned::to_owned).collect();
            assert_eq!(found, Ok(expected), "for {source}");
        }
    }
}

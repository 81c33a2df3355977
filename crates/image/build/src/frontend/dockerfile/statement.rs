//! One logical line split into keyword, flags and words.
//!
//! Each instruction has its own way of splitting, as Docker's does: words by
//! white space, `name=value` pairs, a JSON array, or the rest as it stands.

use super::lines::{Line, Lines};
use super::pairs;
use super::position::{Fault, Position};

/// A piece of text and where it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The text, quotes and escapes still in it.
    pub text: String,
    /// Where it starts.
    pub position: Position,
}

/// A document that stands in the Dockerfile below the line that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The terminator, quotes removed.
    pub name: String,
    /// Whether variables in it are expanded: the terminator was not quoted.
    pub expand: bool,
    /// The lines up to the terminator; leading tabs removed for `<<-`.
    pub content: String,
}

/// How the words of a statement were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As words, or as one string, according to the instruction.
    Plain,
    /// As a JSON array of strings.
    Json,
}

/// A logical line, split.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    /// In upper case.
    pub(super) keyword: String,
    pub(super) position: Position,
    /// Each as written, with its leading dashes.
    pub(super) flags: Vec<Word>,
    pub(super) words: Vec<Word>,
    pub(super) form: Form,
    pub(super) heredocs: Vec<Heredoc>,
    /// The whole line, for the image's history and for progress.
    pub(super) original: String,
}

/// The next statement of `lines`; a fault stands for a statement that could not be split.
pub(super) fn next(lines: &mut Lines<'_>) -> Option<Result<Statement, Fault>> {
    let line = lines.next_line()?;
    Some(split(&line, lines))
}

fn split(line: &Line, lines: &mut Lines<'_>) -> Result<Statement, Fault> {
    let text = line.text.trim_end();
    let keyword_end = text.find(is_blank).unwrap_or(text.len());
    let (keyword, rest) = text.split_at(keyword_end);
    let scanned = scan_flags(rest, lines.escape);
    let flags = scanned
        .flags
        .into_iter()
        .map(|(offset, text)| Word { text, position: line.position(keyword_end + offset) })
        .collect();
    let arguments = rest.get(scanned.end..).unwrap_or_default();
    let blank = arguments.len() - arguments.trim_start().len();
    let cursor = Cursor {
        line,
        offset: keyword_end + scanned.end + blank,
        text: arguments.trim(),
        escape: lines.escape,
    };
    let keyword = keyword.to_ascii_uppercase();
    let (words, form) = cursor.words(&keyword)?;
    let mut statement = Statement {
        keyword,
        position: line.start(),
        flags,
        words,
        form,
        heredocs: Vec::new(),
        original: text.to_owned(),
    };
    read_heredocs(&mut statement, lines)?;
    Ok(statement)
}

/// White space between words, as Docker counts it.
pub(super) fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\u{b}' | '\u{c}')
}

struct ScannedFlags {
    /// Offset and text of each.
    flags: Vec<(usize, String)>,
    /// Where the arguments start.
    end: usize,
}

/// Takes the leading words that start with `--`; a bare `--` ends them.
fn scan_flags(rest: &str, escape: char) -> ScannedFlags {
    let mut flags = Vec::new();
    let mut offset = 0;
    loop {
        let tail = rest.get(offset..).unwrap_or_default();
        offset += tail.len() - tail.trim_start().len();
        let tail = rest.get(offset..).unwrap_or_default();
        if !tail.starts_with("--") {
            return ScannedFlags { flags, end: offset };
        }
        let (length, word) = scan_flag(tail, escape);
        let start = offset;
        offset += length;
        if word == "--" {
            return ScannedFlags { flags, end: offset };
        }
        flags.push((start, word));
    }
}

/// One flag with its quotes and escapes resolved, and how many bytes it took.
fn scan_flag(text: &str, escape: char) -> (usize, String) {
    let mut word = String::new();
    let mut quote = None;
    let mut characters = text.char_indices();
    while let Some((offset, character)) = characters.next() {
        if character == escape {
            if let Some((_, escaped)) = characters.next() {
                word.push(escaped);
            }
            continue;
        }
        match quote {
            Some(open) if character == open => quote = None,
            Some(_) => word.push(character),
            None if character.is_whitespace() => return (offset, word),
            None if matches!(character, '\'' | '"') => quote = Some(character),
            None => word.push(character),
        }
    }
    (text.len(), word)
}

/// The arguments of a statement, and where they stand in their line.
pub(super) struct Cursor<'a> {
    pub(super) line: &'a Line,
    pub(super) offset: usize,
    pub(super) text: &'a str,
    pub(super) escape: char,
}

impl Cursor<'_> {
    pub(super) fn word(&self, offset: usize, text: &str) -> Word {
        Word { text: text.to_owned(), position: self.line.position(self.offset + offset) }
    }

    fn words(&self, keyword: &str) -> Result<(Vec<Word>, Form), Fault> {
        if self.text.is_empty() {
            return Ok((Vec::new(), Form::Plain));
        }
        Ok(match keyword {
            "ADD" | "COPY" | "VOLUME" => match self.json_array()? {
                Some(words) => (words, Form::Json),
                None => (self.blank_separated(), Form::Plain),
            },
            "CMD" | "ENTRYPOINT" | "RUN" | "SHELL" => match self.json_array()? {
                Some(words) => (words, Form::Json),
                None => (vec![self.word(0, self.text)], Form::Plain),
            },
            "ENV" | "LABEL" => (pairs::name_value(self, keyword)?, Form::Plain),
            "ARG" => (pairs::quoted_words(self), Form::Plain),
            "EXPOSE" | "FROM" => (self.blank_separated(), Form::Plain),
            "HEALTHCHECK" => self.healthcheck()?,
            _ => (vec![self.word(0, self.text)], Form::Plain),
        })
    }

    fn blank_separated(&self) -> Vec<Word> {
        let base = self.text.as_ptr() as usize;
        self.text
            .split(is_blank)
            .filter(|word| !word.is_empty())
            .map(|word| self.word(word.as_ptr() as usize - base, word))
            .collect()
    }

    /// The words of a JSON array; nothing when the text is not one.
    fn json_array(&self) -> Result<Option<Vec<Word>>, Fault> {
        if !self.text.starts_with('[') {
            return Ok(None);
        }
        let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(self.text) else {
            return Ok(None);
        };
        let words = values.into_iter().map(|value| match value {
            serde_json::Value::String(text) => Ok(Word { text, ..self.word(0, "") }),
            other => Err(Fault::new(
                self.line.position(self.offset),
                format!("a JSON array here holds strings only, not `{other}`"),
            )),
        });
        words.collect::<Result<_, _>>().map(Some)
    }

    /// The kind of check, then a command in either form.
    fn healthcheck(&self) -> Result<(Vec<Word>, Form), Fault> {
        let kind_end = self.text.find(char::is_whitespace).unwrap_or(self.text.len());
        let (kind, rest) = self.text.split_at(kind_end);
        let mut words = vec![self.word(0, kind)];
        let skipped = rest.len() - rest.trim_start().len();
        let command = Cursor {
            line: self.line,
            offset: self.offset + kind_end + skipped,
            text: rest.trim_start(),
            escape: self.escape,
        };
        if command.text.is_empty() {
            return Ok((words, Form::Plain));
        }
        let form = match command.json_array()? {
            Some(array) => {
                words.extend(array);
                Form::Json
            }
            None => {
                words.push(command.word(0, command.text));
                Form::Plain
            }
        };
        Ok((words, form))
    }
}

/// What a word such as `<<-"EOF"` asks for: name, whether to expand, whether to drop tabs.
pub(super) fn heredoc_word(word: &str) -> Option<(String, bool, bool)> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (rest, chomp) = match rest.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let bare: String = rest.chars().filter(|c| !matches!(c, '\'' | '"')).collect();
    let plausible = !bare.is_empty()
        && bare.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
    plausible.then(|| (bare.clone(), bare.len() == rest.len(), chomp))
}

fn read_heredocs(statement: &mut Statement, lines: &mut Lines<'_>) -> Result<(), Fault> {
    let takes = matches!(statement.keyword.as_str(), "ADD" | "COPY" | "RUN");
    if !takes || statement.form == Form::Json || !statement.original.contains("<<") {
        return Ok(());
    }
    let words = match statement.keyword.as_str() {
        "RUN" => shell_words(&statement.original),
        _ => statement.words.iter().map(|word| word.text.clone()).collect(),
    };
    for (name, expand, chomp) in words.iter().filter_map(|word| heredoc_word(word)) {
        let Some(content) = lines.heredoc_body(&name, chomp) else {
            let message = format!("the heredoc `{name}` has no end");
            return Err(Fault::new(statement.position, message));
        };
        statement.heredocs.push(Heredoc { name, expand, content });
    }
    Ok(())
}

/// The words of a shell command with quotes kept, so that a quoted `<<` stays quoted
/// and `<< EOF` becomes one word.
fn shell_words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if quote.is_none() && character.is_whitespace() {
            if words.last().is_some_and(|word| !word.ends_with("<<")) {
                words.push(String::new());
            }
            continue;
        }
        match quote {
            Some(open) if character == open => quote = None,
            Some(_) => {}
            None if matches!(character, '\'' | '"') => quote = Some(character),
            None => {}
        }
        let Some(word) = words.last_mut() else { break };
        word.push(character);
        if character == '\\' && quote != Some('\'') {
            word.extend(characters.next());
        }
    }
    words
}

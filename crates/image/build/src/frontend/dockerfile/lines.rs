//! Physical lines joined into logical ones, parser directives and heredocs.
//!
//! A logical line is an instruction with its continuation lines taken together
//! and its comments left out. It remembers where each of its pieces stood, so
//! that a word in it can still be pointed at.

use super::position::{Fault, Position};

/// A character of a logical line is found by the last piece that starts at or before it.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Offset in the logical line, in bytes.
    start: usize,
    /// Where that offset stood in the file.
    position: Position,
}

/// One instruction's text, continuation lines joined.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    pub(super) text: String,
    pieces: Vec<Piece>,
}

impl Line {
    fn push(&mut self, text: &str, position: Position) {
        self.pieces.push(Piece { start: self.text.len(), position });
        self.text.push_str(text);
    }

    /// Where the byte at `offset` stood in the file.
    pub(super) fn position(&self, offset: usize) -> Position {
        let after = self.pieces.partition_point(|piece| piece.start <= offset);
        let Some(piece) = after.checked_sub(1).and_then(|index| self.pieces.get(index)) else {
            return Position { line: 1, column: 1 };
        };
        let end = offset.min(self.text.len());
        let before = self.text.get(piece.start..end).unwrap_or_default();
        Position {
            line: piece.position.line,
            column: piece.position.column + before.chars().count(),
        }
    }

    pub(super) fn start(&self) -> Position {
        self.position(0)
    }
}

/// The physical lines of a file, and the directives that govern how they join.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    physical: Vec<&'a str>,
    next: usize,
    /// The escape and line continuation character.
    pub(super) escape: char,
    directives_over: bool,
    seen: Vec<String>,
    faults: Vec<Fault>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self {
            physical: text.split_inclusive('\n').collect(),
            next: 0,
            escape: '\\',
            directives_over: false,
            seen: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// What was wrong with the directives read so far.
    pub(super) fn take_faults(&mut self) -> Vec<Fault> {
        std::mem::take(&mut self.faults)
    }

    /// The next instruction's text, or nothing at the end of the file.
    pub(super) fn next_line(&mut self) -> Option<Line> {
        loop {
            let (number, physical) = self.take()?;
            let trimmed = trim_end_of_line(physical);
            let text = trimmed.trim_start();
            let column = trimmed.chars().count() - text.chars().count() + 1;
            let position = Position { line: number, column };
            self.read_directive(text, position);
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            return Some(self.join(text, position));
        }
    }

    fn join(&mut self, first: &str, position: Position) -> Line {
        let mut line = Line::default();
        let (text, mut continued) = self.without_continuation(first);
        line.push(text, position);
        while continued {
            let Some((number, physical)) = self.take() else { break };
            let physical = trim_end_of_line(physical);
            if physical.trim_start().starts_with('#') || physical.trim().is_empty() {
                continue;
            }
            let text;
            (text, continued) = self.without_continuation(physical);
            line.push(text, Position { line: number, column: 1 });
        }
        line
    }

    /// Takes the body of a heredoc off the lines that follow. `None`: its end is missing.
    pub(super) fn heredoc_body(&mut self, terminator: &str, chomp: bool) -> Option<String> {
        let mut body = String::new();
        while let Some((_, physical)) = self.take() {
            let bare = trim_end_of_line(physical);
            let candidate = if chomp { bare.trim_start_matches('\t') } else { bare };
            if candidate == terminator {
                return Some(body);
            }
            body.push_str(if chomp { physical.trim_start_matches('\t') } else { physical });
        }
        None
    }

    fn take(&mut self) -> Option<(usize, &'a str)> {
        let physical = self.physical.get(self.next)?;
        self.next += 1;
        Some((self.next, physical))
    }

    /// The line without its continuation character, and whether it had one.
    ///
    /// An escaped escape character at the end does not continue the line.
    fn without_continuation<'t>(&self, text: &'t str) -> (&'t str, bool) {
        let bare = text.trim_end_matches([' ', '\t']);
        match bare.strip_suffix(self.escape) {
            Some(rest) if !rest.ends_with(self.escape) => (rest, true),
            Some(_) | None => (text, false),
        }
    }

    fn read_directive(&mut self, text: &str, position: Position) {
        if self.directives_over {
            return;
        }
        let directive = text.strip_prefix('#').and_then(|comment| directive(comment.trim_start()));
        let Some((name, value)) = directive else {
            self.directives_over = true;
            return;
        };
        if self.seen.contains(&name) {
            let message = format!("the directive `{name}` can be given only once");
            self.faults.push(Fault::new(position, message));
            return;
        }
        match name.as_str() {
            "escape" => self.read_escape(value, position),
            "syntax" => self.read_syntax(value, position),
            _ => {}
        }
        self.seen.push(name);
    }

    fn read_escape(&mut self, value: &str, position: Position) {
        match value {
            "\\" => self.escape = '\\',
            "`" => self.escape = '`',
            other => self.faults.push(Fault::new(
                position,
                format!("the escape character is either \\ or `, not `{other}`"),
            )),
        }
    }

    /// Other syntaxes are other languages: a frontend image we would have to run.
    fn read_syntax(&mut self, value: &str, position: Position) {
        let image = value.split_whitespace().next().unwrap_or_default();
        let path = image.strip_prefix("docker.io/").unwrap_or(image);
        let name = path.split([':', '@']).next().unwrap_or_default();
        if !matches!(name, "docker/dockerfile" | "docker/dockerfile-upstream") {
            self.faults.push(Fault::new(
                position,
                format!("the syntax `{value}` is not supported; only docker/dockerfile is"),
            ));
        }
    }
}

fn trim_end_of_line(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// `name = value` when `name` is a directive.
fn directive(comment: &str) -> Option<(String, &str)> {
    let (name, value) = comment.split_once('=')?;
    let (name, value) = (name.trim_end().to_ascii_lowercase(), value.trim());
    let known = matches!(name.as_str(), "escape" | "syntax" | "check");
    (known && !value.is_empty()).then_some((name, value))
}

//! Paragraphs of `Field: value` lines: the form of Release files, Packages
//! indexes, control files and `*.sources`.
//!
//! Values are borrowed from the text: an index of sixty thousand packages is read
//! without copying any of it.

use std::ops::Range;

/// One paragraph: fields in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Paragraph<'a> {
    text: &'a str,
    fields: Vec<(&'a str, Range<usize>)>,
}

/// A line that is neither a field nor the continuation of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is neither `Field: value` nor a continuation that starts with a space")]
pub struct Malformed {
    /// Which line, from one.
    pub line: usize,
}

impl<'a> Paragraph<'a> {
    /// The value of a field, whatever the case of its name. A value of several lines
    /// keeps its line ends and their leading space.
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        let (_, range) = self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name))?;
        self.text.get(range.clone()).map(str::trim_ascii)
    }

    /// The value of a field as words parted by white space.
    pub(crate) fn words(&self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.get(name).unwrap_or_default().split_ascii_whitespace()
    }

    /// All fields in their order.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.fields.iter().map(|(name, range)| {
            (*name, self.text.get(range.clone()).unwrap_or_default().trim_ascii())
        })
    }
}

/// Reads all paragraphs of a text.
pub(crate) fn parse(text: &str) -> Paragraphs<'_> {
    Paragraphs { text, position: 0, line: 0 }
}

/// The paragraphs of a text, one after another.
#[derive(Clone, Debug)]
pub(crate) struct Paragraphs<'a> {
    text: &'a str,
    position: usize,
    line: usize,
}

impl<'a> Iterator for Paragraphs<'a> {
    type Item = Result<Paragraph<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut paragraph = Paragraph { text: self.text, fields: Vec::new() };
        while let Some((start, line)) = self.next_line() {
            if line.trim_ascii().is_empty() {
                if paragraph.fields.is_empty() {
                    continue;
                }
                break;
            }
            if line.starts_with('#') {
                continue;
            }
            let taken = if line.starts_with([' ', '\t']) {
                extend(&mut paragraph, start + line.len())
            } else {
                add(&mut paragraph, start, line)
            };
            if !taken {
                self.position = self.text.len();
                return Some(Err(Malformed { line: self.line }));
            }
        }
        (!paragraph.fields.is_empty()).then_some(Ok(paragraph))
    }
}

impl<'a> Paragraphs<'a> {
    /// The next line without its end, and where in the text it begins.
    fn next_line(&mut self) -> Option<(usize, &'a str)> {
        let start = self.position;
        let rest = self.text.get(start..).filter(|rest| !rest.is_empty())?;
        let line = rest.split_once('\n').map_or(rest, |(line, _)| line);
        self.position = (start + line.len() + 1).min(self.text.len());
        self.line += 1;
        Some((start, line))
    }
}

/// Adds a field; `false` when the line is none.
fn add<'a>(paragraph: &mut Paragraph<'a>, start: usize, line: &'a str) -> bool {
    let Some((name, _)) = line.split_once(':') else { return false };
    if name.is_empty() || name.contains(|c: char| c.is_ascii_whitespace()) {
        return false;
    }
    paragraph.fields.push((name, start + name.len() + 1..start + line.len()));
    true
}

/// Lengthens the last field up to `end`; `false` when there is none.
fn extend(paragraph: &mut Paragraph<'_>, end: usize) -> bool {
    match paragraph.fields.last_mut() {
        Some((_, range)) => {
            range.end = end;
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<Vec<(&str, &str)>> {
        parse(text).map(|paragraph| paragraph.unwrap().fields().collect()).collect()
    }

    #[test]
    fn paragraphs_are_parted_by_empty_lines_and_comments_are_passed_over() {
        let text = "\n# first\nA: 1\n# between\nB: 2\n\n\n \nA: 3";
        assert_eq!(all(text), [vec![("A", "1"), ("B", "2")], vec![("A", "3")]]);
    }

    #[test]
    fn a_value_may_go_on_over_lines() {
        let text = "Digest:\n a 1\n b 2\nEmpty:\nNext: x\r\n";
        assert_eq!(all(text), [vec![("Digest", "a 1\n b 2"), ("Empty", ""), ("Next", "x")]]);
    }

    #[test]
    fn a_line_that_is_no_field_is_named() {
        for text in ["A: 1\nnonsense\n", "A: 1\n: x", "\n continued", "A: 1\nB C: 1"] {
            let error = parse(text).find_map(Result::err).expect(text);
            assert_eq!(error, Malformed { line: 2 });
        }
        assert_eq!(parse("nonsense\nA: 1").count(), 1);
    }

    #[test]
    fn field_names_have_no_case() {
        let paragraph = parse("Package: x").next().unwrap().unwrap();
        assert_eq!(paragraph.get("package"), Some("x"));
        assert_eq!(paragraph.get("Version"), None);
    }
}

//! YAML as a tree whose every node and key knows its place.
//!
//! ```text
//! text ──parse──▶ one Node per document: anchors and merges expanded
//! ```
//!
//! Scalars stay text, `1.10` and `0644` as they were written: what a text means
//! depends on the field it stands in, and whoever reads the field knows. The
//! size of a tree is bounded, so a file of aliases to aliases ends in a problem.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};

use crate::problem::{Origin, Problem};

/// Nodes one document may grow to when its aliases are expanded, those kept for
/// aliases to come counted as well.
const NODES_MAX: usize = 100_000;

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) place: Place,
}

/// Line and column, both counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl Place {
    pub(crate) fn origin(self, file: &str) -> Origin {
        Origin { file: file.to_owned(), line: self.line, column: self.column }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// A scalar; `plain` when it was written without quotes and without a tag.
    Scalar {
        text: String,
        plain: bool,
    },
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_place: Place,
    pub(crate) value: Node,
}

impl Node {
    /// Whether nothing was written here: `key:`, `~` or `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The entry under `key`.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Mapping(entries) => entries.iter().find(|entry| entry.key == key),
            Value::Scalar { .. } | Value::Sequence(_) => None,
        }
    }

    /// What kind of node this is, for a message.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar { .. } if self.is_null() => "nothing",
            Value::Scalar { .. } => "a scalar",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }

    fn size(&self) -> usize {
        match &self.value {
            Value::Scalar { .. } => 1,
            Value::Sequence(items) => 1 + items.iter().map(Self::size).sum::<usize>(),
            Value::Mapping(entries) => {
                1 + entries.iter().map(|entry| 1 + entry.value.size()).sum::<usize>()
            }
        }
    }
}

/// Parses every document of `text`; documents with nothing in them are left out.
///
/// # Errors
///
/// The syntax error that stopped the parser, or every duplicate key, unknown
/// tag and wrong merge there is.
pub(crate) fn parse(text: &str, file: &str) -> Result<Vec<Node>, Vec<Problem>> {
    let mut composer = Composer {
        events: Parser::new_from_str_with_options(
            text,
            granit_parser::options! { emit_comments: false },
        ),
        file,
        anchors: HashMap::new(),
        nodes: 0,
        problems: Vec::new(),
    };
    let documents = composer.documents().map_err(|problem| vec![problem])?;
    if composer.problems.is_empty() { Ok(documents) } else { Err(composer.problems) }
}

struct Composer<'a> {
    events: Parser<'a, granit_parser::StrInput<'a>>,
    file: &'a str,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    problems: Vec<Problem>,
}

impl<'a> Composer<'a> {
    fn documents(&mut self) -> Result<Vec<Node>, Problem> {
        let mut documents = Vec::new();
        while let Some((event, span)) = self.next()? {
            match event {
                Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
                Event::DocumentStart(..) => {
                    self.anchors.clear();
                    self.nodes = 0;
                }
                event => {
                    let node = self.node(event, span)?;
                    if !node.is_null() {
                        documents.push(node);
                    }
                }
            }
        }
        Ok(documents)
    }

    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, Problem> {
        match self.events.next() {
            None => Ok(None),
            Some(Ok(next)) => Ok(Some(next)),
            Some(Err(error)) => {
                let place = place_of(error.marker().line(), error.marker().col());
                Err(self.problem(place, format!("is not valid YAML: {}", error.info())))
            }
        }
    }

    fn problem(&self, place: Place, message: String) -> Problem {
        Problem { origin: place.origin(self.file), message }
    }

    fn count(&mut self, nodes: usize, place: Place) -> Result<(), Problem> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            let message = format!(
                "the document holds more than {NODES_MAX} values; check what its aliases expand to"
            );
            return Err(self.problem(place, message));
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'a>, span: Span) -> Result<Node, Problem> {
        let place = place_of(span.start.line(), span.start.col());
        self.count(1, place)?;
        match event {
            Event::Alias(id) => match self.anchors.get(&id).cloned() {
                Some((node, size)) => {
                    self.count(size, place)?;
                    Ok(node)
                }
                None => Err(self.problem(place, "an alias stands inside what it names".into())),
            },
            Event::Scalar(text, style, anchor, tag) => {
                let tagged = self.check_tag(tag.as_deref(), place);
                let plain = style == ScalarStyle::Plain && !tagged;
                let value = Value::Scalar { text: text.into_owned(), plain };
                self.anchored(anchor, Node { value, place })
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), place);
                let value = Value::Sequence(self.sequence(place)?);
                self.anchored(anchor, Node { value, place })
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), place);
                let value = Value::Mapping(self.mapping(place)?);
                self.anchored(anchor, Node { value, place })
            }
            other => Err(self.problem(place, format!("unexpected {other:?}"))),
        }
    }

    fn anchored(&mut self, anchor: usize, node: Node) -> Result<Node, Problem> {
        if anchor != 0 {
            let size = node.size();
            self.count(size, node.place)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(node)
    }

    /// Whether a scalar is made a string by its tag. Tags that ask for more than
    /// YAML's own types are problems.
    fn check_tag(&mut self, tag: Option<&Tag>, place: Place) -> bool {
        let Some(tag) = tag else { return false };
        if !["str", "int", "float", "bool", "null", "seq", "map"]
            .iter()
            .any(|core| tag.is_yaml_core_schema_tag(core))
        {
            let problem = self.problem(place, format!("the tag `{tag}` is not supported"));
            self.problems.push(problem);
        }
        tag.is_yaml_core_schema_tag("str")
    }

    fn sequence(&mut self, place: Place) -> Result<Vec<Node>, Problem> {
        let mut items = Vec::new();
        loop {
            match self.expect_next(place)? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, span)?),
            }
        }
    }

    fn mapping(&mut self, place: Place) -> Result<Vec<Entry>, Problem> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merges = Vec::new();
        loop {
            let (event, span) = self.expect_next(place)?;
            if event == Event::MappingEnd {
                break;
            }
            let key_node = self.node(event, span)?;
            let key_place = key_node.place;
            let (event, span) = self.expect_next(place)?;
            let value = self.node(event, span)?;
            match key_node.value {
                Value::Scalar { text, plain: true } if text == "<<" => merges.push(value),
                Value::Scalar { text: key, .. } => {
                    if entries.iter().any(|entry| entry.key == key) {
                        let message = format!("`{key}` stands here a second time");
                        let problem = self.problem(key_place, message);
                        self.problems.push(problem);
                    } else {
                        entries.push(Entry { key, key_place, value });
                    }
                }
                Value::Sequence(_) | Value::Mapping(_) => {
                    let problem = self.problem(key_place, "a key has to be a word".into());
                    self.problems.push(problem);
                }
            }
        }
        for merge in merges {
            self.merge(&mut entries, merge);
        }
        Ok(entries)
    }

    /// Adds what `source` has and `entries` lack. Of several sources the first wins.
    fn merge(&mut self, entries: &mut Vec<Entry>, source: Node) {
        match source.value {
            Value::Mapping(more) => {
                for entry in more {
                    if !entries.iter().any(|have| have.key == entry.key) {
                        entries.push(entry);
                    }
                }
            }
            Value::Sequence(sources)
                if sources.iter().all(|s| matches!(s.value, Value::Mapping(_))) =>
            {
                for source in sources {
                    self.merge(entries, source);
                }
            }
            Value::Sequence(_) | Value::Scalar { .. } => {
                let message = "`<<` takes a mapping or a list of mappings".into();
                let problem = self.problem(source.place, message);
                self.problems.push(problem);
            }
        }
    }

    fn expect_next(&mut self, place: Place) -> Result<(Event<'a>, Span), Problem> {
        self.next()?.ok_or_else(|| self.problem(place, "the document ends inside this".into()))
    }
}

fn place_of(line: usize, column: usize) -> Place {
    Place {
        line: u32::try_from(line).unwrap_or(u32::MAX),
        column: u32::try_from(column).unwrap_or(u32::MAX).saturating_add(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Node {
        parse(text, "f").expect("parses").remove(0)
    }

    fn problems(text: &str) -> Vec<String> {
        parse(text, "f").expect_err("is refused").iter().map(ToString::to_string).collect()
    }

    fn text<'n>(node: &'n Node, path: &[&str]) -> &'n str {
        let node = path.iter().fold(node, |node, key| &node.entry(key).expect("is there").value);
        match &node.value {
            Value::Scalar { text, .. } => text,
            _ => panic!("{path:?} is no scalar"),
        }
    }

    #[test]
    fn scalars_stay_as_they_were_written() {
        let node = one("a: 1.10\nb: 0644\nc: \"yes\"\n");
        assert_eq!(text(&node, &["a"]), "1.10");
        assert_eq!(text(&node, &["b"]), "0644");
        assert_eq!(text(&node, &["c"]), "yes");
    }

    #[test]
    fn places_count_from_one() {
        let node = one("a:\n  b: c\n");
        let entry = node.entry("a").and_then(|a| a.value.entry("b")).expect("is there");
        assert_eq!(entry.key_place, Place { line: 2, column: 3 });
        assert_eq!(entry.value.place, Place { line: 2, column: 6 });
    }

    #[test]
    fn an_explicit_key_wins_over_a_merged_one_and_the_first_merge_over_later_ones() {
        let node = one("x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz:\n  <<: [*x, *y]\n  a: 3\n");
        assert_eq!(text(&node, &["z", "a"]), "3");
        assert_eq!(text(&node, &["z", "b"]), "1");
        assert_eq!(text(&node, &["z", "c"]), "2");
    }

    #[test]
    fn every_duplicate_key_and_foreign_tag_is_reported() {
        assert_eq!(
            problems("a: 1\na: 2\nb: !reset []\n"),
            ["f:2:1: `a` stands here a second time", "f:3:11: the tag `!reset` is not supported"],
        );
    }

    #[test]
    fn aliases_that_grow_without_measure_are_refused() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for n in 1..9 {
            let last = n - 1;
            let many = vec![format!("*a{last}"); 10].join(",");
            bomb.push_str(&format!("a{n}: &a{n} [{many}]\n"));
        }
        assert!(problems(&bomb)[0].contains("more than 100000 values"));
    }

    #[test]
    fn anchors_inside_anchors_are_counted_too() {
        let open: String = (0..120).map(|n| format!("&a{n} [")).collect();
        let text = format!("{open}{}{}\n", "x,".repeat(2000), "]".repeat(120));
        assert!(problems(&text)[0].contains("more than 100000 values"));
    }

    #[test]
    fn a_syntax_error_names_its_place() {
        assert!(problems("a: [1\nb: 2\n")[0].starts_with("f:"));
    }

    #[test]
    fn documents_without_content_are_left_out() {
        assert_eq!(parse("---\na: 1\n---\n---\nb: 2\n", "f").expect("parses").len(), 2);
    }
}

//! Variables in a word: `$name`, `${name}` and the forms with a modifier.
//!
//! Quotes are taken off on the way, as a shell would, since a variable in
//! single quotes is not expanded. Modifiers: `:-` `-` `:+` `+` `:?` `?` and the
//! pattern forms `#` `##` `%` `%%` `/` `//`, where `*` and `?` are the wildcards.

use std::iter::Peekable;
use std::str::Chars;

/// How many variables may stand inside each other, as in `${a:-${b:-c}}`.
const DEEPEST: usize = 32;

/// Looks a variable up; `None` is "not set", which is not the same as empty.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Why a word could not be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExpandError {
    /// A quote is opened and not closed.
    #[error("the quote {0} is never closed")]
    Quote(char),
    /// `${` without `}`, or a pattern without its `/`.
    #[error("`${{` is never closed: `{0}` is missing")]
    Unclosed(char),
    /// `${}` and its like.
    #[error("`${{` is followed by no variable name")]
    NoName,
    /// More of them inside each other than anybody can follow.
    #[error("more than {DEEPEST} variables stand inside each other")]
    Deep,
    /// A modifier that means nothing here.
    #[error("the modifier `{0}` in `${{…}}` is not supported")]
    Modifier(String),
    /// A pattern with an escape that means nothing.
    #[error("the pattern `{0}` has an escape of a character that needs none")]
    Pattern(String),
    /// `${name?message}` and the variable is not there.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What the author wrote, or what is wrong.
        message: String,
    },
}

/// The word with quotes removed and variables replaced.
///
/// # Errors
///
/// [`ExpandError`] when a quote or brace is left open, or a variable that was
/// demanded is missing.
pub fn expand(word: &str, escape: char, lookup: Lookup<'_>) -> Result<String, ExpandError> {
    Ok(Expander::new(word, escape, lookup).run(None, false)?.text)
}

/// The text of a heredoc with variables replaced; quotes mean nothing in it.
///
/// # Errors
///
/// As [`expand`].
pub fn expand_document(
    text: &str,
    escape: char,
    lookup: Lookup<'_>,
) -> Result<String, ExpandError> {
    let mut expander = Expander::new(text, escape, lookup);
    expander.quotes = false;
    Ok(expander.run(None, false)?.text)
}

/// Like [`expand`], and then split at white space that was not quoted.
///
/// # Errors
///
/// As [`expand`].
pub fn expand_words(
    words: &str,
    escape: char,
    lookup: Lookup<'_>,
) -> Result<Vec<String>, ExpandError> {
    Ok(Expander::new(words, escape, lookup).run(None, false)?.into_words())
}

/// What has been expanded so far, as one text and as words.
#[derive(Default)]
struct Expanded {
    text: String,
    words: Vec<String>,
    word: String,
}

impl Expanded {
    fn push_quoted(&mut self, text: &str) {
        self.text.push_str(text);
        self.word.push_str(text);
    }

    fn push_splitting(&mut self, text: &str) {
        for character in text.chars() {
            self.text.push(character);
            if !character.is_whitespace() {
                self.word.push(character);
            } else if !self.word.is_empty() {
                self.words.push(std::mem::take(&mut self.word));
            }
        }
    }

    fn into_words(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}

struct Expander<'a> {
    characters: Peekable<Chars<'a>>,
    escape: char,
    lookup: Lookup<'a>,
    /// Whether quotes are quotes, or characters like any other.
    quotes: bool,
    /// How many variables stand around this place.
    depth: usize,
}

impl<'a> Expander<'a> {
    fn new(text: &'a str, escape: char, lookup: Lookup<'a>) -> Self {
        Self { characters: text.chars().peekable(), escape, lookup, quotes: true, depth: 0 }
    }

    /// Reads up to `stop`, or to the end when there is none. Escapes stay in
    /// the text when it will be read again as a pattern.
    fn run(&mut self, stop: Option<char>, keep_escapes: bool) -> Result<Expanded, ExpandError> {
        let mut out = Expanded::default();
        while let Some(character) = self.characters.next() {
            if Some(character) == stop {
                return Ok(out);
            }
            match character {
                '$' => {
                    let value = self.variable()?;
                    out.push_splitting(&value);
                }
                '\'' if self.quotes => out.push_quoted(&self.single_quoted()?),
                '"' if self.quotes => out.push_quoted(&self.double_quoted(keep_escapes)?),
                _ if character == self.escape => {
                    if keep_escapes {
                        out.push_quoted(character.encode_utf8(&mut [0; 4]));
                    }
                    if let Some(escaped) = self.characters.next() {
                        out.push_quoted(escaped.encode_utf8(&mut [0; 4]));
                    }
                }
                _ => out.push_splitting(character.encode_utf8(&mut [0; 4])),
            }
        }
        match stop {
            Some(stop) => Err(ExpandError::Unclosed(stop)),
            None => Ok(out),
        }
    }

    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        let mut text = String::new();
        for character in self.characters.by_ref() {
            if character == '\'' {
                return Ok(text);
            }
            text.push(character);
        }
        Err(ExpandError::Quote('\''))
    }

    fn double_quoted(&mut self, keep_escapes: bool) -> Result<String, ExpandError> {
        let mut text = String::new();
        while let Some(character) = self.characters.next() {
            match character {
                '"' => return Ok(text),
                '$' => text.push_str(&self.variable()?),
                _ if character == self.escape => {
                    let escape = self.escape;
                    let special = |next: &char| matches!(next, '"' | '$') || *next == escape;
                    match self.characters.next_if(special) {
                        Some(escaped) => {
                            if keep_escapes {
                                text.push(character);
                            }
                            text.push(escaped);
                        }
                        None if self.characters.peek().is_some() => text.push(character),
                        None => {}
                    }
                }
                _ => text.push(character),
            }
        }
        Err(ExpandError::Quote('"'))
    }

    /// What stands after a `$`.
    fn variable(&mut self) -> Result<String, ExpandError> {
        if self.characters.next_if_eq(&'{').is_some() {
            self.depth += 1;
            if self.depth > DEEPEST {
                return Err(ExpandError::Deep);
            }
            let value = self.braced();
            self.depth -= 1;
            return value;
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        Ok((self.lookup)(&name).unwrap_or_default())
    }

    fn braced(&mut self) -> Result<String, ExpandError> {
        match self.characters.peek() {
            None => return Err(ExpandError::Unclosed('}')),
            Some('{' | '}' | ':') => return Err(ExpandError::NoName),
            Some(_) => {}
        }
        let name = self.name();
        let value = (self.lookup)(&name);
        match self.characters.next() {
            None => Err(ExpandError::Unclosed('}')),
            Some('}') => Ok(value.unwrap_or_default()),
            Some(':') => match self.characters.next() {
                Some(modifier @ ('-' | '+' | '?')) => {
                    let value = value.filter(|value| !value.is_empty());
                    self.conditional(modifier, name, value, "is not allowed to be empty")
                }
                Some(other) => Err(ExpandError::Modifier(format!(":{other}"))),
                None => Err(ExpandError::Unclosed('}')),
            },
            Some(modifier @ ('-' | '+' | '?')) => {
                self.conditional(modifier, name, value, "is not allowed to be unset")
            }
            Some(modifier @ ('#' | '%')) => self.trimmed(modifier, &value.unwrap_or_default()),
            Some('/') => self.replaced(&value.unwrap_or_default()),
            Some(other) => Err(ExpandError::Modifier(other.to_string())),
        }
    }

    fn conditional(
        &mut self,
        modifier: char,
        name: String,
        value: Option<String>,
        complaint: &str,
    ) -> Result<String, ExpandError> {
        let word = self.run(Some('}'), false)?.text;
        match (modifier, value) {
            ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            (_, Some(value)) => Ok(value),
            ('?', None) => {
                let message = if word.is_empty() { complaint.to_owned() } else { word };
                Err(ExpandError::Required { name, message })
            }
            (_, None) => Ok(word),
        }
    }

    fn trimmed(&mut self, modifier: char, value: &str) -> Result<String, ExpandError> {
        let word = self.run(Some('}'), true)?.text;
        let (pattern, longest) = match word.strip_prefix(modifier) {
            Some(rest) => (rest, true),
            None => (word.as_str(), false),
        };
        let pattern = Pattern::parse(pattern)?;
        let value: Vec<char> = value.chars().collect();
        let kept = match modifier {
            '#' => pattern.prefix(&value, longest).and_then(|length| value.get(length..)),
            _ => pattern.suffix(&value, longest).and_then(|length| value.get(..length)),
        };
        Ok(kept.unwrap_or(&value).iter().collect())
    }

    fn replaced(&mut self, value: &str) -> Result<String, ExpandError> {
        let all = self.characters.next_if_eq(&'/').is_some();
        let pattern = Pattern::parse(&self.run(Some('/'), true)?.text)?;
        let replacement = self.run(Some('}'), true)?.text;
        Ok(pattern.replace(&value.chars().collect::<Vec<_>>(), &replacement, all))
    }

    /// Letters, digits and `_`; or digits alone; or one special parameter.
    fn name(&mut self) -> String {
        let mut name = String::new();
        if let Some(special) = self.characters.next_if(|c| "@*#?-$!".contains(*c)) {
            name.push(special);
            return name;
        }
        let positional = self.characters.peek().is_some_and(char::is_ascii_digit);
        let belongs = |c: &char| {
            if positional { c.is_ascii_digit() } else { c.is_alphanumeric() || *c == '_' }
        };
        while let Some(character) = self.characters.next_if(belongs) {
            name.push(character);
        }
        name
    }
}

enum Token {
    Any,
    One,
    Literal(char),
}

/// A shell pattern without brackets.
struct Pattern(Vec<Token>);

impl Pattern {
    fn parse(text: &str) -> Result<Self, ExpandError> {
        let mut tokens = Vec::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            tokens.push(match character {
                '*' => Token::Any,
                '?' => Token::One,
                '\\' => match characters.next() {
                    Some(escaped @ ('*' | '?' | '\\' | '}' | '/')) => Token::Literal(escaped),
                    _ => return Err(ExpandError::Pattern(text.to_owned())),
                },
                other => Token::Literal(other),
            });
        }
        Ok(Self(tokens))
    }

    /// How much of the start of `text` each possible match takes, as a set of lengths.
    ///
    /// Token by token, so that a hostile pattern costs its length times the text's.
    fn lengths<'a>(tokens: impl Iterator<Item = &'a Token>, text: &[char]) -> Vec<bool> {
        let mut reached = vec![false; text.len() + 1];
        reached[0] = true;
        for token in tokens {
            let mut next = vec![false; reached.len()];
            let mut carried = false;
            for (place, here) in reached.iter().copied().enumerate() {
                carried |= here;
                let fits = match token {
                    Token::Any => {
                        next[place] = carried;
                        continue;
                    }
                    Token::One => place < text.len(),
                    Token::Literal(expected) => text.get(place) == Some(expected),
                };
                if here && fits {
                    next[place + 1] = true;
                }
            }
            reached = next;
        }
        reached
    }

    /// How many characters at the start match.
    fn prefix(&self, text: &[char], longest: bool) -> Option<usize> {
        let lengths = Self::lengths(self.0.iter(), text);
        if longest {
            lengths.iter().rposition(|fits| *fits)
        } else {
            lengths.iter().position(|fits| *fits)
        }
    }

    /// Where the part at the end that matches begins.
    fn suffix(&self, text: &[char], longest: bool) -> Option<usize> {
        let backwards: Vec<char> = text.iter().rev().copied().collect();
        let lengths = Self::lengths(self.0.iter().rev(), &backwards);
        let length = if longest {
            lengths.iter().rposition(|fits| *fits)
        } else {
            lengths.iter().position(|fits| *fits)
        };
        length.map(|length| text.len() - length)
    }

    fn replace(&self, text: &[char], replacement: &str, all: bool) -> String {
        let mut out = String::new();
        let mut rest = text;
        let mut done = false;
        while let Some((first, tail)) = rest.split_first() {
            let found =
                if done { None } else { self.prefix(rest, true).filter(|length| *length > 0) };
            match found {
                Some(length) => {
                    out.push_str(replacement);
                    rest = rest.get(length..).unwrap_or(&[]);
                    done = !all;
                }
                None => {
                    out.push(*first);
                    rest = tail;
                }
            }
        }
        out
    }
}

#[cfg(test)]
#[path = "expand_tests.rs"]
mod tests;

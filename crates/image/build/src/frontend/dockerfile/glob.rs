//! Path patterns, as `COPY` and `.dockerignore` write them.
//!
//! `*` and `?` stop at a slash, `[a-z]` is a class, `\` escapes, and `**`
//! (where asked for) crosses slashes.

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `?`
    One,
    /// `*`
    Any,
    /// `**`, any number of characters and slashes.
    Deep,
    /// `**/`, any number of whole directories, none included.
    Directories,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Glob {
    /// Reads a pattern in which `**` crosses slashes. `None` when it is malformed.
    pub fn deep(pattern: &str) -> Option<Self> {
        Self::compile(pattern, true)
    }

    /// Reads a pattern in which every wildcard stops at a slash. `None` when it is malformed.
    pub fn shallow(pattern: &str) -> Option<Self> {
        Self::compile(pattern, false)
    }

    /// Whether the text has a character that makes it a pattern.
    pub fn is_pattern(text: &str) -> bool {
        text.contains(['*', '?', '[', '\\'])
    }

    fn compile(pattern: &str, deep: bool) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut characters = pattern.chars().peekable();
        while let Some(character) = characters.next() {
            let token = match character {
                '*' if deep && characters.next_if_eq(&'*').is_some() => {
                    if characters.next_if_eq(&'/').is_some() {
                        Token::Directories
                    } else {
                        Token::Deep
                    }
                }
                '*' => Token::Any,
                '?' => Token::One,
                '[' => class(&mut characters)?,
                '\\' => Token::Literal(characters.next()?),
                other => Token::Literal(other),
            };
            tokens.push(token);
        }
        Some(Self { tokens })
    }

    /// Whether the whole of `path` matches.
    pub fn matches(&self, path: &str) -> bool {
        let path: Vec<char> = path.chars().collect();
        // Each row says from which places of the path the tokens so far leave us.
        // Dynamic programming, so that a hostile pattern costs its length times the path's.
        let mut reachable = vec![false; path.len() + 1];
        if let Some(start) = reachable.first_mut() {
            *start = true;
        }
        for token in &self.tokens {
            reachable = token.step(&reachable, &path);
        }
        reachable.last().copied().unwrap_or_default()
    }
}

fn class(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let negated = characters.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let low = match characters.next()? {
            ']' if !ranges.is_empty() => return Some(Token::Class { negated, ranges }),
            ']' | '-' => return None,
            '\\' => characters.next()?,
            other => other,
        };
        let high = if characters.next_if_eq(&'-').is_some() {
            match characters.next()? {
                ']' => return None,
                '\\' => characters.next()?,
                other => other,
            }
        } else {
            low
        };
        ranges.push((low, high));
    }
}

impl Token {
    fn step(&self, from: &[bool], path: &[char]) -> Vec<bool> {
        let mut to = vec![false; from.len()];
        let mut carried = false;
        for (place, reached) in from.iter().enumerate() {
            let next = path.get(place).copied();
            match self {
                Self::Any | Self::Deep | Self::Directories => {
                    carried |= reached;
                    let here = match self {
                        Self::Directories => {
                            // Only at a place reached directly, or just after a slash.
                            *reached || (carried && place > 0 && path.get(place - 1) == Some(&'/'))
                        }
                        _ => carried,
                    };
                    set(&mut to, place, here);
                    if matches!(self, Self::Any) && next == Some('/') {
                        carried = false;
                    }
                }
                Self::Literal(_) | Self::One | Self::Class { .. } => {
                    let fits = next.is_some_and(|character| self.takes(character));
                    set(&mut to, place + 1, *reached && fits);
                }
            }
        }
        to
    }

    fn takes(&self, character: char) -> bool {
        match self {
            Self::Literal(expected) => *expected == character,
            Self::One => character != '/',
            Self::Class { negated, ranges } => {
                let inside = ranges.iter().any(|(low, high)| (*low..=*high).contains(&character));
                character != '/' && inside != *negated
            }
            Self::Any | Self::Deep | Self::Directories => false,
        }
    }
}

fn set(places: &mut [bool], place: usize, value: bool) {
    if let Some(slot) = places.get_mut(place) {
        *slot |= value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, path: &str, expected: bool) {
        let glob = Glob::deep(pattern).expect("pattern is well formed");
        assert_eq!(glob.matches(path), expected, "{pattern} on {path}");
    }

    #[test]
    fn a_star_stops_at_a_slash() {
        check("*.txt", "a.txt", true);
        check("*.txt", "d/a.txt", false);
        check("d/*/c", "d/b/c", true);
        check("d/*/c", "d/b/b/c", false);
        check("a?c", "abc", true);
        check("a?c", "a/c", false);
    }

    #[test]
    fn two_stars_cross_directories() {
        check("**/file", "file", true);
        check("**/file", "a/b/file", true);
        check("**/file", "a/bfile", false);
        check("dir/**", "dir/a/b", true);
        check("a/**/z", "a/z", true);
        check("a/**/z", "a/b/c/z", true);
        check("**", "anything/at/all", true);
        check("**/*.rs", "src/a.rs", true);
    }

    #[test]
    fn classes_and_escapes_are_read() {
        check("[a-c]x", "bx", true);
        check("[^a-c]x", "bx", false);
        check("[^a-c]x", "dx", true);
        check("\\*x", "*x", true);
        check("\\*x", "ax", false);
        assert_eq!(Glob::deep("[a"), None);
        assert_eq!(Glob::deep("a\\"), None);
    }

    #[test]
    fn a_hostile_pattern_costs_little() {
        let pattern = "*a".repeat(200);
        check(&pattern, &"a".repeat(150), false);
    }
}

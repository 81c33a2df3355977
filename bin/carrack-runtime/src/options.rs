//! The command line: flags in any order, among words.
//!
//! A command says in a table what it takes; what is typed is read by the table and the help
//! is written from it, so they cannot disagree. Spellings are those of Go programs, which
//! callers were written for: `--flag value`, `--flag=value`, and one dash as good as two.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::str::FromStr;

use carrack_container_runtime::{ContainerId, InvalidId};

/// What is wrong with a command line.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl From<InvalidId> for Usage {
    fn from(error: InvalidId) -> Self {
        Self(error.to_string())
    }
}

/// One flag.
#[derive(Debug)]
pub(crate) struct Flag {
    /// Without dashes.
    pub(crate) name: &'static str,
    /// Its single letter, if it has one.
    pub(crate) short: Option<char>,
    /// What its value is called; `None` for a switch.
    pub(crate) value: Option<&'static str>,
    pub(crate) help: &'static str,
}

impl Flag {
    pub(crate) const fn switch(name: &'static str, help: &'static str) -> Self {
        Self { name, short: None, value: None, help }
    }

    pub(crate) const fn valued(
        name: &'static str,
        value: &'static str,
        help: &'static str,
    ) -> Self {
        Self { name, short: None, value: Some(value), help }
    }

    pub(crate) const fn short(self, letter: char) -> Self {
        Self { short: Some(letter), ..self }
    }

    fn is_called(&self, name: &str) -> bool {
        let mut letters = name.chars();
        self.name == name || (letters.next() == self.short && letters.next().is_none())
    }
}

/// How many words a command takes besides its flags.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Count {
    Exactly(usize),
    Between(usize, usize),
    /// This many; whatever follows the first word belongs to somebody else's command line.
    Open(usize),
}

/// What was typed.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    given: Vec<(&'static str, OsString)>,
    words: VecDeque<OsString>,
}

/// The flag every command has.
const HELP: Flag = Flag::switch("help", "").short('h');

impl Arguments {
    /// Reads flags up to the first word, which stays in `line` with all behind it.
    pub(crate) fn leading(
        flags: &'static [Flag],
        line: &mut VecDeque<OsString>,
    ) -> Result<Self, Usage> {
        let mut arguments = Self::default();
        while let Some(first) = line.pop_front() {
            if first == "--" {
                break;
            }
            if !is_flag(&first) {
                line.push_front(first);
                break;
            }
            arguments.take(flags, &first, line)?;
        }
        Ok(arguments)
    }

    /// Reads the whole `line`.
    pub(crate) fn read(
        flags: &'static [Flag],
        count: Count,
        mut line: VecDeque<OsString>,
    ) -> Result<Self, Usage> {
        let mut arguments = Self::default();
        while let Some(first) = line.pop_front() {
            if first == "--" {
                arguments.words.append(&mut line);
            } else if is_flag(&first) {
                arguments.take(flags, &first, &mut line)?;
            } else {
                arguments.words.push_back(first);
                if matches!(count, Count::Open(_)) {
                    // A marker right behind the id is ours, later ones are not.
                    line.pop_front_if(|next| next == "--");
                    arguments.words.append(&mut line);
                }
            }
        }
        Ok(arguments)
    }

    fn take(
        &mut self,
        flags: &'static [Flag],
        typed: &OsStr,
        line: &mut VecDeque<OsString>,
    ) -> Result<(), Usage> {
        let bytes = typed.as_bytes();
        let bare = bytes.strip_prefix(b"--").or(bytes.strip_prefix(b"-")).unwrap_or(bytes);
        let (name, attached) = match bare.iter().position(|&byte| byte == b'=') {
            Some(at) => (&bare[..at], Some(OsString::from_vec(bare[at + 1..].to_vec()))),
            None => (bare, None),
        };
        let name = String::from_utf8_lossy(name).into_owned();
        let known = flags.iter().chain([&HELP]).find(|flag| flag.is_called(&name));
        let Some(flag) = known else {
            return Err(Usage(format!("flag provided but not defined: -{name}")));
        };
        let value = match (flag.value, attached) {
            (_, Some(value)) => value,
            (None, None) => "true".into(),
            (Some(value), None) => line
                .pop_front()
                .ok_or_else(|| Usage(format!("flag needs an argument: --{} {value}", flag.name)))?,
        };
        if flag.value.is_none() {
            boolean(flag.name, &value)?;
        }
        self.given.push((flag.name, value));
        Ok(())
    }

    /// Refuses more or fewer words than the command takes.
    pub(crate) fn check_count(&self, command: &str, count: Count) -> Result<(), Usage> {
        let found = self.words.len();
        let wrong = |how: &str, number: usize| {
            Err(Usage(format!(
                "{command:?} requires {how} {number} argument(s), and {found} were given; \
                 see carrack-runtime {command} --help"
            )))
        };
        match count {
            Count::Exactly(number) if found != number => wrong("exactly", number),
            Count::Between(least, _) | Count::Open(least) if found < least => {
                wrong("a minimum of", least)
            }
            Count::Between(_, most) if found > most => wrong("a maximum of", most),
            Count::Exactly(_) | Count::Between(..) | Count::Open(_) => Ok(()),
        }
    }

    /// The last value a flag was given; none when that is empty.
    pub(crate) fn value(&self, name: &str) -> Option<&OsStr> {
        let given = self.given.iter().rev().find(|(given, _)| *given == name);
        given.map(|(_, value)| value.as_os_str()).filter(|value| !value.is_empty())
    }

    /// Whether a flag was given at all, be it empty.
    pub(crate) fn is_given(&self, name: &str) -> bool {
        self.given.iter().any(|(given, _)| *given == name)
    }

    /// Whether a switch is on.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        // It was checked when it was read.
        self.value(name).is_some_and(|value| boolean(name, value).unwrap_or_default())
    }

    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).map(PathBuf::from)
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, Usage> {
        self.value(name).map(|value| as_text(name, value)).transpose()
    }

    /// Every value of a flag that may be repeated.
    pub(crate) fn texts(&self, name: &str) -> Result<Vec<&str>, Usage> {
        let values = self.given.iter().filter(|(given, _)| *given == name);
        values.map(|(name, value)| as_text(name, value)).collect()
    }

    pub(crate) fn number<N: FromStr>(&self, name: &str) -> Result<Option<N>, Usage> {
        self.text(name)?.map(|text| as_number(name, text)).transpose()
    }

    /// The next word, as the name of a container.
    pub(crate) fn id(&mut self) -> Result<ContainerId, Usage> {
        let word = self.words.pop_front().unwrap_or_default();
        if word.is_empty() {
            return Err(Usage("container id cannot be empty".into()));
        }
        let text = word.to_string_lossy();
        Ok(text.parse::<ContainerId>()?)
    }

    /// The words that are left.
    pub(crate) fn rest(&mut self) -> Result<Vec<String>, Usage> {
        let words = std::mem::take(&mut self.words).into_iter();
        words
            .map(|word| word.into_string().map_err(|_| Usage("an argument is not text".into())))
            .collect()
    }
}

/// A single dash is a word, as is a negative number.
fn is_flag(word: &OsStr) -> bool {
    word.as_bytes()
        .strip_prefix(b"-")
        .is_some_and(|rest| rest.first().is_some_and(|first| !first.is_ascii_digit()))
}

fn as_text<'a>(name: &str, value: &'a OsStr) -> Result<&'a str, Usage> {
    value.to_str().ok_or_else(|| Usage(format!("--{name}: the value is not text")))
}

pub(crate) fn as_number<N: FromStr>(name: &str, text: &str) -> Result<N, Usage> {
    text.parse().map_err(|_| Usage(format!("invalid value for {name}: {text:?} is not a number")))
}

/// The spellings Go reads as true and false.
fn boolean(name: &str, value: &OsStr) -> Result<bool, Usage> {
    match value.to_str() {
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(_) | None => {
            Err(Usage(format!("--{name}: {} is neither true nor false", value.display())))
        }
    }
}

pub(crate) fn true_or_false(name: &str, text: &str) -> Result<bool, Usage> {
    boolean(name, OsStr::new(text))
}

//! The command line: options first, in any order, then words.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::output::{Log, LogFormat};

/// What is wrong with a command line.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

/// Options that come before the command.
#[derive(Debug)]
pub(crate) struct Global {
    pub(crate) root: PathBuf,
    pub(crate) log: Log,
    pub(crate) systemd: bool,
    /// Whether the right to make control groups may be missing; found out when not given.
    pub(crate) rootless: Option<bool>,
}

/// Where states are kept unless told otherwise.
const DEFAULT_ROOT: &str = "/run/carrack-runtime";

impl Global {
    /// Reads them up to the command's name.
    pub(crate) fn read(words: &mut Words) -> Result<Self, Usage> {
        let mut global =
            Self { root: DEFAULT_ROOT.into(), log: Log::default(), systemd: false, rootless: None };
        while let Some(option) = words.option()? {
            match option.as_str() {
                "--root" => global.root = words.value(&option)?.into(),
                "--log" => global.log.path = Some(words.value(&option)?.into()),
                "--log-format" => global.log.format = log_format(&words.text(&option)?)?,
                "--debug" => {}
                "--systemd-cgroup" => global.systemd = true,
                "--rootless" => global.rootless = rootless(&words.text(&option)?)?,
                "--version" | "-v" => words.words.insert(0, "version".into()),
                "--help" | "-h" => words.words.insert(0, "help".into()),
                _ => return Err(unknown(&option)),
            }
            if matches!(option.as_str(), "--version" | "-v" | "--help" | "-h") {
                break;
            }
        }
        Ok(global)
    }
}

fn log_format(text: &str) -> Result<LogFormat, Usage> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => Err(Usage(format!("--log-format: {other:?} is neither text nor json"))),
    }
}

fn rootless(text: &str) -> Result<Option<bool>, Usage> {
    match text {
        "auto" => Ok(None),
        "true" => Ok(Some(true)),
        "false" => Ok(Some(false)),
        other => Err(Usage(format!("--rootless: {other:?} is none of true, false and auto"))),
    }
}

pub(crate) fn unknown(option: &str) -> Usage {
    Usage(format!("option {option} is not known here; see carrack-runtime help"))
}

/// The rest of a command line.
#[derive(Debug)]
pub(crate) struct Words {
    words: Vec<OsString>,
    /// The value of `--option=value`.
    attached: Option<OsString>,
}

impl Words {
    pub(crate) fn new(words: impl Iterator<Item = OsString>) -> Self {
        Self { words: words.collect(), attached: None }
    }

    /// The next option, split from its value; `None` at the first word or after `--`.
    pub(crate) fn option(&mut self) -> Result<Option<String>, Usage> {
        if let Some(value) = self.attached.take() {
            return Err(Usage(format!(
                "an option was given a value it does not take: {}",
                value.display()
            )));
        }
        let Some(first) = self.words.first() else { return Ok(None) };
        let Some(text) = first.to_str() else { return Ok(None) };
        if text == "--" {
            self.words.remove(0);
            return Ok(None);
        }
        if !text.starts_with('-') || text == "-" {
            return Ok(None);
        }
        let (name, value) = match text.split_once('=') {
            Some((name, value)) if text.starts_with("--") => {
                (name.to_owned(), Some(OsString::from(value)))
            }
            Some(_) | None => (text.to_owned(), None),
        };
        self.words.remove(0);
        self.attached = value;
        // Callers written for Go programs use one dash and two alike.
        let short = name.len() == 2;
        let name = if short || name.starts_with("--") { name } else { format!("-{name}") };
        Ok(Some(name))
    }

    /// The value of the option just read.
    pub(crate) fn value(&mut self, option: &str) -> Result<OsString, Usage> {
        if let Some(value) = self.attached.take() {
            return Ok(value);
        }
        if self.words.is_empty() {
            return Err(Usage(format!("{option} needs a value")));
        }
        Ok(self.words.remove(0))
    }

    /// The value as text.
    pub(crate) fn text(&mut self, option: &str) -> Result<String, Usage> {
        let value = self.value(option)?;
        value.into_string().map_err(|_| Usage(format!("{option}: the value is not text")))
    }

    /// The value as a number.
    pub(crate) fn number(&mut self, option: &str) -> Result<u32, Usage> {
        let text = self.text(option)?;
        text.parse().map_err(|_| Usage(format!("{option}: {text:?} is not a number")))
    }

    /// The next word, which has a name for people.
    pub(crate) fn word(&mut self, name: &str) -> Result<String, Usage> {
        if self.words.is_empty() {
            return Err(Usage(format!("{name} is missing")));
        }
        let word = self.words.remove(0);
        word.into_string().map_err(|_| Usage(format!("{name} is not text")))
    }

    /// All words that are left.
    pub(crate) fn rest(&mut self) -> Result<Vec<String>, Usage> {
        let rest = std::mem::take(&mut self.words).into_iter();
        rest.map(|word| word.into_string().map_err(|_| Usage("an argument is not text".into())))
            .collect()
    }

    /// Nothing may be left.
    pub(crate) fn finish(&mut self) -> Result<(), Usage> {
        match self.words.first() {
            None => Ok(()),
            Some(word) => Err(Usage(format!("{} is one word too many", word.display()))),
        }
    }
}

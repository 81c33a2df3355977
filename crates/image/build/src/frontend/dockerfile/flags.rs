//! The `--flags` of an instruction.

use super::position::Fault;
use super::statement::{Statement, Word};
use super::support::{self, Support};

/// The flags of one statement, taken out one by one.
pub(super) struct Flags {
    keyword: String,
    left: Vec<(String, Word)>,
}

impl Flags {
    /// Checks that every flag is supported, has a value, and comes once.
    pub(super) fn read(statement: &Statement, faults: &mut Vec<Fault>) -> Self {
        let mut flags = Self { keyword: statement.keyword.clone(), left: Vec::new() };
        for word in &statement.flags {
            match flags.check(word) {
                Ok(flag) => flags.left.push(flag),
                Err(fault) => faults.push(fault),
            }
        }
        flags
    }

    fn check(&self, word: &Word) -> Result<(String, Word), Fault> {
        let text = word.text.trim_start_matches('-');
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let fault = |message: String| Err(Fault::new(word.position, message));
        let keyword = self.keyword.as_str();
        match support::flag(keyword, name) {
            Some(Support::Works(_)) => {}
            Some(Support::Refused(way)) => {
                let way = support::remedy(way);
                return fault(format!("the flag --{name} of {keyword} is not supported{way}"));
            }
            None => return fault(format!("{keyword} has no flag --{name}")),
        }
        if self.left.iter().any(|(taken, _)| taken == name) {
            return fault(format!("the flag --{name} is given twice"));
        }
        match value {
            Some(value) if !value.is_empty() => {
                Ok((name.to_owned(), Word { text: value.to_owned(), position: word.position }))
            }
            _ => fault(format!("the flag --{name} needs a value, as in --{name}=VALUE")),
        }
    }

    pub(super) fn take(&mut self, name: &str) -> Option<Word> {
        let index = self.left.iter().position(|(taken, _)| taken == name)?;
        Some(self.left.swap_remove(index).1)
    }
}

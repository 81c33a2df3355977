//! What a host's facts mean for containers: pure, so that hosts can be made up.

mod access;
mod kernel;
mod resources;

use carrack_linux::host::Host;
use serde::Serialize;

/// How much something matters, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// It is there.
    Ok,
    /// Some containers will miss it.
    Warning,
    /// No container can do without.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Its name.
    pub(crate) name: String,
    /// Whether it is there.
    pub(crate) status: Status,
    /// What was seen.
    pub(crate) found: String,
    /// Who needs it.
    pub(crate) needed_for: String,
    /// What to do about it; nothing where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
}

impl Finding {
    fn ok(name: impl Into<String>, found: impl Into<String>, needed_for: &str) -> Self {
        Self {
            name: name.into(),
            status: Status::Ok,
            found: found.into(),
            needed_for: needed_for.to_owned(),
            remedy: None,
        }
    }

    /// The same, with something wrong.
    fn but(self, status: Status, remedy: impl Into<String>) -> Self {
        Self { status, remedy: Some(remedy.into()), ..self }
    }

    /// Ok if `there`, or else what is wrong.
    fn unless(self, there: bool, status: Status, remedy: impl Into<String>) -> Self {
        if there { self } else { self.but(status, remedy) }
    }
}

/// Everything that was looked at, in the order a person reads it.
pub(crate) fn findings(host: &Host) -> Vec<Finding> {
    [kernel::findings(host), access::findings(host), resources::findings(host)].concat()
}

#[cfg(test)]
mod tests;

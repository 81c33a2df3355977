//! The exit codes, in one table (`docs/reference/exit-codes.md`).

use std::process::ExitCode;

/// The verb failed.
pub(crate) const FAILURE: u8 = 1;
/// The command line or a file that people write is wrong. clap uses it too.
pub(crate) const USAGE: u8 = 2;
/// The machine lacks something: the daemon, a kernel feature, a free port.
pub(crate) const PRECONDITION: u8 = 3;

/// A failure whose exit code is not 1.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Coded {
    pub(crate) code: u8,
    pub(crate) message: String,
}

/// A failure of the person's input: exit code 2.
pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
    Coded { code: USAGE, message: message.into() }.into()
}

/// A failure of the machine: exit code 3.
pub(crate) fn precondition(message: impl Into<String>) -> anyhow::Error {
    Coded { code: PRECONDITION, message: message.into() }.into()
}

/// The exit code that belongs to `error`.
pub(crate) fn code_of(error: &anyhow::Error) -> ExitCode {
    let coded = error.chain().find_map(|cause| cause.downcast_ref::<Coded>());
    ExitCode::from(coded.map_or(FAILURE, |coded| coded.code))
}

//! The exit codes, in one table (`docs/reference/exit-codes.md`).

use std::process::ExitCode;

/// The verb failed.
pub(crate) const FAILURE: u8 = 1;
/// The command line or a file that people write is wrong. clap uses it too.
pub(crate) const USAGE: u8 = 2;
/// The machine lacks something: the daemon, a kernel feature, a free port.
pub(crate) const PRECONDITION: u8 = 3;
/// The person stopped it, as a shell says it: 128 and SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;

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
    // As context it is found by anyhow's own downcast, as a source only in the chain.
    let in_chain = || error.chain().find_map(|cause| cause.downcast_ref::<Coded>());
    let coded = error.downcast_ref::<Coded>().or_else(in_chain);
    ExitCode::from(coded.map_or(FAILURE, |coded| coded.code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(error: anyhow::Error, expected: u8) {
        assert_eq!(format!("{:?}", code_of(&error)), format!("{:?}", ExitCode::from(expected)));
    }

    #[test]
    fn a_code_is_found_wherever_in_the_chain_it_was_put() {
        check(usage("no"), USAGE);
        check(usage("no").context("reading the file"), USAGE);
        check(
            anyhow::anyhow!("cause").context(Coded { code: 127, message: "run".to_owned() }),
            127,
        );
        check(anyhow::anyhow!("cause"), FAILURE);
    }
}

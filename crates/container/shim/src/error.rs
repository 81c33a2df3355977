//! What can go wrong between a client, its shim and the container.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Why asking something of a shim failed.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// The shim does not live any more. What it left is told by [`crate::record`].
    #[error("the shim of {} is gone", .directory.display())]
    Gone {
        /// The shim's directory.
        directory: PathBuf,
    },

    /// The shim answered, and said no.
    #[error("{attempt}: {message}")]
    Refused {
        /// What was being attempted.
        attempt: &'static str,
        /// What sort of refusal it is.
        kind: Refusal,
        /// The shim's reasons, outermost first.
        message: String,
    },

    /// No shim could be started.
    #[error("starting a shim from {} for {}", .program.display(), .directory.display())]
    Spawn {
        /// The program that was to become the shim.
        program: PathBuf,
        /// The shim's directory.
        directory: PathBuf,
        /// Why not.
        source: io::Error,
    },

    /// The shim ended before it had a container. Its own words are in `shim.log`.
    #[error("the shim for {} ended before it had a container: {log}", .directory.display())]
    Stillborn {
        /// The shim's directory.
        directory: PathBuf,
        /// The end of what it wrote to `shim.log`.
        log: String,
    },

    /// The conversation broke for a reason other than the shim's end.
    #[error("{attempt}: speaking with the shim of {}", .directory.display())]
    Conversation {
        /// What was being attempted.
        attempt: &'static str,
        /// The shim's directory.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ShimError {
    /// The exit code Docker gives a command that ends this way: 127 for a program
    /// that is not there, 126 for one that cannot be run, 125 for all else.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Refused { kind: Refusal::ProgramNotFound, .. } => 127,
            Self::Refused { kind: Refusal::ProgramNotExecutable, .. } => 126,
            Self::Refused { kind: Refusal::WrongState | Refusal::Failed, .. }
            | Self::Gone { .. }
            | Self::Spawn { .. }
            | Self::Stillborn { .. }
            | Self::Conversation { .. } => 125,
        }
    }

    /// Whether the shim is dead, so that no second try can help.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Gone { .. })
    }
}

/// What sort of refusal a shim gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The program to run does not exist in the container.
    ProgramNotFound,
    /// The program exists and cannot be executed.
    ProgramNotExecutable,
    /// Not possible in the container's present state.
    WrongState,
    /// It was tried, and did not work.
    Failed,
}

/// An error and all that led to it, in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let reasons = std::iter::successors(Some(error), |error| error.source());
    reasons.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

//! What a build tells while it goes on.

/// Hears what a build does. Called from several threads.
pub trait Progress: Sync {
    /// Takes one event; should return soon, as the build waits.
    fn event(&self, event: BuildEvent);
}

/// Something that happened in a build.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildEvent {
    /// A step begins.
    StepStarted {
        /// Its number, from 1.
        number: usize,
        /// How many there are.
        total: usize,
        /// What it is, such as `[server 2/5] RUN make`.
        name: String,
    },
    /// What the command of a step wrote, as it came.
    StepOutput {
        /// The step's number.
        number: usize,
        /// The bytes, of both streams together.
        bytes: Vec<u8>,
    },
    /// A step is done.
    StepDone {
        /// The step's number.
        number: usize,
        /// Whether an earlier build had done it.
        cached: bool,
        /// How long it took.
        millis: u64,
    },
    /// Something is being fetched.
    Download {
        /// What it is.
        name: String,
        /// Bytes here so far.
        done: u64,
        /// Bytes in all, 0 when not known.
        total: u64,
    },
    /// Something a person should know, and that stops nothing.
    Message(String),
}

/// Hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: BuildEvent) {}
}

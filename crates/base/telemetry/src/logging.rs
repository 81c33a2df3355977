//! Where log lines go and which of them.

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::util::SubscriberInitExt;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For a person at a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// The filter cannot be read.
    #[error(
        "log filter `{filter}` is not understood: write for example `info` or `warn,carrack_dataplane=debug`"
    )]
    Filter {
        /// As it was given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody has set it up before.
    #[error("setting up logging")]
    Already {
        /// What the subscriber said.
        source: tracing_subscriber::util::TryInitError,
    },
}

/// Sends log lines that pass `filter` to stderr, for the whole process.
///
/// # Errors
///
/// [`InitError`] when the filter makes no sense, or when called a second time.
pub fn init(filter: &str, format: Format) -> Result<(), InitError> {
    let parsed = EnvFilter::try_new(filter)
        .map_err(|source| InitError::Filter { filter: filter.to_owned(), source })?;
    let builder = fmt().with_env_filter(parsed).with_writer(io::stderr).with_target(false);
    match format {
        Format::Text => builder.with_ansi(false).finish().try_init(),
        Format::Json => builder.json().flatten_event(true).finish().try_init(),
    }
    .map_err(|source| InitError::Already { source })
}

/// An error with what lies beneath it, on one line, for the log.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        line.push_str(&format!(": {error}"));
        source = error.source();
    }
    line
}

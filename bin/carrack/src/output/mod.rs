//! Everything a person sees: tables and JSON on stdout, messages and progress
//! on stderr.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is where the program speaks")]

pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod units;

use std::io::IsTerminal as _;

use serde::Serialize;

/// How a listing is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    Table,
    /// One JSON document for programs.
    Json,
}

/// Prints one line of data.
pub(crate) fn line(text: impl std::fmt::Display) {
    println!("{text}");
}

/// Prints data as it is, without a line end of our own.
pub(crate) fn raw(bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Prints bytes on stderr as they are: a container's own stderr.
pub(crate) fn raw_stderr(bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stderr().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Prints one JSON document, indented, with a line end.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Says something to the person, beside the data.
pub(crate) fn message(text: impl std::fmt::Display) {
    eprintln!("{text}");
}

/// Prints a failure with everything that led to it, once.
pub(crate) fn failure(error: &anyhow::Error) {
    let mut text = format!("carrack: {error}");
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Some libraries repeat their source in their own text; say it once.
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    eprintln!("{text}");
}

/// Whether colors and moving progress may be used on stderr.
pub(crate) fn is_interactive() -> bool {
    std::io::stderr().is_terminal()
}

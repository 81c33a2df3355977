//! What a caller sees: errors on standard error and in the log it asked for.

use std::error::Error;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Writes a line to standard error.
pub(crate) fn fail(message: &str) {
    // Without a standard error there is nobody to tell.
    writeln!(io::stderr(), "carrack-runtime: {message}").ok();
}

/// Writes to standard output, which may have been closed on the other side.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// An error with its causes, outermost first.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// The spellings of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// `key=value`.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Where a caller reads what went wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    /// The file; without one it is standard error.
    pub(crate) path: Option<PathBuf>,
    pub(crate) format: LogFormat,
    /// Whether steps are told, too.
    pub(crate) debug: bool,
}

impl Log {
    /// Tells the person at standard error and whoever reads the log.
    pub(crate) fn error(&self, message: &str) {
        if self.path.is_some() || self.format == LogFormat::Text {
            fail(message);
        }
        if self.path.is_some() || self.format == LogFormat::Json {
            self.entry("error", message);
        }
    }

    /// Something to know about that stops nothing.
    pub(crate) fn warn(&self, message: &str) {
        self.entry("warning", message);
    }

    /// A step, told only when asked for.
    pub(crate) fn debug(&self, message: impl FnOnce() -> String) {
        if self.debug {
            self.entry("debug", &message());
        }
    }

    /// Appends a line as callers of other runtimes expect to find it.
    fn entry(&self, level: &str, message: &str) {
        let line = line(self.format, level, message, &now());
        let Some(path) = &self.path else {
            io::stderr().write_all(line.as_bytes()).ok(); // As in `fail`.
            return;
        };
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o644)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        if let Err(error) = written {
            fail(&format!("writing the log {}: {error}", path.display()));
        }
    }
}

fn line(format: LogFormat, level: &str, message: &str, time: &str) -> String {
    match format {
        LogFormat::Text => format!("time=\"{time}\" level={level} msg={message:?}\n"),
        LogFormat::Json => {
            let entry = serde_json::json!({ "level": level, "msg": message, "time": time });
            format!("{entry}\n")
        }
    }
}

/// The time in RFC 3339.
fn now() -> String {
    let since =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    time_text(since.as_secs() * 1000)
}

/// Milliseconds since 1970 in RFC 3339, with as many places as it takes.
pub(crate) fn time_text(millis: u64) -> String {
    let (seconds, millis) = (millis / 1000, millis % 1000);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days to civil date, counting years from March so that leap days come last.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let places = if millis == 0 { String::new() } else { format!(".{millis:03}") };
    let places = places.trim_end_matches('0');
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{places}Z")
}

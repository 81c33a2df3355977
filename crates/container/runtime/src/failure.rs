//! Errors of a container's first process, on their way up as data.
//!
//! The process that fails is a copy of ours inside the container's namespaces; all it can
//! still do is write one message to a socket. A [`Failure`] is that message.

use std::fmt;
use std::io;

/// Something a process inside the container attempted in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was attempted, and on what.
    pub attempt: String,
    /// What the system answered, as an error number; zero when we refused ourselves.
    pub errno: i32,
    /// What to do about it, or what was found to be wrong.
    pub hint: String,
    /// What kind of failure it is.
    pub kind: FailureKind,
}

/// Failures a caller may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Anything not below.
    Setup,
    /// There is no program of that name (a shell answers 127).
    ProgramMissing,
    /// The program is there and cannot be executed (a shell answers 126).
    ProgramUnusable,
}

impl Failure {
    /// A failed system call.
    pub(crate) fn new(attempt: impl Into<String>, error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(0);
        let hint = if errno == 0 { error.to_string() } else { String::new() };
        Self { attempt: attempt.into(), errno, hint, kind: FailureKind::Setup }
    }

    /// A refusal of our own.
    pub(crate) fn refused(attempt: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { attempt: attempt.into(), errno: 0, hint: hint.into(), kind: FailureKind::Setup }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: hint.into(), ..self }
    }

    pub(crate) fn kind(self, kind: FailureKind) -> Self {
        Self { kind, ..self }
    }

    /// The code a shell would report for it.
    pub fn exit_code(&self) -> Option<i32> {
        match self.kind {
            FailureKind::Setup => None,
            FailureKind::ProgramMissing => Some(127),
            FailureKind::ProgramUnusable => Some(126),
        }
    }

    /// As bytes for the socket.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let kind = match self.kind {
            FailureKind::Setup => 0,
            FailureKind::ProgramMissing => 1,
            FailureKind::ProgramUnusable => 2,
        };
        format!("{kind}\0{}\0{}\0{}", self.errno, self.attempt, self.hint).into_bytes()
    }

    /// From the socket's bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut fields = text.splitn(4, '\0');
        let kind = match fields.next() {
            Some("1") => FailureKind::ProgramMissing,
            Some("2") => FailureKind::ProgramUnusable,
            Some(_) | None => FailureKind::Setup,
        };
        let errno = fields.next().and_then(|number| number.parse().ok()).unwrap_or(0);
        let attempt = fields.next().unwrap_or("setting up the container").to_owned();
        let hint = fields.next().unwrap_or_default().to_owned();
        Self { attempt, errno, hint, kind }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.attempt)?;
        if self.errno != 0 {
            // Docker's client tells 126 from 125 by "permission denied", in small letters.
            let text = io::Error::from_raw_os_error(self.errno).to_string();
            let (first, rest) = text.split_at_checked(1).unwrap_or(("", &text));
            write!(out, ": {}{rest}", first.to_ascii_lowercase())?;
        }
        if !self.hint.is_empty() {
            write!(out, ": {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// Says what was attempted when a call fails.
pub(crate) trait Attempt<T> {
    /// Turns the error into a [`Failure`] of the attempt.
    fn attempt(self, attempt: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Attempt<T> for Result<T, E> {
    fn attempt(self, attempt: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(attempt(), &error.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_the_socket() {
        let failure = Failure {
            attempt: "executing /bin/x".into(),
            errno: libc::ENOENT,
            hint: "its interpreter /lib/y is missing\0odd".into(),
            kind: FailureKind::ProgramUnusable,
        };
        assert_eq!(Failure::decode(&failure.encode()), failure);
        assert_eq!(failure.exit_code(), Some(126));
    }
}

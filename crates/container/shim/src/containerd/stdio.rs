//! Opening what containerd names for a process's streams.
//!
//! | what is named | what becomes of it |
//! |---|---|
//! | nothing | `/dev/null` |
//! | a path | copied to the FIFO, or file, there |
//! | `file:///path` | appended to the file |
//! | `binary:///path?key=value` | a logger that reads both streams by itself |

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use carrack_container_runtime::Stdio;
use carrack_linux::process::{self, Birth};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::pipe::PipeFlags;

use super::frame::{Code, Status};
use super::messages::Streams as Named;
use super::streams::{Owner, Streams};
use crate::poll::Poll;

/// How long a logger may take to say that it is ready.
const LOGGER_PATIENCE: Duration = Duration::from_secs(10);

/// Whose streams they are, for loggers and pipes.
#[derive(Clone, Copy, Debug)]
pub(super) struct For<'a> {
    pub(super) namespace: &'a str,
    pub(super) container: &'a str,
    pub(super) io_owner: (u32, u32),
}

/// Our ends of a process's streams, and where they lead.
#[derive(Debug, Default)]
pub(super) struct Ends {
    outputs: Vec<(OwnedFd, OwnedFd)>,
    input: Option<(Input, OwnedFd)>,
    terminal: Option<Terminal>,
}

/// An input FIFO, and its writing end.
type Input = (OwnedFd, OwnedFd);

/// Where a terminal's streams lead, before it exists.
#[derive(Debug)]
struct Terminal {
    input: Option<Input>,
    sink: Option<OwnedFd>,
}

/// Opens what is named, and says what to give to the process.
pub(super) fn open(named: &Named, whose: For<'_>) -> Result<(Stdio, Ends), Status> {
    open_all(named, whose).map_err(|error| {
        Status::new(Code::Unknown, format!("opening the streams of {}: {error}", whose.container))
    })
}

fn open_all(named: &Named, whose: For<'_>) -> io::Result<(Stdio, Ends)> {
    let input = (!named.stdin.is_empty()).then(|| open_input(&named.stdin)).transpose()?;
    let logger = match named.stdout.split_once("://") {
        Some(("binary", rest)) => Some(start_logger(rest, false, whose)?),
        Some(("binary-v2", rest)) => Some(start_logger(rest, true, whose)?),
        _ => None,
    };
    if named.terminal {
        let sink = match logger {
            Some((stdout, _)) => Some(nonblocking(stdout)?),
            None if named.stdout.is_empty() => None,
            None => Some(open_output(&named.stdout)?),
        };
        let terminal = Some(Terminal { input, sink });
        return Ok((Stdio::Terminal, Ends { terminal, ..Ends::default() }));
    }
    let mut ends = Ends::default();
    let stdin = match input {
        Some(source) => {
            let (theirs, ours) = pipe(whose.io_owner)?;
            ends.input = Some((source, ours));
            Some(theirs)
        }
        None => None,
    };
    let (stdout, stderr) = match logger {
        Some(pipes) => pipes,
        None => {
            let stderr = match named.stdout.split_once("://") {
                Some(("file", _)) => &named.stdout,
                _ => &named.stderr,
            };
            (ends.output(&named.stdout, whose)?, ends.output(stderr, whose)?)
        }
    };
    Ok((Stdio::Pipes { stdin, stdout, stderr }, ends))
}

impl Ends {
    /// The process's end of an output.
    fn output(&mut self, name: &str, whose: For<'_>) -> io::Result<OwnedFd> {
        if name.is_empty() {
            return Ok(rustix::fs::open(
                "/dev/null",
                OFlags::RDWR | OFlags::CLOEXEC,
                Mode::empty(),
            )?);
        }
        let sink = open_output(name)?;
        let (ours, theirs) = pipe(whose.io_owner)?;
        self.outputs.push((ours, sink));
        Ok(theirs)
    }

    /// Starts copying, now that the process exists; `console` is its terminal.
    pub(super) fn connect(
        self,
        streams: &mut Streams,
        poll: &mut Poll,
        owner: Owner,
        console: Option<&OwnedFd>,
    ) -> io::Result<()> {
        if let Some((source, sink)) = self.input {
            streams.add_input(poll, owner, source, sink)?;
        }
        for (source, sink) in self.outputs {
            streams.add_output(poll, owner, source, Some(sink))?;
        }
        if let (Some(Terminal { input, sink }), Some(console)) = (self.terminal, console) {
            streams.add_output(poll, owner, console.try_clone()?, sink)?;
            if let Some(source) = input {
                streams.add_input(poll, owner, source, console.try_clone()?)?;
            }
        }
        Ok(())
    }
}

/// A pipe of which the process gets one end; it may open it again by its name in `/proc`,
/// so it has to belong to the process's user.
fn pipe((user, group): (u32, u32)) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    if (user, group) != (0, 0) {
        for end in [&read, &write] {
            rustix::fs::fchown(end, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?;
        }
    }
    Ok((read, write))
}

fn nonblocking(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    rustix::io::ioctl_fionbio(&descriptor, true)?;
    Ok(descriptor)
}

fn about(name: &str) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{name}: {error}"))
}

/// An input FIFO, with its writing end.
fn open_input(name: &str) -> io::Result<Input> {
    let open =
        |flags| rustix::fs::open(name, flags | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
    let source = open(OFlags::RDONLY).map_err(|error| about(name)(error.into()))?;
    let hold = open(OFlags::WRONLY).map_err(|error| about(name)(error.into()))?;
    Ok((source, hold))
}

/// Where an output is copied to. A FIFO is opened both ways, so that it is there without a
/// reader, and stays when one comes and goes.
fn open_output(name: &str) -> io::Result<OwnedFd> {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(libc::O_NONBLOCK);
    let path = match name.split_once("://") {
        Some(("file", rest)) => {
            options.append(true).create(true).mode(0o644);
            let path = unescape(rest);
            if let Some(parent) = Path::new(&path).parent() {
                fs::create_dir_all(parent).map_err(about(name))?;
            }
            path
        }
        Some((scheme, _)) => {
            let message = format!("{name}: {scheme} is not known here; use a FIFO, file or binary");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        None => {
            let kind = fs::metadata(name).map_err(about(name))?.file_type();
            if kind.is_fifo() {
                options.read(true);
            } else {
                options.append(true);
            }
            name.to_owned()
        }
    };
    options.open(&path).map(OwnedFd::from).map_err(about(name))
}

/// Starts a logger and waits until it is ready; gives what the process writes to.
fn start_logger(uri: &str, strict: bool, whose: For<'_>) -> io::Result<(OwnedFd, OwnedFd)> {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let path = unescape(path);
    let failed = about(&path);
    let mut arguments = vec![path.clone()];
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        arguments.extend([unescape(key), unescape(value)]);
    }
    let (their_stdout, stdout) = pipe(whose.io_owner)?;
    let (their_stderr, stderr) = pipe(whose.io_owner)?;
    let (ready, their_ready) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let descriptors = [their_stdout.as_fd(), their_stderr.as_fd(), their_ready.as_fd()];
    let program = CString::new(path.as_str())?;
    let arguments = c_strings(arguments)?;
    let mut environment: Vec<_> = std::env::vars_os()
        .map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'='))
        .filter_map(|pair| CString::new(pair).ok())
        .collect();
    environment.extend(c_strings(vec![
        format!("CONTAINER_ID={}", whose.container),
        format!("CONTAINER_NAMESPACE={}", whose.namespace),
    ])?);
    // The shim's loop reaps it.
    process::start(Birth::default(), || {
        let placed = process::place_descriptors(&descriptors, 3);
        if placed.and_then(|()| process::reset_signals()).is_ok() {
            process::execute_path(&program, &arguments, &environment);
        }
    })?;
    drop(their_ready);
    wait_ready(&ready, strict).map_err(failed)?;
    Ok((stdout, stderr))
}

/// A logger says that it is ready by closing its descriptor, a strict one by writing first.
fn wait_ready(ready: &OwnedFd, strict: bool) -> io::Result<()> {
    let patience = LOGGER_PATIENCE.try_into().map_err(io::Error::other)?;
    let mut interest = [PollFd::new(ready, PollFlags::IN)];
    if rustix::event::poll(&mut interest, Some(&patience))? == 0 {
        let message = "the logger does not say that it is ready: it closes descriptor 5 for that";
        return Err(io::Error::new(io::ErrorKind::TimedOut, message));
    }
    let mut byte = [0];
    if rustix::io::read(ready, &mut byte)? == 0 && strict {
        return Err(io::Error::other("the logger ended before it was ready"));
    }
    Ok(())
}

fn c_strings(texts: Vec<String>) -> io::Result<Vec<CString>> {
    texts.into_iter().map(|text| CString::new(text).map_err(io::Error::from)).collect()
}

/// A piece of an address, without its `%20` and the like.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let code = (byte == b'%')
            .then(|| tail.split_at_checked(2))
            .flatten()
            .and_then(|(code, after)| Some((std::str::from_utf8(code).ok()?, after)))
            .and_then(|(code, after)| Some((u8::from_str_radix(code, 16).ok()?, after)));
        let (byte, tail) = code.unwrap_or((byte, tail));
        bytes.push(byte);
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_address_is_read_and_a_broken_escape_is_left_alone() {
        assert_eq!(unescape("/a%20b/%c3%a9"), "/a b/é");
        assert_eq!(unescape("/100%"), "/100%");
        assert_eq!(unescape("/%zz%4"), "/%zz%4");
    }

    #[test]
    fn an_output_of_an_unknown_kind_is_refused_by_name() {
        let error = open_output("syslog:///dev/log").expect_err("refused");
        assert!(error.to_string().contains("syslog"), "{error}");
        let error = open_output("/nowhere/fifo").expect_err("refused");
        assert!(error.to_string().contains("/nowhere/fifo"), "{error}");
    }
}

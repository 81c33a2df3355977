//! The shim itself: one thread, one container.
//!
//! ```text
//! main ─▶ detach ─▶ Shim::create ─▶ answer on the socket we were given as stdin ─▶ run
//! ```
//!
//! It holds a handful of descriptors and waits for them; it copies output and nothing
//! else. The runtime's blocking calls are made between two waits.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use carrack_linux::session::{self, Side};
use rustix::fs::{Mode, OFlags};

use crate::error::{Refusal, chain};
use crate::protocol::{self, Answer, Request};

mod container;
mod log;
mod output;
mod setup;
mod shim;

use shim::Shim;

/// Runs the shim. `args` are those after the word `shim`: `--dir DIR`. `init` is the static
/// program, as the bytes of its file, that is process 1 where one is asked for; without it
/// such containers are refused.
///
/// Returns at once, with the shim in a session of its own; the outcome of creating the
/// container goes to the socket that is standard input. Must be called while the
/// process has one thread and nothing open but its standard streams.
pub fn main(args: impl IntoIterator<Item = OsString>, init: Option<&'static [u8]>) -> ExitCode {
    match begin(args, init) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn begin(args: impl IntoIterator<Item = OsString>, init: Option<&'static [u8]>) -> io::Result<()> {
    let directory = parse(args)?;
    session::close_inherited()?;
    match session::detach()? {
        Side::Parent { .. } => Ok(()),
        Side::Child => {
            // Wherever we were started, that directory's file system can be unmounted.
            rustix::process::chdir("/")?;
            serve(&directory, init)
        }
    }
}

fn parse(args: impl IntoIterator<Item = OsString>) -> io::Result<PathBuf> {
    let args: Vec<_> = args.into_iter().collect();
    match args.as_slice() {
        [flag, directory] if flag == "--dir" => Ok(PathBuf::from(directory)),
        _ => {
            let message = "the shim is started by the engine, as `shim --dir DIR`";
            Err(io::Error::new(io::ErrorKind::InvalidInput, message))
        }
    }
}

fn serve(directory: &Path, init: Option<&[u8]>) -> io::Result<()> {
    let client = take_stdin()?;
    let mut output = Vec::new();
    if protocol::receive::<Request>(&client, &mut output)?.is_none() {
        // Whoever wanted a container went away before asking for it.
        return Ok(());
    }
    match Shim::create(directory, output, init) {
        Ok(shim) => {
            // If the client went away in the meantime, it or another finds us by the
            // socket in the directory.
            protocol::send(&client, &Answer::Done, &[]).ok();
            drop(client);
            shim.run()
        }
        Err(Refused { kind, message }) => {
            protocol::send(&client, &Answer::Refused { kind, message }, &[])
        }
    }
}

/// Takes the socket we were given as standard input, and puts nothing in its place.
fn take_stdin() -> io::Result<UnixStream> {
    let client: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    let nothing = open_nothing()?;
    rustix::stdio::dup2_stdin(&nothing)?;
    Ok(client.into())
}

fn open_nothing() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

/// Writes a line to standard error, which is `shim.log` and all a shim can complain to.
fn complain(message: &str) {
    // Where even that cannot be written nobody is left to be told.
    writeln!(io::stderr(), "carrack-runtime shim: {message}").ok();
}

/// An answer in the negative, on its way to the client.
#[derive(Debug)]
struct Refused {
    kind: Refusal,
    message: String,
}

impl Refused {
    fn wrong_state(message: impl Into<String>) -> Self {
        Self { kind: Refusal::WrongState, message: message.into() }
    }

    /// From an error, with all its reasons and the exit code a shell would give it.
    fn because(error: &(dyn std::error::Error + 'static), exit_code: Option<i32>) -> Self {
        let kind = match exit_code {
            Some(127) => Refusal::ProgramNotFound,
            Some(126) => Refusal::ProgramNotExecutable,
            _ => Refusal::Failed,
        };
        Self { kind, message: chain(error) }
    }
}

/// For `map_err`: an I/O error, and what was being attempted.
fn attempting(attempt: &str) -> impl FnOnce(io::Error) -> Refused {
    move |error| Refused { kind: Refusal::Failed, message: format!("{attempt}: {error}") }
}

//! Process 1 of a container: starts the program, hands it every signal, and reaps what is
//! left behind.

use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use carrack_linux::process::{self, Birth, Child, Exit};
use rustix::io::Errno;

use crate::output;

/// Runs the program at the first argument, with the others as its arguments from the
/// zeroth on, and ends as it ends.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let texts: Result<Vec<CString>, _> =
        arguments.map(|text| CString::new(text.into_vec())).collect();
    match texts.map_err(io::Error::other).and_then(|texts| run(&texts)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::fail(&format!("{}: {error}", crate::INIT_NAME));
            ExitCode::from(125)
        }
    }
}

fn run(texts: &[CString]) -> io::Result<u8> {
    let Some((program, arguments)) = texts.split_first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no program was named"));
    };
    // Blocked before the child exists, so that none is lost.
    process::block_signals()?;
    let child = process::start(Birth::default(), || become_program(program, arguments))?;
    loop {
        match process::wait_for_signal()? {
            libc::SIGCHLD => {
                if let Some(exit) = reap(&child)? {
                    return Ok(u8::try_from(exit.shell_code() & 0xff).unwrap_or(u8::MAX));
                }
            }
            // Stops and resumes of this session are the terminal's business.
            libc::SIGTTIN | libc::SIGTTOU => {}
            signal => {
                // It may have just ended; its SIGCHLD is next.
                process::signal(child.pidfd(), signal).ok();
            }
        }
    }
}

/// Reaps all that has ended; the program's end, if it was among them.
fn reap(child: &Child) -> io::Result<Option<Exit>> {
    loop {
        match process::try_wait_any() {
            Ok(Some((pid, exit))) if pid == child.pid() => return Ok(Some(exit)),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            Err(error) if error.raw_os_error() == Some(Errno::CHILD.raw_os_error()) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
}

/// In a process group of its own, in front of the terminal if there is one.
fn become_program(program: &CString, arguments: &[CString]) {
    let own = rustix::process::getpid();
    // Neither is possible everywhere, and a program runs without.
    rustix::process::setpgid(None, None).ok();
    rustix::termios::tcsetpgrp(rustix::stdio::stdin(), own).ok();
    let environment: Vec<CString> = std::env::vars_os()
        .filter_map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            CString::new(name.into_vec()).ok()
        })
        .collect();
    let error = match process::reset_signals() {
        Ok(()) => process::execute_path(program, arguments, &environment),
        Err(error) => error,
    };
    output::fail(&format!("executing {}: {error}", program.to_string_lossy()));
    process::leave(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
}

//! The OCI runtime, shim and init as one small static program.
//!
//! ```text
//! carrack-runtime create | start | …   the OCI command line        (commands)
//! carrack-runtime shim --dir DIR        one container's keeper      (carrack_shim)
//! carrack-init PROGRAM ARG0 ARGS…       process 1 of a container    (init)
//! ```
//!
//! Everything here is reached before any thread exists, and, but for the init applet,
//! from a sealed copy of this program in memory.

mod commands;
mod features;
mod init;
mod options;
mod output;

use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

/// The name a container's process 1 is started under.
const INIT_NAME: &str = "carrack-init";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    if arguments.next().is_some_and(|name| name == INIT_NAME) {
        return init::main(arguments);
    }
    if let Err(error) = seal() {
        output::fail(&format!("starting from a sealed copy of this program: {error}"));
        return ExitCode::FAILURE;
    }
    let mut arguments = arguments.peekable();
    if arguments.peek().is_some_and(|first| first == "shim") {
        return carrack_shim::server::main(arguments.skip(1));
    }
    commands::main(arguments)
}

/// Starts over from sealed memory unless that has happened (CVE-2019-5736).
fn seal() -> io::Result<()> {
    let text = |text: OsString| CString::new(text.into_vec()).map_err(io::Error::other);
    let arguments = std::env::args_os().map(text).collect::<io::Result<Vec<_>>>()?;
    let variable = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        text(name)
    };
    let environment = std::env::vars_os().map(variable).collect::<io::Result<Vec<_>>>()?;
    carrack_linux::seal::ensure(&arguments, &environment)?;
    // A program executed by descriptor is named after its number.
    rustix::thread::set_name(c"carrack-runtime")?;
    Ok(())
}

//! The OCI runtime and shim as one small static program, with the init inside.
//!
//! ```text
//! carrack-runtime create | start | …   the OCI command line        (commands)
//! carrack-runtime shim --dir DIR        one container's keeper      (carrack_shim)
//! carrack-runtime init-program          writes process 1 to a file  (init)
//! containerd-shim-carrack-v2 …          a pod's keeper              (carrack_shim::containerd)
//! ```
//!
//! Everything here is reached before any thread exists. What lets a process of ours into a
//! container first starts over from a file that cannot be written.

mod cgroups;
mod commands;
mod criu;
mod features;
mod foreground;
mod global;
mod help;
mod init;
mod notify;
mod options;
mod output;
mod stats;
mod terminal;

use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::ExitCode;

use carrack_shim::containerd;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    if Path::new(&name).file_name().is_some_and(|name| name == containerd::NAME) {
        let arguments: Vec<_> = arguments.collect();
        // Only a shim that stays lets a process of ours into a container.
        let sealed = if arguments.iter().any(|word| word == "start") { seal() } else { Ok(()) };
        return match sealed {
            Ok(()) => containerd::main(arguments, features::document),
            Err(code) => code,
        };
    }
    let mut arguments = arguments.peekable();
    if arguments.peek().is_some_and(|first| first == "shim") {
        return match seal() {
            Ok(()) => carrack_shim::server::main(arguments.skip(1), Some(init::PROGRAM)),
            Err(code) => code,
        };
    }
    commands::main(arguments)
}

/// Starts over from a sealed file unless that has happened (CVE-2019-5736).
///
/// For whatever lets a process of ours into a container.
pub(crate) fn seal() -> Result<(), ExitCode> {
    start_sealed().map_err(|error| {
        output::fail(&format!("starting from a sealed copy of this program: {error}"));
        ExitCode::FAILURE
    })
}

fn start_sealed() -> io::Result<()> {
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

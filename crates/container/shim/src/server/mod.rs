//! The shim itself: one thread, one container.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the shim. `args` are those after the word `shim`.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    drop(args.into_iter());
    ExitCode::FAILURE
}

//! A program that is nothing but a shim, for this crate's tests to spawn.

use std::process::ExitCode;

fn main() -> ExitCode {
    // As in the real program, the first argument is the word `shim`.
    carrack_shim::server::main(std::env::args_os().skip(2), None)
}

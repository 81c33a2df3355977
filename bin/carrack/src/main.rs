//! The one program: picks a role or a verb, composes it, talks to people.
//!
//! `main` is a plain function. Roles that serve build their own executor in
//! `compose/`; verbs get a small one of a single thread.

mod cli;
mod compose;
mod doctor;
mod exit;
mod output;
mod settings;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            output::failure(&error);
            exit::code_of(&error)
        }
    }
}

//! Ways out of a container that were found in runtimes since 2019, each tried on the
//! runtime under test. What is asked is what the host looks like afterwards.
//!
//! `docs/reference/escapes.md` says which is which, and what closes it. These need root and
//! the package `busybox-static`; without either they say so and pass.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may fail loudly, and says when it skips"
)]

mod descriptors;
mod devices;
mod links;
mod privileges;
mod proc;
mod program;
mod race;

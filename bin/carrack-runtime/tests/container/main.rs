//! Containers as their callers meet them: a bundle, a command, what comes out.
//!
//! These need root, and the `busybox` of the package `busybox-static`, as the one program
//! of their root file systems; without either they say so and pass.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may fail loudly, and says when it skips"
)]

mod broken;
mod callers;
mod commands;
mod exec;
mod foreground;
mod lifecycle;
mod limits;
mod listener;
mod mounts;
mod namespaces;
mod schedule;
mod schemas;
mod setup;
mod support;
mod users;

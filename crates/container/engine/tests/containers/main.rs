//! An engine, its socket, and real containers. Needs root; says so if it is not.

#![expect(clippy::print_stderr, reason = "a skipped test says why")]

mod application;
mod killed;
mod life;
mod scene;
mod streams;
mod takeover;

//! containerd with our shim: its own daemon and client, as people use them.
//!
//! These need root and the packages `containerd` and `busybox-static`; without any of them
//! they say so and pass. `CARRACK_TEST_CONTAINERD` names a directory with another `containerd`
//! and `ctr` to use, such as of a newer release.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may fail loudly, and says when it skips"
)]

mod daemon;
mod events;
mod image;
mod lifecycle;
mod pods;
mod streams;
mod survival;

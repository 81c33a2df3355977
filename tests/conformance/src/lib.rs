//! What a container runtime owes its callers, tried on ours or on any other.
//!
//! ```console
//! $ cargo test -p carrack-conformance
//! $ CARRACK_CONFORMANCE_RUNTIME=/usr/sbin/runc cargo test -p carrack-conformance
//! ```
//!
//! The runtime is met as its callers meet it: as a program, with a bundle. Without the
//! variable it is the `carrack-runtime` beside these tests, which `cargo build -p
//! carrack-runtime` puts there.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may fail loudly, and says when it skips"
)]

mod bundle;
mod canaries;

pub use bundle::{Bundle, Said, runtime};
pub use canaries::Canaries;

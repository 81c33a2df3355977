//! The runtime before suites and callers that we did not write: what they share.
//!
//! Callers are given directories of their own and an image made from the machine's
//! busybox; whatever is not installed is skipped, and the skip says so.

mod daemon;
mod image;
mod program;
mod suite;

pub use daemon::{Containerd, Dockerd};
pub use image::{IMAGE, write_image, write_layer};
pub use program::{Caller, find, missing, runtime};
pub use suite::{Outcome, Peer, Suite, exempt, table};

//! What tests share: the built program on directories of its own, small images,
//! and a runner for journeys whose steps share one application.
//!
//! Only ever a dev-dependency.

pub mod archive;
mod journey;
mod machine;
mod wait;

pub use journey::Journey;
pub use machine::{Machine, Ran};
pub use wait::{eventually, http_get};

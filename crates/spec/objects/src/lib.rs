//! What people write, and what the control plane is told about what runs.
//!
//! ```text
//! compose.yaml ──compose::parse──▶ Application ──▶ the engine
//! policies.yaml ─policy::parse───▶ AuthorizationPolicy ─▶ the control plane
//!                                  mesh::{Workload, Service} ◀── the engine
//! ```
//!
//! Everything here is pure: text in, values or [`Problem`]s out. No file is
//! opened; whoever parses hands in the text and the variables. Every problem of
//! a text is reported at once, each with its file, line and column.

pub mod compose;
mod cursor;
pub mod mesh;
pub mod policy;
mod problem;
mod yaml;

pub use problem::{Origin, Problem};

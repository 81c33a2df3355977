//! A Dockerfile, read and checked.
//!
//! ```text
//! text ──lines──▶ logical lines ──statement──▶ words ──instruction──▶ Dockerfile
//!                                                             └────▶ every problem
//! ```
//!
//! Reading is pure: the same text gives the same stages, or the same list of
//! problems, each with its line and column. What this frontend does not
//! support is a problem that names it; nothing is skipped in silence.
//!
//! Variables are not expanded here, for their values depend on build arguments
//! and on the base image's configuration. See [`expand`] for how, and
//! [`graph`](crate::graph) for when.

pub mod expand;
mod flags;
mod glob;
pub mod ignore;
pub mod instruction;
mod lines;
mod pairs;
mod parse;
mod position;
mod statement;
mod support;

pub use glob::Glob;
pub use instruction::{Dockerfile, Instruction, Located, Stage};
pub use parse::parse;
pub use position::{Position, Problem};
pub use statement::{Heredoc, Word};
pub use support::reference;

#[cfg(test)]
mod judge_tests;

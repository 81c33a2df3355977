//! Dockerfile or recipe to graph, graph to image.
//!
//! ```text
//! frontend/dockerfile ─▶ graph ─▶ cache ─▶ steps ─▶ export ─▶ image in the store
//! frontend/packages ─────────────────────────────────▶ base image in the store
//! ```
//!
//! Deciding comes first and is pure: the frontend finds every problem of a
//! Dockerfile, the graph leaves nothing to choose. Doing is in `steps`, each step
//! on a root filesystem of its own, and only those that no earlier build has
//! done. Times are clamped, entries sorted, nothing compressed: the same inputs
//! make the same digest.
//!
//! Nothing here reads the environment, and nothing is pulled: a base image is in
//! the store already, or is a recipe.

mod bases;
mod builder;
mod cache;
mod error;
mod export;
mod files;
pub mod frontend;
pub mod graph;
mod progress;
mod request;
mod solve;
mod steps;

pub use builder::{Builder, BuilderConfig};
pub use error::BuildError;
pub use files::FilesError;
pub use progress::{BuildEvent, Progress, Silent};
pub use request::{BuildRequest, Built, DockerfileSource, NamedContext, RunNetwork};
pub use steps::{Interrupter, StepError};

//! Containers, images, volumes and networks as a person means them.

pub mod api;
pub mod client;
mod config;
mod definition;
pub mod plan;
mod signal;

pub use config::{EngineConfig, Gate, GateError, OpenGate};
pub use definition::{Definition, HealthDefinition, MountDefinition};

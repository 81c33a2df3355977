//! Containers, images, volumes and networks as a person means them.
//!
//! ```text
//! person ─▶ client ─▶ api ─▶ serve ─▶ plan ─▶ Definition ─▶ lifecycle ─▶ shim::Client
//!                                              (record)        │
//!               workloads, services ◀── mesh ◀─────────────────┴── watch, health, takeover
//! ```
//!
//! The engine decides what a container is and sees that it lives as it should; it holds no
//! container. Each has a shim of its own, so the engine may end at any point, and the next one
//! takes over. Every intent is a record before it is an effect.
//!
//! What namespaces, cgroups and seccomp filters are is not here: see `runtime`. Neither is how
//! images are made (`build`), nor how connections are carried (the proxy): the engine tells the
//! mesh what runs, and waits at the [`Gate`] until a container's capture stands.

mod answers;
pub mod api;
mod bundle;
pub mod client;
mod config;
mod container;
mod definition;
mod engine;
mod error;
mod health;
mod image;
mod lifecycle;
mod logs;
mod mesh;
mod network;
pub mod plan;
mod project;
mod record;
mod run;
mod serve;
mod session;
mod signal;
mod stats;
mod streams;
mod takeover;
mod user;
mod volume;
mod watch;

pub use config::{EngineConfig, Gate, GateError, OpenGate};
pub use definition::{Definition, HealthDefinition, MountDefinition};
pub use engine::Engine;
pub use error::EngineError;

//! Holds one container: its stdio, signals and exit.
//!
//! ```text
//! engine, build ──Client──▶ DIR/shim.sock ──server──▶ Runtime ──▶ the container
//!                                              │
//!                  DIR/log, log.1 … ◀──────────┤ output
//!                  DIR/exit.json    ◀──────────┘ how it ended
//! ```
//!
//! [`containerd`] is another server around the same runtime, which speaks containerd's
//! protocol in place of ours and holds the containers of a whole pod.
//!
//! One shim per container, a small process with one thread that outlives the
//! client that spawned it. Whoever comes later finds it through the directory:
//! while the shim lives its socket answers; when it is gone, [`Client::connect`]
//! says so with [`ShimError::Gone`], and [`record`] tells what it left behind.
//!
//! What a container is made of (namespaces, cgroups, the root filesystem) is not
//! here: see `runtime`. Restarting one is the engine's business.

pub mod client;
pub mod config;
pub mod containerd;
mod error;
mod poll;
mod protocol;
pub mod record;
pub mod server;

pub use client::{Client, ExecControl, ExecStream, ExitWatch, Streams};
pub use config::{ExecConfig, Log, ShimConfig};
pub use error::{Refusal, ShimError};
pub use protocol::{State, Stats, Status};
pub use record::{Exit, InitProcess};

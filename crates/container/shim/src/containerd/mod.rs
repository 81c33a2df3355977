//! A shim for containerd: its runtime v2 protocol, around our runtime.
//!
//! ```text
//! containerd ──start──▶ start: prints an address ─▶ the shim, one per pod
//!     │                                               │
//!     └──ttrpc──▶ conversation ─▶ service ─▶ task ────┴─▶ Runtime
//!                      events ◀── reap ◀──── the containers' processes
//! ```
//!
//! The program is called by the name `containerd-shim-carrack-v2`. One thread waits for
//! descriptors and does what they ask; the runtime's blocking calls are made between two
//! waits. See <https://github.com/containerd/containerd/blob/main/docs/runtime-v2.md>.

mod conversation;
mod delete;
mod events;
mod flags;
mod frame;
mod log;
mod messages;
mod metrics;
mod options;
mod reap;
mod record;
mod rootfs;
mod service;
mod start;
mod stdio;
mod streams;
mod task;
mod wire;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use flags::{Action, Flags};
use wire::{Any, Message};

/// The name the program has to be called by.
pub const NAME: &str = "containerd-shim-carrack-v2";

/// What the runtime is called in containerd's configuration and commands.
const RUNTIME: &str = "io.containerd.carrack.v2";

/// Runs one command of containerd's.
///
/// `arguments` are those after the program's name; `features` is the runtime's own account of
/// what it can do. Must be called while the process has one thread, from a sealed file.
pub fn main(
    arguments: impl IntoIterator<Item = OsString>,
    features: impl FnOnce() -> serde_json::Value,
) -> ExitCode {
    match run(arguments, features) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where even that cannot be written nobody is left to be told.
            writeln!(io::stderr(), "{NAME}: {error}").ok();
            ExitCode::FAILURE
        }
    }
}

fn run(
    arguments: impl IntoIterator<Item = OsString>,
    features: impl FnOnce() -> serde_json::Value,
) -> io::Result<()> {
    let flags = Flags::read(arguments)
        .map_err(|message| io::Error::new(io::ErrorKind::InvalidInput, message))?;
    match flags.action {
        Some(Action::Start) => start::start(&flags),
        Some(Action::Delete) => delete::delete(&flags),
        Some(Action::Info) => io::stdout().write_all(&info(&features())),
        Some(Action::Version) | None => {
            writeln!(io::stdout(), "{NAME}:\n  Version: {}\n", env!("CARGO_PKG_VERSION"))
        }
    }
}

/// `containerd.types.RuntimeInfo`.
fn info(features: &serde_json::Value) -> Vec<u8> {
    let version = Message::new().text(1, env!("CARGO_PKG_VERSION"));
    let features = Any {
        url: "types.containerd.io/opencontainers/runtime-spec/1/features/Features".into(),
        value: features.to_string().into_bytes(),
    };
    Message::new().text(1, RUNTIME).message(2, &version).message(4, &features.encode()).into_bytes()
}

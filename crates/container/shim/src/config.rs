//! What a shim is told: once when it is spawned, and for each process it adds.

use std::path::PathBuf;

use carrack_oci::runtime::Process;
use serde::{Deserialize, Serialize};

/// The container a shim is to hold. Kept in its directory as `shim.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShimConfig {
    /// The container's id, as the runtime knows it.
    pub id: String,

    /// Directory with the container's `config.json`.
    pub bundle: PathBuf,

    /// Where the runtime keeps its state.
    pub runtime_root: PathBuf,

    /// Give the container a terminal. Its output then comes as one stream.
    #[serde(default)]
    pub terminal: bool,

    /// Keep the container's standard input open for those who attach. Without it
    /// the container reads end-of-file at once.
    #[serde(default)]
    pub open_stdin: bool,

    /// Where the container's output goes, besides to those who attach.
    pub log: Log,

    /// Run a small init as process 1, which reaps orphans and forwards signals.
    #[serde(default)]
    pub init: bool,
}

/// Where a container's output goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "lowercase")]
pub enum Log {
    /// To a file of lines, each with its time, stream, and whether it is whole:
    /// `2026-01-02T03:04:05.678901234Z stdout F text`. A line of more than 16 KiB
    /// is several, all but the last marked `P`; so is an end without a newline.
    Lines {
        /// The file written to. Older ones are `PATH.1`, `PATH.2` and so on.
        path: PathBuf,
        /// A file that would grow beyond this is rotated first.
        max_bytes: u64,
        /// Files kept, the one being written included. At least 1.
        max_files: u32,
    },
    /// To the two descriptors given to [`crate::Client::spawn_with_output`], which
    /// the container inherits: raw bytes, not copied, not visible to those who
    /// attach.
    Descriptors,
    /// Nowhere; only those who attach see it.
    Discard,
}

/// One more process in a running container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExecConfig {
    /// What to run, and as whom. `process.terminal` asks for a terminal.
    pub process: Process,

    /// Connect its standard input to the caller.
    #[serde(default)]
    pub stdin: bool,

    /// Let it outlive the caller, with its streams on `/dev/null`. Otherwise it is
    /// killed when the caller's connection closes.
    #[serde(default)]
    pub detached: bool,
}

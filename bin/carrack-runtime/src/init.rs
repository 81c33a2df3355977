//! The program that is process 1 of a container: `init/`, compiled by `build.rs`.
//!
//! The shim gives it to each container that wants one, as sealed memory of its own, so that
//! nothing of this program stays mapped there. `init-program` hands it to others.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::commands::Failed;

/// The whole executable file.
pub(crate) const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/carrack-init"));

/// The command `init-program`.
pub(crate) fn write(file: Option<PathBuf>) -> Result<ExitCode, Failed> {
    match file {
        None => io::stdout().write_all(PROGRAM)?,
        Some(path) => write_file(&path).map_err(|error| {
            io::Error::new(error.kind(), format!("writing {}: {error}", path.display()))
        })?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Beside the file first, then in its place: the one there may be running.
fn write_file(path: &Path) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(name);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(&beside)
        .and_then(|mut file| file.write_all(PROGRAM))
        .and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        // It may never have been made.
        std::fs::remove_file(&beside).ok();
    }
    written
}

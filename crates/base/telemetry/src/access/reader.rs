//! Reading records back from the files.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::log::numbered;
use super::{DecisionId, Record};

/// More rotated files than this are not looked for.
const MAX_FILES: u32 = 64;

/// Why records could not be read.
#[derive(Debug, thiserror::Error)]
#[error("reading access records from {}", path.display())]
pub struct ReadError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Reads the files a [`Log`](super::Log) writes, while it writes them.
///
/// A line that is not a record, such as the last line of a writer that was killed, is passed over.
#[derive(Clone, Debug)]
pub struct Reader {
    path: PathBuf,
}

impl Reader {
    /// Reads the log whose newest file is `path`. It need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The record with this id, wherever it has been rotated to.
    ///
    /// # Errors
    ///
    /// [`ReadError`] when a file that exists cannot be read.
    pub fn find(&self, id: DecisionId) -> Result<Option<Record>, ReadError> {
        let wanted = format!("{{\"id\":\"{id}\"");
        self.newest_first(|line| {
            line.starts_with(wanted.as_bytes()).then(|| serde_json::from_slice(line).ok()).flatten()
        })
        .map(|mut found| found.pop())
    }

    /// The newest `count` records, newest first.
    ///
    /// # Errors
    ///
    /// [`ReadError`] when a file that exists cannot be read.
    pub fn tail(&self, count: usize) -> Result<Vec<Record>, ReadError> {
        self.tail_matching(count, |_| true)
    }

    /// The newest `count` records that `wanted` says yes to, newest first.
    ///
    /// # Errors
    ///
    /// [`ReadError`] when a file that exists cannot be read.
    pub fn tail_matching(
        &self,
        count: usize,
        wanted: impl Fn(&Record) -> bool,
    ) -> Result<Vec<Record>, ReadError> {
        self.collect(count, |line| {
            serde_json::from_slice(line).ok().filter(|record| wanted(record))
        })
    }

    fn newest_first(
        &self,
        pick: impl Fn(&[u8]) -> Option<Record>,
    ) -> Result<Vec<Record>, ReadError> {
        self.collect(1, pick)
    }

    fn collect(
        &self,
        count: usize,
        pick: impl Fn(&[u8]) -> Option<Record>,
    ) -> Result<Vec<Record>, ReadError> {
        let mut found = Vec::new();
        for number in 0..MAX_FILES {
            let path = numbered(&self.path, number);
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                // The newest is missing for an instant while files are rotated.
                Err(error) if error.kind() == io::ErrorKind::NotFound && number == 0 => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(source) => return Err(ReadError { path, source }),
            };
            for line in bytes.rsplit(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                if found.len() == count {
                    return Ok(found);
                }
                found.extend(pick(line));
            }
        }
        Ok(found)
    }
}

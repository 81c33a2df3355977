//! Writing records, to files of bounded size, off the path of requests.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::Record;

/// Lines waiting for the disk take at most this much memory; beyond it they are counted and lost.
const WAITING_BYTES: usize = 8 << 20;
/// Lines wait at most this long before they are handed to the kernel.
const FLUSH_EVERY: Duration = Duration::from_millis(100);

/// Where records are kept, and how much of them.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// The newest file; older ones have `.1`, `.2`… after its name.
    pub path: PathBuf,
    /// A file that has grown this big is set aside.
    pub max_bytes: u64,
    /// How many files are kept, the newest included.
    pub max_files: u32,
}

impl LogConfig {
    /// Keeps four files of sixteen mebibytes.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), max_bytes: 16 << 20, max_files: 4 }
    }
}

/// Why the access log could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("opening the access log {}: check that its directory exists and is writable", path.display())]
pub struct LogError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// An open access log. Writing to it never waits for the disk.
///
/// A record of a refusal is handed to the kernel at once, so that a person who is told its id can
/// ask about it; others follow within a tenth of a second.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    hurry: bool,
    closed: bool,
}

impl Log {
    /// Opens the log, continuing the file that is there.
    ///
    /// # Errors
    ///
    /// [`LogError`] when the file cannot be opened for appending.
    pub fn open(config: LogConfig) -> Result<Self, LogError> {
        let path = config.path.clone();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wake: Condvar::new(),
            lost: AtomicU64::new(0),
        });
        let opened = Files::open(config).and_then(|files| {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name("access-log".into())
                .spawn(move || write_all(&shared, files))
        });
        match opened {
            Ok(writer) => Ok(Self { shared, writer: Some(writer) }),
            Err(source) => Err(LogError { path, source }),
        }
    }

    /// Appends one record, or counts it as lost when the disk has fallen too far behind.
    pub fn write(&self, record: &Record) {
        let mut state = self.shared.state.lock();
        if state.waiting.len() > WAITING_BYTES {
            drop(state);
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let before = state.waiting.len();
        if serde_json::to_writer(&mut state.waiting, record).is_err() {
            // Not reachable with the types of a record; half a line must not stay all the same.
            state.waiting.truncate(before);
            drop(state);
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.waiting.push(b'\n');
        if record.outcome == super::Outcome::Refused {
            state.hurry = true;
            drop(state);
            self.shared.wake.notify_one();
        }
    }

    /// How many records were lost because the disk was too slow or full.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.wake.notify_one();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has nothing left to hand over.
            writer.join().ok();
        }
    }
}

fn write_all(shared: &Shared, mut files: Files) {
    let mut lines = Vec::new();
    loop {
        let closed = {
            let mut state = shared.state.lock();
            if !state.hurry && !state.closed {
                shared.wake.wait_for(&mut state, FLUSH_EVERY);
            }
            state.hurry = false;
            std::mem::swap(&mut state.waiting, &mut lines);
            state.closed
        };
        if !lines.is_empty()
            && let Err(error) = files.append(&lines)
        {
            let count = lines.iter().filter(|byte| **byte == b'\n').count();
            shared.lost.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
            tracing::warn!(path = %files.config.path.display(), %error, "access records lost");
        }
        lines.clear();
        if closed {
            return;
        }
    }
}

/// The files on disk.
struct Files {
    config: LogConfig,
    file: File,
    size: u64,
}

impl Files {
    fn open(config: LogConfig) -> io::Result<Self> {
        let file = open_append(&config.path)?;
        let mut files = Self { size: file.metadata()?.len(), config, file };
        files.end_torn_line()?;
        Ok(files)
    }

    /// A writer killed in the middle of a line leaves no newline: what follows must not join it.
    fn end_torn_line(&mut self) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        let mut last = [b'\n'];
        if self.size > 0 {
            self.file.read_exact_at(&mut last, self.size - 1)?;
        }
        if last != [b'\n'] {
            self.file.write_all(b"\n")?;
            self.size += 1;
        }
        Ok(())
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.size >= self.config.max_bytes {
            self.rotate()?;
        }
        self.file.write_all(lines)?;
        self.size = self.size.saturating_add(u64::try_from(lines.len()).unwrap_or(u64::MAX));
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let keep = self.config.max_files.max(1);
        for number in (0..keep.saturating_sub(1)).rev() {
            let from = numbered(&self.config.path, number);
            match fs::rename(&from, numbered(&self.config.path, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        if keep == 1 {
            fs::remove_file(&self.config.path)?;
        }
        self.file = open_append(&self.config.path)?;
        self.size = 0;
        Ok(())
    }
}

fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)
}

/// The file that is `number` rotations old.
pub(super) fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

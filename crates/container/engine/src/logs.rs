//! Reading what a container wrote.
//!
//! ```text
//! log.2, log.1, log (lines as CRI writes them) ──▶ LogLine ──since, until, tail──▶ the reader
//! ```
//!
//! A shim writes `log` and, when it is full, renames it to `log.1` and begins anew. Following
//! means holding the file open that was read last: whatever was appended to it before it was
//! renamed is read from it before the next one is opened.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::inotify;

use crate::api::{LogLine, LogStream, LogsRequest};
use crate::streams::Readable;

/// A line longer than this is no line of a log.
const LONGEST: u64 = 1 << 20;

/// Reads one line as the shim writes it: `TIME STREAM F|P TEXT`.
pub(crate) fn parse(line: &[u8]) -> Option<LogLine> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let at = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let stream = match fields.next()? {
        b"stdout" => LogStream::Stdout,
        b"stderr" => LogStream::Stderr,
        _ => return None,
    };
    let partial = match fields.next()? {
        b"F" => false,
        b"P" => true,
        _ => return None,
    };
    let text = String::from_utf8_lossy(fields.next().unwrap_or_default()).into_owned();
    Some(LogLine { at, stream, text, partial })
}

/// The files of a log, the oldest first.
fn files(log: &Path, most: u32) -> Vec<PathBuf> {
    let numbered = |number: u32| {
        let mut name = log.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    let older = (1..=most).rev().map(numbered).filter(|path| path.exists());
    older.chain(Some(log.to_owned()).filter(|path| path.exists())).collect()
}

/// A log being read: first what is there, then, if asked, what comes.
#[derive(Debug)]
pub(crate) struct Reader {
    log: PathBuf,
    request: LogsRequest,
    current: Option<Open>,
}

#[derive(Debug)]
struct Open {
    inode: u64,
    file: BufReader<File>,
    /// The beginning of a line whose end is not written yet.
    unfinished: Vec<u8>,
}

impl Reader {
    pub(crate) fn new(log: PathBuf, request: LogsRequest) -> Self {
        Self { log, request, current: None }
    }

    /// What is there now, as far as it was asked for. Called first, once.
    pub(crate) fn existing(&mut self, most_files: u32) -> io::Result<Vec<LogLine>> {
        let mut lines = VecDeque::new();
        let tail = self.request.tail.unwrap_or(usize::MAX);
        for path in files(&self.log, most_files) {
            let Some(open) = Open::at(&path)? else { continue };
            let open = self.current.insert(open);
            while let Some(line) = open.next()? {
                if !wanted(&self.request, line.at) {
                    continue;
                }
                lines.push_back(line);
                if lines.len() > tail {
                    lines.pop_front();
                }
            }
        }
        Ok(lines.into())
    }

    /// What was written since the last call. Empty when nothing was.
    pub(crate) fn more(&mut self) -> io::Result<Vec<LogLine>> {
        let mut lines = Vec::new();
        loop {
            if let Some(open) = &mut self.current {
                while let Some(line) = open.next()? {
                    if wanted(&self.request, line.at) {
                        lines.push(line);
                    }
                }
            }
            // The file was read to its end after its name was given to another, or this is it.
            let now = Open::at(&self.log)?;
            match (&self.current, now) {
                (_, None) => return Ok(lines),
                (Some(open), Some(now)) if open.inode == now.inode => return Ok(lines),
                (_, Some(now)) => {
                    // One last look: lines may have come between reading and opening.
                    if let Some(open) = &mut self.current {
                        while let Some(line) = open.next()? {
                            if wanted(&self.request, line.at) {
                                lines.push(line);
                            }
                        }
                    }
                    self.current = Some(now);
                }
            }
        }
    }

    /// Whether no later line can be wanted.
    pub(crate) fn is_over(&self) -> bool {
        self.request.until.is_some_and(|until| until < Timestamp::now())
    }
}

fn wanted(request: &LogsRequest, at: Timestamp) -> bool {
    request.since.is_none_or(|since| at >= since) && request.until.is_none_or(|until| at <= until)
}

impl Open {
    fn at(path: &Path) -> io::Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => {
                let inode = file.metadata()?.ino();
                Ok(Some(Self { inode, file: BufReader::new(file), unfinished: Vec::new() }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next whole line that is one.
    fn next(&mut self) -> io::Result<Option<LogLine>> {
        loop {
            let mut limited = io::Read::take(&mut self.file, LONGEST);
            limited.read_until(b'\n', &mut self.unfinished)?;
            if self.unfinished.last() != Some(&b'\n') {
                if u64::try_from(self.unfinished.len()).is_ok_and(|length| length >= LONGEST) {
                    self.unfinished.clear();
                    continue;
                }
                return Ok(None);
            }
            let line = parse(&self.unfinished);
            self.unfinished.clear();
            if line.is_some() {
                return Ok(line);
            }
        }
    }
}

/// Tells when something was written to a directory's files.
#[derive(Debug)]
pub(crate) struct Changes {
    inotify: Readable,
}

impl Changes {
    pub(crate) fn of(directory: &Path) -> io::Result<Self> {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let inotify = inotify::init(flags)?;
        let what = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::DELETE_SELF;
        inotify::add_watch(&inotify, directory, what)?;
        Ok(Self { inotify: Readable::of(inotify.as_fd())? })
    }

    /// Resolves once something was written since the last call.
    pub(crate) async fn next(&self) -> io::Result<()> {
        let mut buffer = [0_u8; 4096];
        loop {
            self.inotify.wait().await?;
            match self.inotify.take(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                taken => return taken.map(|_| ()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    fn line(second: u32, text: &str) -> String {
        format!("2026-01-02T03:04:{second:02}.000000001Z stdout F {text}\n")
    }

    fn texts(lines: &[LogLine]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn a_line_is_read_as_the_shim_writes_it() {
        let read = parse(b"2026-01-02T03:04:05.678901234Z stderr P two words\n").expect("a line");
        assert_eq!(read.stream, LogStream::Stderr);
        assert_eq!(read.text, "two words");
        assert!(read.partial);
        assert_eq!(read.at.to_string(), "2026-01-02T03:04:05.678901234Z");
        assert_eq!(parse(b"2026-01-02T03:04:05Z stdout F \n").map(|l| l.text), Some(String::new()));
        assert!(parse(b"garbage\n").is_none());
    }

    #[test]
    fn the_tail_is_taken_across_rotated_files() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        fs::write(dir.path().join("log.2"), line(1, "a")).expect("log.2");
        fs::write(dir.path().join("log.1"), line(2, "b")).expect("log.1");
        fs::write(&log, line(3, "c")).expect("log");
        let all = Reader::new(log.clone(), LogsRequest::default()).existing(4).expect("lines");
        assert_eq!(texts(&all), ["a", "b", "c"]);
        let tail = LogsRequest { tail: Some(2), ..LogsRequest::default() };
        assert_eq!(texts(&Reader::new(log.clone(), tail).existing(4).expect("lines")), ["b", "c"]);
        let since = LogsRequest {
            since: Some("2026-01-02T03:04:02.5Z".parse().expect("a time")),
            ..LogsRequest::default()
        };
        assert_eq!(texts(&Reader::new(log, since).existing(4).expect("lines")), ["c"]);
    }

    #[test]
    fn following_goes_over_a_rotation_without_losing_a_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        fs::write(&log, line(1, "a")).expect("log");
        let mut reader = Reader::new(log.clone(), LogsRequest::default());
        assert_eq!(texts(&reader.existing(4).expect("lines")), ["a"]);
        let append = |path: &Path, text: &str| {
            let mut file = File::options().append(true).open(path).expect("log");
            file.write_all(text.as_bytes()).expect("written");
        };
        append(&log, &line(2, "b"));
        fs::rename(&log, dir.path().join("log.1")).expect("rotated");
        fs::write(&log, line(3, "c")).expect("log");
        assert_eq!(texts(&reader.more().expect("lines")), ["b", "c"]);
        assert_eq!(texts(&reader.more().expect("lines")), [""; 0]);
        append(&log, "2026-01-02T03:04:04Z stdout F hal");
        assert_eq!(texts(&reader.more().expect("lines")), [""; 0]);
        append(&log, "f\n");
        assert_eq!(texts(&reader.more().expect("lines")), ["half"]);
    }
}

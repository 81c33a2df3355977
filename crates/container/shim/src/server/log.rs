//! The container's output as lines in files of bounded size.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// A longer line is written in pieces.
pub(super) const LINE_MAX: usize = 16 << 10;

/// Which of a container's outputs something was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// How every line of one read begins. Writing out a time takes longer than copying a
/// line does.
#[derive(Debug)]
struct Header(String);

impl Header {
    fn new(now: Timestamp, stream: Stream) -> Self {
        Self(format!("{now:.9} {} ", stream.name()))
    }
}

/// Puts the bytes of one stream together into lines.
#[derive(Debug)]
pub(super) struct Lines {
    stream: Stream,
    partial: Vec<u8>,
}

impl Lines {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, partial: Vec::new() }
    }

    /// Takes in bytes, and writes to `log` what is complete by now.
    pub(super) fn feed(&mut self, mut bytes: &[u8], log: &mut LogFile, now: Timestamp) {
        let header = Header::new(now, self.stream);
        while !bytes.is_empty() {
            let room = LINE_MAX - self.partial.len();
            let window = bytes.get(..room).unwrap_or(bytes);
            let end = window.iter().position(|byte| *byte == b'\n');
            let (line, rest) = bytes.split_at(end.unwrap_or(window.len()));
            self.partial.extend_from_slice(line);
            bytes = if end.is_some() { rest.get(1..).unwrap_or_default() } else { rest };
            if end.is_some() || self.partial.len() == LINE_MAX {
                log.push(&header, end.is_some(), &self.partial);
                self.partial.clear();
            }
        }
        log.flush();
    }

    /// Writes what came without a newline at its end.
    pub(super) fn finish(&mut self, log: &mut LogFile, now: Timestamp) {
        if !self.partial.is_empty() {
            log.push(&Header::new(now, self.stream), false, &self.partial);
            self.partial = Vec::new();
            log.flush();
        }
    }
}

/// A log file with its older siblings.
///
/// Never fails the container: a line that cannot be written is counted and dropped.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    max_bytes: u64,
    max_files: u32,
    file: File,
    size: u64,
    buffer: Vec<u8>,
    buffered_lines: u64,
    lost_lines: u64,
}

impl LogFile {
    /// Opens the log for appending.
    pub(super) fn open(path: &Path, max_bytes: u64, max_files: u32) -> io::Result<Self> {
        let file = open(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            max_bytes,
            max_files: max_files.max(1),
            file,
            size,
            buffer: Vec::new(),
            buffered_lines: 0,
            lost_lines: 0,
        })
    }

    pub(super) fn lost_lines(&self) -> u64 {
        self.lost_lines
    }

    fn push(&mut self, header: &Header, whole: bool, text: &[u8]) {
        let tag: &[u8] = if whole { b"F " } else { b"P " };
        let parts = [header.0.as_bytes(), tag, text, b"\n"];
        let length = length(parts.iter().map(|part| part.len()).sum());
        if self.size + self::length(self.buffer.len()) + length > self.max_bytes {
            self.flush();
            self.rotate();
        }
        for part in parts {
            self.buffer.extend_from_slice(part);
        }
        self.buffered_lines += 1;
    }

    /// Hands everything pushed to the kernel.
    fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        match self.file.write_all(&self.buffer) {
            Ok(()) => self.size += length(self.buffer.len()),
            Err(_) => {
                self.lost_lines += self.buffered_lines;
                // Half a line would spoil the next one. If even this fails, the file
                // has a line that readers skip.
                self.file.set_len(self.size).ok();
            }
        }
        self.buffer.clear();
        self.buffered_lines = 0;
    }

    /// Begins a new file, and forgets the oldest. Where that cannot be done the present
    /// one begins anew, so that the bound holds.
    fn rotate(&mut self) {
        if self.size == 0 {
            return;
        }
        match self.shift() {
            Ok(file) => self.file = file,
            Err(_) => {
                self.file.set_len(0).ok();
            }
        }
        self.size = self.file.metadata().map_or(0, |now| now.len());
    }

    fn shift(&self) -> io::Result<File> {
        for number in (1..self.max_files).rev() {
            let from = if number == 1 { self.path.clone() } else { self.older(number - 1) };
            match fs::rename(from, self.older(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.max_files == 1 {
            fs::remove_file(&self.path)?;
        }
        open(&self.path)
    }

    fn older(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_767_323_045, 6);

    struct Bench {
        directory: tempfile::TempDir,
        log: LogFile,
        lines: Lines,
    }

    impl Bench {
        fn new(max_bytes: u64, max_files: u32) -> Self {
            let directory = tempfile::tempdir().expect("directory");
            let path = directory.path().join("log");
            let log = LogFile::open(&path, max_bytes, max_files).expect("opened");
            Self { directory, log, lines: Lines::new(Stream::Stdout) }
        }

        fn feed(&mut self, bytes: &[u8]) {
            self.lines.feed(bytes, &mut self.log, NOW);
        }

        fn text(&self, name: &str) -> String {
            fs::read_to_string(self.directory.path().join(name)).expect("read")
        }

        fn files(&self) -> Vec<String> {
            let entries = fs::read_dir(self.directory.path()).expect("listed");
            let name = |entry: io::Result<fs::DirEntry>| {
                entry.expect("entry").file_name().into_string().expect("text")
            };
            let mut names: Vec<_> = entries.map(name).collect();
            names.sort();
            names
        }
    }

    #[test]
    fn a_line_has_its_time_stream_and_tag_also_when_it_came_in_pieces() {
        let mut bench = Bench::new(1 << 20, 2);
        bench.feed(b"hel");
        bench.feed(b"lo\n\nlast");
        bench.lines.finish(&mut bench.log, NOW);
        let at = "2026-01-02T03:04:05.000000006Z stdout";
        assert_eq!(bench.text("log"), format!("{at} F hello\n{at} F \n{at} P last\n"));
    }

    #[test]
    fn a_line_without_end_is_written_in_pieces() {
        let mut bench = Bench::new(1 << 20, 2);
        let mut long = vec![b'x'; LINE_MAX * 2];
        long.push(b'\n');
        bench.feed(&long);
        let text = bench.text("log");
        let tags: Vec<_> = text.lines().map(|line| line.split(' ').nth(2).expect("tag")).collect();
        assert_eq!(tags, ["P", "P", "F"]);
    }

    #[test]
    fn no_file_outgrows_the_bound_and_no_more_than_asked_for_are_kept() {
        let mut bench = Bench::new(1000, 3);
        for number in 0..200 {
            bench.feed(format!("line {number}\n").as_bytes());
        }
        assert_eq!(bench.files(), ["log", "log.1", "log.2"]);
        for name in bench.files() {
            assert!(bench.text(&name).len() <= 1000, "{name}");
        }
        let newest = bench.text("log");
        assert!(newest.ends_with("line 199\n"));
        let joined = bench.text("log.2") + &bench.text("log.1") + &newest;
        let first: u32 = joined.split_whitespace().nth(4).expect("number").parse().expect("number");
        assert_eq!(joined.lines().count(), usize::try_from(200 - first).expect("fits"));
    }

    #[test]
    fn a_single_file_begins_anew() {
        let mut bench = Bench::new(200, 1);
        for number in 0..50 {
            bench.feed(format!("line {number}\n").as_bytes());
        }
        assert_eq!(bench.files(), ["log"]);
        assert!(bench.text("log").len() <= 200);
    }

    /// What was written, from what the log says of it.
    fn reconstruct(log: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for line in log.split_inclusive(|byte| *byte == b'\n') {
            let mut fields = line.splitn(4, |byte| *byte == b' ').skip(2);
            let whole = fields.next().expect("a tag") == b"F";
            let text = fields.next().expect("a text");
            bytes.extend_from_slice(if whole { text } else { &text[..text.len() - 1] });
        }
        bytes
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]
        #[test]
        fn every_byte_is_found_again_however_it_came(
            chunks in proptest::collection::vec(
                proptest::collection::vec(proptest::sample::select(b"\n\0 ax".to_vec()), 0..40_000),
                0..4,
            ),
        ) {
            let mut bench = Bench::new(u64::MAX, 2);
            for chunk in &chunks {
                bench.feed(chunk);
            }
            bench.lines.finish(&mut bench.log, NOW);
            let log = fs::read(bench.directory.path().join("log")).expect("read");
            proptest::prop_assert_eq!(reconstruct(&log), chunks.concat());
        }
    }

    #[test]
    fn lines_a_full_disk_does_not_take_are_counted() {
        let mut log = LogFile::open(Path::new("/dev/full"), 1 << 20, 2).expect("opened");
        let mut lines = Lines::new(Stream::Stderr);
        lines.feed(b"one\ntwo\nthree", &mut log, NOW);
        assert_eq!(log.lost_lines(), 2);
    }

    #[test]
    fn a_log_taken_up_again_keeps_what_is_there_and_counts_it() {
        let mut bench = Bench::new(100, 2);
        bench.feed(b"before\n");
        bench.log = LogFile::open(&bench.directory.path().join("log"), 100, 2).expect("opened");
        bench.feed(b"after\n");
        bench.feed(b"much later\n");
        assert!(bench.text("log.1").contains("before"));
        assert!(bench.text("log").contains("much later"));
    }
}

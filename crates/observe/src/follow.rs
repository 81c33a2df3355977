//! Following the access log while it is written and rotated.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use carrack_telemetry::access::{Outcome, Record};

/// Records and refusals kept at hand.
const KEPT: usize = 200;

/// Of one look, at most this much is read; what lies before it was too much for
/// a page that shows the newest.
const LOOK_BYTES: u64 = 8 << 20;

/// Of what was read, at most so many lines at the end are kept as records.
/// Refusals are sought in all of it.
const LINES: usize = KEPT;

/// How a refusal is recognized without understanding its line.
const REFUSED: &str = "\"outcome\":\"refused\"";

/// Keeps the newest records of a log.
#[derive(Debug)]
pub(crate) struct Follower {
    path: PathBuf,
    open: Option<Open>,
    records: VecDeque<Record>,
    refusals: VecDeque<Record>,
}

#[derive(Debug)]
struct Open {
    file: File,
    inode: u64,
    offset: u64,
    /// The start of a line whose end is not written yet.
    partial: Vec<u8>,
}

impl Follower {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            open: None,
            records: VecDeque::new(),
            refusals: VecDeque::new(),
        }
    }

    /// Records, newest first.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().rev()
    }

    /// Refusals, newest first, each by the record of the end that decided.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = &Record> {
        self.refusals.iter().rev()
    }

    /// Takes in what was written since the last look.
    pub(crate) fn look(&mut self) -> io::Result<()> {
        // What is left of a file that was set aside, then what is in the new one.
        if let Some(mut open) = self.open.take() {
            self.read(&mut open)?;
            self.open = Some(open);
        }
        let inode = match std::fs::metadata(&self.path) {
            Ok(metadata) => metadata.ino(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if self.open.as_ref().is_some_and(|open| open.inode == inode) {
            return Ok(());
        }
        let file = File::open(&self.path)?;
        let inode = file.metadata()?.ino();
        let mut open = Open { file, inode, offset: 0, partial: Vec::new() };
        self.read(&mut open)?;
        self.open = Some(open);
        Ok(())
    }

    fn read(&mut self, open: &mut Open) -> io::Result<()> {
        let length = open.file.metadata()?.len();
        if length < open.offset {
            // Somebody emptied it.
            (open.offset, open.partial) = (0, Vec::new());
        }
        if length - open.offset > LOOK_BYTES {
            // The line this falls into is cut in two and will not be understood.
            (open.offset, open.partial) = (length - LOOK_BYTES, Vec::new());
        }
        open.file.seek(SeekFrom::Start(open.offset))?;
        let mut bytes = std::mem::take(&mut open.partial);
        let read = (&mut open.file).take(length - open.offset).read_to_end(&mut bytes)?;
        open.offset += u64::try_from(read).unwrap_or(u64::MAX);
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        open.partial = bytes.split_off(end);
        self.take(&String::from_utf8_lossy(&bytes));
        Ok(())
    }

    fn take(&mut self, text: &str) {
        let lines: Vec<_> = text.lines().collect();
        let newest = lines.len().saturating_sub(LINES);
        for (number, line) in lines.into_iter().enumerate() {
            let is_refusal = line.contains(REFUSED);
            if number < newest && !is_refusal {
                continue;
            }
            let Ok(record) = serde_json::from_str::<Record>(line) else { continue };
            // The end that decided has written its own record of the same refusal.
            if record.outcome == Outcome::Refused && record.refused_by.is_none() {
                push(&mut self.refusals, record.clone());
            }
            push(&mut self.records, record);
        }
    }
}

fn push(list: &mut VecDeque<Record>, record: Record) {
    if list.len() == KEPT {
        list.pop_front();
    }
    list.push_back(record);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    fn line(id: u64, outcome: &str, more: &str) -> String {
        format!(
            "{{\"id\":\"{id:016x}\",\"at\":\"2026-01-02T03:04:05Z\",\"reporter\":\"destination\",\"protocol\":\"http\",\"source\":{{\"namespace\":\"s\",\"service\":\"a\"}},\"destination\":{{\"namespace\":\"s\",\"service\":\"b\"}},\"port\":80,\"outcome\":\"{outcome}\",\"duration_us\":5,\"bytes_in\":1,\"bytes_out\":2{more}}}\n"
        )
    }

    fn ids<'r>(records: impl Iterator<Item = &'r Record>) -> Vec<String> {
        records.map(|record| record.id.to_string().trim_start_matches('0').to_owned()).collect()
    }

    #[test]
    fn lines_are_taken_in_as_they_are_completed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("access.log");
        let mut follower = Follower::new(&path);
        follower.look().expect("a missing log is no error");
        let second = line(2, "refused", "");
        let (start, end) = second.split_at(30);
        fs::write(&path, line(1, "answered", "") + start).expect("writes");
        follower.look().expect("looks");
        assert_eq!(ids(follower.records()), ["1"]);
        let mut file = fs::OpenOptions::new().append(true).open(&path).expect("opens");
        file.write_all(end.as_bytes()).expect("writes");
        follower.look().expect("looks");
        assert_eq!(ids(follower.records()), ["2", "1"]);
        assert_eq!(ids(follower.refusals()), ["2"]);
    }

    #[test]
    fn a_log_that_is_set_aside_is_read_to_its_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("access.log");
        fs::write(&path, line(1, "answered", "")).expect("writes");
        let mut follower = Follower::new(&path);
        follower.look().expect("looks");
        let mut file = fs::OpenOptions::new().append(true).open(&path).expect("opens");
        file.write_all(line(2, "answered", "").as_bytes()).expect("writes");
        fs::rename(&path, directory.path().join("access.log.1")).expect("renames");
        fs::write(&path, line(3, "answered", "")).expect("writes");
        follower.look().expect("looks");
        assert_eq!(ids(follower.records()), ["3", "2", "1"]);
    }

    #[test]
    fn a_refusal_is_listed_once_by_the_end_that_decided() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("access.log");
        let twin = line(2, "refused", ",\"refused_by\":\"0000000000000001\"");
        fs::write(&path, line(1, "refused", "") + &twin + "not a record\n").expect("writes");
        let mut follower = Follower::new(&path);
        follower.look().expect("looks");
        assert_eq!(ids(follower.refusals()), ["1"]);
        assert_eq!(ids(follower.records()), ["2", "1"]);
    }

    #[test]
    fn only_the_newest_are_kept_but_no_refusal_is_missed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("access.log");
        let mut text = line(1, "refused", "");
        (2..1000).for_each(|id| text.push_str(&line(id, "answered", "")));
        fs::write(&path, text).expect("writes");
        let mut follower = Follower::new(&path);
        follower.look().expect("looks");
        assert_eq!(follower.records().count(), KEPT);
        assert_eq!(ids(follower.refusals()), ["1"]);
    }
}

//! A writer is killed with `kill -9` at any moment; what it said it kept is there,
//! whole, and nothing else is.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use carrack_oci::Digest;
use carrack_store::{BlobStore as _, LocalBlobs, LocalRecords, Record, Table};
use serde::{Deserialize, Serialize};

/// Where the writer writes; set only for the child this test starts.
const PLACE: &str = "CARRACK_TEST_STORE";

#[derive(Serialize, Deserialize)]
struct Kept {
    digest: Digest,
}

impl Record for Kept {
    const TABLE: &'static str = "kept";
    const VERSION: u32 = 1;
}

/// Writes blobs and a record of each, and says so, until it is killed.
#[test]
#[ignore = "the writer that `what_was_acknowledged_survives_a_kill` starts and kills"]
fn writer() {
    let Some(place) = std::env::var_os(PLACE) else {
        println!("skipped: started by hand");
        return;
    };
    let place = Path::new(&place);
    let blobs = LocalBlobs::open(place).unwrap();
    let records = LocalRecords::open(place.join("records.db")).unwrap();
    let table: Table<Kept> = Table::new(Arc::new(records));
    let mut output = std::io::stderr();
    for number in 0_u64.. {
        let mut ingest = blobs.ingest().unwrap();
        let start = u64::from(std::process::id()) << 32 | number;
        for block in 0..(number % 40) {
            ingest.write_all(&(start ^ block).to_le_bytes().repeat(512)).unwrap();
        }
        ingest.write_all(&start.to_le_bytes()).unwrap();
        let (digest, _) = ingest.commit(None).unwrap();
        table.put(digest.hex(), &Kept { digest: digest.clone() }).unwrap();
        writeln!(output, "kept {digest}").unwrap();
    }
}

fn start(place: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer", "--ignored", "--nocapture", "--test-threads=1"])
        .env(PLACE, place)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..24_usize {
        let mut child = start(directory.path());
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said: Vec<Digest> = lines
            .by_ref()
            .take(round % 7 + 1)
            .map(|line| line.unwrap().strip_prefix("kept ").unwrap().parse().unwrap())
            .collect();
        // Some way into the next blob: further for later rounds.
        for _ in 0..(round * 20_000) {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        check(directory.path(), &said);
        acknowledged += said.len();
    }
    assert!(acknowledged > 24);
}

#[track_caller]
fn check(place: &Path, said: &[Digest]) {
    let blobs = LocalBlobs::open(place).unwrap();
    let left = std::fs::read_dir(place.join("ingest")).unwrap().count();
    assert_eq!(left, 0, "what the dead writer was writing is swept");
    for digest in blobs.list().unwrap() {
        blobs.read(&digest, u64::MAX).expect("every blob there is matches its digest");
    }
    let table: Table<Kept> =
        Table::new(Arc::new(LocalRecords::open(place.join("records.db")).unwrap()));
    for row in table.list().unwrap() {
        assert!(blobs.stat(&row.record.digest).unwrap().is_some(), "a record's blob is there");
    }
    for digest in said {
        assert!(blobs.stat(digest).unwrap().is_some(), "an acknowledged blob is there");
        assert!(table.get(digest.hex()).unwrap().is_some(), "an acknowledged record is there");
    }
}

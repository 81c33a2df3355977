//! What every blob store and every record store must do, tried on all of them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

use carrack_oci::{Algorithm, Digest};
use carrack_store::{
    BlobError, BlobStore, Check, LocalBlobs, LocalRecords, MemoryBlobs, MemoryRecords, Record,
    RecordStore, Table, Write,
};
use serde::{Deserialize, Serialize};

fn each_blob_store(check: impl Fn(&dyn BlobStore)) {
    check(&MemoryBlobs::new());
    let directory = tempfile::tempdir().unwrap();
    check(&LocalBlobs::open(directory.path()).unwrap());
}

fn each_record_store(check: impl Fn(Arc<dyn RecordStore>)) {
    check(Arc::new(MemoryRecords::new()));
    let directory = tempfile::tempdir().unwrap();
    check(Arc::new(LocalRecords::open(directory.path().join("records.db")).unwrap()));
    check(Arc::new(LocalRecords::open(directory.path().join("fast.db")).unwrap().unsynced()));
}

#[test]
fn a_committed_blob_is_read_back() {
    each_blob_store(|store| {
        let mut ingest = store.ingest().unwrap();
        ingest.write_all(b"car").unwrap();
        ingest.write_all(b"rack").unwrap();
        let (digest, size) = ingest.commit(Some(&Digest::of(b"carrack"))).unwrap();
        assert_eq!((digest.clone(), size), (Digest::of(b"carrack"), 7));
        assert_eq!(store.read(&digest, 7).unwrap(), b"carrack");
        assert_eq!(store.stat(&digest).unwrap(), Some(7));
        assert_eq!(store.list().unwrap(), [digest]);
    });
}

#[test]
fn a_blob_is_not_there_before_its_commit() {
    each_blob_store(|store| {
        let mut ingest = store.ingest().unwrap();
        ingest.write_all(b"half").unwrap();
        assert_eq!(store.stat(&Digest::of(b"half")).unwrap(), None);
        assert!(store.list().unwrap().is_empty());
        drop(ingest);
        assert!(matches!(store.open(&Digest::of(b"half")), Err(BlobError::NotFound(_))));
    });
}

#[test]
fn bytes_that_are_not_what_was_announced_are_discarded() {
    each_blob_store(|store| {
        let mut ingest = store.ingest().unwrap();
        ingest.write_all(b"evil").unwrap();
        let refused = ingest.commit(Some(&Digest::of(b"good"))).unwrap_err();
        assert!(matches!(refused, BlobError::Mismatch { .. }));
        assert!(store.list().unwrap().is_empty());
    });
}

#[test]
fn committing_twice_is_committing_once() {
    each_blob_store(|store| {
        assert_eq!(store.put(b"x").unwrap(), store.put(b"x").unwrap());
        assert_eq!(store.list().unwrap().len(), 1);
    });
}

#[test]
fn a_read_beyond_its_limit_is_refused() {
    each_blob_store(|store| {
        let digest = store.put(b"12345").unwrap();
        assert!(matches!(store.read(&digest, 4), Err(BlobError::TooLarge { limit: 4, .. })));
    });
}

#[test]
fn a_deleted_blob_is_gone_but_not_for_who_has_it_open() {
    each_blob_store(|store| {
        let digest = store.put(b"kept").unwrap();
        let mut open = store.open(&digest).unwrap();
        assert!(store.delete(&digest).unwrap());
        assert!(!store.delete(&digest).unwrap());
        let mut bytes = Vec::new();
        open.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"kept");
    });
}

#[test]
fn a_blob_may_be_named_by_sha512() {
    each_blob_store(|store| {
        let mut ingest = store.ingest_with(Algorithm::Sha512).unwrap();
        ingest.write_all(b"long").unwrap();
        let (digest, _) = ingest.commit(None).unwrap();
        assert_eq!(digest.algorithm(), Algorithm::Sha512);
        assert_eq!(store.list().unwrap(), [digest]);
    });
}

#[test]
fn a_blob_that_rots_on_disk_is_noticed_when_read() {
    let directory = tempfile::tempdir().unwrap();
    let store = LocalBlobs::open(directory.path()).unwrap();
    let digest = store.put(b"sound").unwrap();
    std::fs::write(directory.path().join("blobs/sha256").join(digest.hex()), b"s0und").unwrap();
    assert!(matches!(store.read(&digest, 99), Err(BlobError::Rotten { .. })));
}

#[test]
fn an_ingest_outlives_the_opening_of_the_store_by_another() {
    let directory = tempfile::tempdir().unwrap();
    let store = LocalBlobs::open(directory.path()).unwrap();
    let mut ingest = store.ingest().unwrap();
    ingest.write_all(b"slow").unwrap();
    LocalBlobs::open(directory.path()).unwrap();
    ingest.commit(Some(&Digest::of(b"slow"))).unwrap();
    assert_eq!(store.read(&Digest::of(b"slow"), 4).unwrap(), b"slow");
}

#[test]
fn many_writers_of_the_same_blobs_all_succeed() {
    let directory = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let store = LocalBlobs::open(directory.path()).unwrap();
                for number in 0..20_u32 {
                    store.put(&number.to_le_bytes()).unwrap();
                }
            });
        }
    });
    let store = LocalBlobs::open(directory.path()).unwrap();
    assert_eq!(store.list().unwrap().len(), 20);
    let left = std::fs::read_dir(directory.path().join("ingest")).unwrap().count();
    assert_eq!(left, 0, "nothing is left being written");
}

#[test]
fn a_commit_is_all_or_nothing() {
    each_record_store(|store| {
        let put = |key: &str| Write::Put(key.into(), key.as_bytes().to_vec());
        let first = store.commit(&[], &[put("a/1"), put("a/2"), put("b/1")]).unwrap();
        let refused = store
            .commit(
                &[Check::Unchanged("a/1".into(), first), Check::Absent("a/2".into())],
                &[put("a/3"), Write::Delete("a/1".into())],
            )
            .unwrap_err();
        assert!(refused.is_conflict());
        let keys = |prefix: &str| {
            store.scan(prefix).unwrap().into_iter().map(|entry| entry.key).collect::<Vec<_>>()
        };
        assert_eq!(keys("a/"), ["a/1", "a/2"]);
        let second = store
            .commit(&[Check::Unchanged("a/1".into(), first)], &[Write::Delete("a/1".into())])
            .unwrap();
        assert!(second > first);
        assert_eq!(keys(""), ["a/2", "b/1"]);
        assert_eq!(store.get("a/1").unwrap(), None);
        assert_eq!(store.get("b/1").unwrap().unwrap().value, b"b/1");
    });
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ship {
    masts: u32,
}

impl Record for Ship {
    const TABLE: &'static str = "ships";
    const VERSION: u32 = 2;

    fn upgrade(version: u32, mut record: serde_json::Value) -> Option<serde_json::Value> {
        (version == 1).then(|| {
            let poles = record["poles"].take();
            serde_json::json!({ "masts": poles })
        })
    }
}

#[test]
fn a_table_sees_its_own_records_only() {
    each_record_store(|store| {
        store.commit(&[], &[Write::Put("shipyards/x".into(), b"?".to_vec())]).unwrap();
        let table: Table<Ship> = Table::new(store);
        table.insert("santa/maria", &Ship { masts: 3 }).unwrap();
        assert!(table.insert("santa/maria", &Ship { masts: 4 }).unwrap_err().is_conflict());
        let rows = table.list().unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].key, "santa/maria");
        table.replace("santa/maria", rows[0].revision, &Ship { masts: 4 }).unwrap();
        assert!(
            table
                .replace("santa/maria", rows[0].revision, &Ship { masts: 5 })
                .unwrap_err()
                .is_conflict()
        );
        table.delete("santa/maria").unwrap();
        assert_eq!(table.get("santa/maria").unwrap(), None);
    });
}

#[test]
fn older_records_are_upgraded_and_newer_ones_refused() {
    each_record_store(|store| {
        let put = |key: &str, json: &str| Write::Put(key.into(), json.as_bytes().to_vec());
        store
            .commit(
                &[],
                &[
                    put("ships/old", r#"{"version":1,"record":{"poles":2}}"#),
                    put("ships/new", r#"{"version":3,"record":{"masts":2}}"#),
                ],
            )
            .unwrap();
        let table: Table<Ship> = Table::new(store);
        assert_eq!(table.get("old").unwrap().unwrap().record, Ship { masts: 2 });
        let refused = table.get("new").unwrap_err().to_string();
        assert!(refused.contains("version 3"), "{refused}");
    });
}

#[test]
fn updates_from_many_connections_are_all_counted() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("records.db");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let store = Arc::new(LocalRecords::open(&file).unwrap());
                let table: Table<Ship> = Table::new(store);
                for _ in 0..10 {
                    table
                        .update("x", |ship| {
                            Some(Ship { masts: ship.map_or(1, |ship| ship.masts + 1) })
                        })
                        .unwrap();
                }
            });
        }
    });
    let table: Table<Ship> = Table::new(Arc::new(LocalRecords::open(&file).unwrap()));
    assert_eq!(table.get("x").unwrap().unwrap().record.masts, 40);
}

#[test]
fn many_may_open_new_records_at_once() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let file = directory.path().join(format!("{round}.db"));
        std::thread::scope(|scope| {
            for number in 0..8_u32 {
                let file = &file;
                scope.spawn(move || {
                    let store = LocalRecords::open(file).unwrap();
                    store.commit(&[], &[Write::Put(format!("{number}"), vec![])]).unwrap();
                });
            }
        });
        assert_eq!(LocalRecords::open(&file).unwrap().scan("").unwrap().len(), 8);
    }
}

#[test]
fn records_of_another_format_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("records.db");
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let refused = LocalRecords::open(&file).unwrap_err().to_string();
    assert!(refused.contains("format 99"), "{refused}");
}

#[test]
fn commits_that_are_not_synced_are_seen_by_all_and_survive_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("records.db");
    let store = LocalRecords::open(&file).unwrap();
    let unsynced = store.unsynced();
    let put = |key: &str| [Write::Put(key.to_owned(), b"value".to_vec())];
    let first = unsynced.commit(&[], &put("soon")).unwrap();
    let second = store.commit(&[], &put("now")).unwrap();
    assert!(first < second, "both count in one history");
    assert!(store.get("soon").unwrap().is_some());
    let other = LocalRecords::open(&file).unwrap();
    assert_eq!(other.scan("").unwrap().len(), 2, "another process sees both");
}

#[test]
fn the_two_record_stores_agree_on_a_long_story() {
    let directory = tempfile::tempdir().unwrap();
    let local = LocalRecords::open(directory.path().join("records.db")).unwrap();
    let memory = MemoryRecords::new();
    let mut seed = 7_u32;
    let mut next = move |bound: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 16) % bound
    };
    let mut outcomes = BTreeSet::new();
    for step in 0..200_u32 {
        let key = format!("k{}", next(6));
        let check = match next(3) {
            0 => vec![],
            1 => vec![Check::Absent(key.clone())],
            _ => memory
                .get(&key)
                .unwrap()
                .map_or_else(Vec::new, |entry| vec![Check::Unchanged(key.clone(), entry.revision)]),
        };
        let write = match next(3) {
            0 => Write::Delete(key),
            _ => Write::Put(key, step.to_le_bytes().to_vec()),
        };
        let expected = memory.commit(&check, std::slice::from_ref(&write)).is_ok();
        assert_eq!(local.commit(&check, &[write]).is_ok(), expected, "step {step}");
        outcomes.insert(expected);
        let values = |entries: Vec<carrack_store::Entry>| {
            entries.into_iter().map(|entry| (entry.key, entry.value)).collect::<Vec<_>>()
        };
        assert_eq!(values(local.scan("").unwrap()), values(memory.scan("").unwrap()));
    }
    assert_eq!(outcomes.len(), 2, "the story has commits that succeed and that conflict");
}

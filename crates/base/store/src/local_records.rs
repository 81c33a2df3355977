//! Records in one `SQLite` file that several processes share.
//!
//! Each commit is one transaction, synced before it returns unless it is made through
//! [`LocalRecords::unsynced`]. A process that dies in the middle of one leaves nothing
//! of it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use rustix::fs::{FlockOperation, flock};

use crate::record::{Check, Entry, RecordError, RecordStore, Revision, Write};

/// What the file looks like. A later version that changes it changes this number.
const FORMAT: i64 = 1;

/// How long a commit waits for another process's commit.
const PATIENCE: Duration = Duration::from_secs(30);

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS records (
        key TEXT PRIMARY KEY NOT NULL,
        value BLOB NOT NULL,
        revision INTEGER NOT NULL
    ) WITHOUT ROWID, STRICT;
    CREATE TABLE IF NOT EXISTS history (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        revision INTEGER NOT NULL
    ) STRICT;
    INSERT OR IGNORE INTO history (only, revision) VALUES (1, 0);
";

/// Records in one file.
#[derive(Debug)]
pub struct LocalRecords {
    file: PathBuf,
    connection: Arc<Mutex<Connection>>,
    lasting: Lasting,
}

/// What a commit has survived by the time it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lasting {
    PowerLoss,
    ProcessEnd,
}

impl Lasting {
    /// Both keep the order of commits: in the write-ahead log what comes later is lost first.
    fn synchronous(self) -> &'static str {
        match self {
            Self::PowerLoss => "full",
            Self::ProcessEnd => "normal",
        }
    }
}

impl LocalRecords {
    /// Opens the records in `file`, making it if it is missing. The directory it is
    /// in must exist.
    ///
    /// # Errors
    ///
    /// When it cannot be opened, or was written in another format.
    pub fn open(file: impl Into<PathBuf>) -> Result<Self, RecordError> {
        let file = file.into();
        let _turn = turn(&file);
        let connection = connect(&file).map_err(|source| database(&file, source))?;
        let found = prepare(&connection).map_err(|source| database(&file, source))?;
        if found != FORMAT {
            return Err(RecordError::Format { file, found, known: FORMAT });
        }
        let connection = Arc::new(Mutex::new(connection));
        Ok(Self { file, connection, lasting: Lasting::PowerLoss })
    }

    /// The same records, for changes that mean nothing once the machine has lost its power.
    ///
    /// What is committed through it is there for everybody at once and survives the end of
    /// every process, but the commit does not wait for the disk. A power loss may take such
    /// commits, the last ones first, never one from the middle and never part of one; those
    /// before a commit through [`LocalRecords::open`]'s answer are as safe as that one.
    #[must_use]
    pub fn unsynced(&self) -> Self {
        Self {
            file: self.file.clone(),
            connection: Arc::clone(&self.connection),
            lasting: Lasting::ProcessEnd,
        }
    }

    /// The connection. A panic elsewhere cannot have left it half-way: whatever
    /// transaction was open then was rolled back.
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn database(&self, source: rusqlite::Error) -> RecordError {
        database(&self.file, source)
    }
}

impl RecordStore for LocalRecords {
    fn get(&self, key: &str) -> Result<Option<Entry>, RecordError> {
        self.connection()
            .prepare_cached("SELECT key, value, revision FROM records WHERE key = ?1")
            .and_then(|mut query| query.query_row([key], entry).optional())
            .map_err(|source| self.database(source))
    }

    fn scan(&self, prefix: &str) -> Result<Vec<Entry>, RecordError> {
        scan(&self.connection(), prefix).map_err(|source| self.database(source))
    }

    fn commit(&self, checks: &[Check], writes: &[Write]) -> Result<Revision, RecordError> {
        let mut connection = self.connection();
        connection
            .pragma_update(None, "synchronous", self.lasting.synchronous())
            .map_err(|source| self.database(source))?;
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|source| self.database(source))?;
        for check in checks {
            let found =
                revision_of(&transaction, check.key()).map_err(|source| self.database(source))?;
            if !check.holds(found) {
                return Err(RecordError::Conflict { key: check.key().to_owned() });
            }
        }
        let revision = write_all(&transaction, writes).map_err(|source| self.database(source))?;
        transaction.commit().map_err(|source| self.database(source))?;
        Ok(revision)
    }
}

/// Waits until nobody else opens records in the same directory, as long as the answer
/// lives: SQLite tells whoever meets another's change of the journal's mode that the file
/// is locked, at once and however patient one is. Where the directory cannot be locked,
/// opening goes on without.
fn turn(file: &Path) -> Option<File> {
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = File::open(directory.unwrap_or(Path::new("."))).ok()?;
    rustix::io::retry_on_intr(|| flock(&directory, FlockOperation::LockExclusive)).ok()?;
    Some(directory)
}

fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(PATIENCE)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    Ok(connection)
}

/// Brings an empty file into this version's format and says which format it has.
fn prepare(connection: &Connection) -> rusqlite::Result<i64> {
    let format = |connection: &Connection| {
        connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))
    };
    if format(connection)? == 0 {
        // Two processes may get here at once; every statement bears repeating.
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT;"
        ))?;
    }
    format(connection)
}

fn scan(connection: &Connection, prefix: &str) -> rusqlite::Result<Vec<Entry>> {
    let mut query = connection
        .prepare_cached("SELECT key, value, revision FROM records WHERE key >= ?1 ORDER BY key")?;
    let mut rows = query.query([prefix])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let entry = entry(row)?;
        if !entry.key.starts_with(prefix) {
            break;
        }
        found.push(entry);
    }
    Ok(found)
}

fn entry(row: &rusqlite::Row<'_>) -> rusqlite::Result<Entry> {
    let revision: i64 = row.get(2)?;
    Ok(Entry {
        key: row.get(0)?,
        value: row.get(1)?,
        revision: Revision(u64::try_from(revision).unwrap_or_default()),
    })
}

fn revision_of(transaction: &Transaction<'_>, key: &str) -> rusqlite::Result<Option<Revision>> {
    let found: Option<i64> = transaction
        .query_row("SELECT revision FROM records WHERE key = ?1", [key], |row| row.get(0))
        .optional()?;
    Ok(found.map(|revision| Revision(u64::try_from(revision).unwrap_or_default())))
}

fn write_all(transaction: &Transaction<'_>, writes: &[Write]) -> rusqlite::Result<Revision> {
    let revision: i64 = transaction.query_row(
        "UPDATE history SET revision = revision + 1 RETURNING revision",
        [],
        |row| row.get(0),
    )?;
    for write in writes {
        match write {
            Write::Put(key, value) => transaction.execute(
                "INSERT OR REPLACE INTO records (key, value, revision) VALUES (?1, ?2, ?3)",
                params![key, value, revision],
            )?,
            Write::Delete(key) => {
                transaction.execute("DELETE FROM records WHERE key = ?1", [key])?
            }
        };
    }
    Ok(Revision(u64::try_from(revision).unwrap_or_default()))
}

fn database(file: &Path, source: rusqlite::Error) -> RecordError {
    RecordError::Database { file: file.to_path_buf(), source }
}

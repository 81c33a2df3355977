//! One owner's records, typed and versioned.
//!
//! ```text
//! T ─json─▶ {"version": V, "record": …} ─▶ `<table>/<key>` in a RecordStore
//! ```

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::record::{Check, Entry, RecordError, RecordStore, Revision, Write};

/// Something that is kept as a record.
pub trait Record: Serialize + DeserializeOwned {
    /// The table it is kept in. Part of every key, so it never changes.
    const TABLE: &'static str;
    /// The version of its encoding.
    const VERSION: u32;

    /// Brings a record of an older version into this one's form, if it knows how.
    #[must_use]
    fn upgrade(_version: u32, _record: serde_json::Value) -> Option<serde_json::Value> {
        None
    }
}

/// One owner's records in a store that many share.
pub struct Table<T> {
    store: Arc<dyn RecordStore>,
    record: PhantomData<fn() -> T>,
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store), record: PhantomData }
    }
}

impl<T: Record> fmt::Debug for Table<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Table({})", T::TABLE)
    }
}

/// A record, its key and the commit that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row<T> {
    /// Its key within the table.
    pub key: String,
    /// The record.
    pub record: T,
    /// The commit that wrote it.
    pub revision: Revision,
}

#[derive(Serialize)]
struct Written<'a, T> {
    version: u32,
    record: &'a T,
}

#[derive(Deserialize)]
struct Read {
    version: u32,
    record: serde_json::Value,
}

impl<T: Record> Table<T> {
    /// The table of `T` in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn RecordStore>) -> Self {
        Self { store, record: PhantomData }
    }

    /// The record under `key`.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or was written in a form that cannot be upgraded.
    pub fn get(&self, key: &str) -> Result<Option<Row<T>>, TableError> {
        self.store.get(&full_key::<T>(key))?.map(row).transpose()
    }

    /// Every record, in the order of keys.
    ///
    /// # Errors
    ///
    /// As [`Table::get`].
    pub fn list(&self) -> Result<Vec<Row<T>>, TableError> {
        self.store.scan(&full_key::<T>(""))?.into_iter().map(row).collect()
    }

    /// Puts `record` under `key`, whatever was there.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn put(&self, key: &str, record: &T) -> Result<Revision, TableError> {
        Ok(self.store.commit(&[], &[Self::write(key, record)?])?)
    }

    /// Puts `record` under `key`, which must be free.
    ///
    /// # Errors
    ///
    /// A conflict when something is there.
    pub fn insert(&self, key: &str, record: &T) -> Result<Revision, TableError> {
        let absent = Check::Absent(full_key::<T>(key));
        Ok(self.store.commit(&[absent], &[Self::write(key, record)?])?)
    }

    /// Puts `record` in the place of the row read before.
    ///
    /// # Errors
    ///
    /// A conflict when someone changed it since.
    pub fn replace(&self, key: &str, read: Revision, record: &T) -> Result<Revision, TableError> {
        let unchanged = Check::Unchanged(full_key::<T>(key), read);
        Ok(self.store.commit(&[unchanged], &[Self::write(key, record)?])?)
    }

    /// Changes the record under `key`, trying again while others change it too.
    /// `change` gets what is there and returns what shall be, `None` for nothing.
    ///
    /// # Errors
    ///
    /// When it cannot be read or written.
    pub fn update(
        &self,
        key: &str,
        mut change: impl FnMut(Option<T>) -> Option<T>,
    ) -> Result<(), TableError> {
        loop {
            let (record, check) = match self.get(key)? {
                Some(row) => (Some(row.record), Check::Unchanged(full_key::<T>(key), row.revision)),
                None => (None, Check::Absent(full_key::<T>(key))),
            };
            let write = match change(record) {
                Some(record) => Self::write(key, &record)?,
                None => Self::erase(key),
            };
            match self.store.commit(&[check], &[write]) {
                Err(error) if error.is_conflict() => {}
                other => return Ok(other.map(|_| ())?),
            }
        }
    }

    /// Removes what is under `key`, if anything is.
    ///
    /// # Errors
    ///
    /// When it cannot be removed.
    pub fn delete(&self, key: &str) -> Result<(), TableError> {
        self.store.commit(&[], &[Self::erase(key)])?;
        Ok(())
    }

    /// The write that puts `record` under `key`, to be committed together with
    /// others.
    ///
    /// # Errors
    ///
    /// When `record` cannot be put in JSON.
    pub fn write(key: &str, record: &T) -> Result<Write, TableError> {
        let written = Written { version: T::VERSION, record };
        let value = serde_json::to_vec(&written).map_err(|source| TableError::Encode {
            table: T::TABLE,
            key: key.to_owned(),
            source,
        })?;
        Ok(Write::Put(full_key::<T>(key), value))
    }

    /// The write that leaves nothing under `key`.
    #[must_use]
    pub fn erase(key: &str) -> Write {
        Write::Delete(full_key::<T>(key))
    }
}

fn full_key<T: Record>(key: &str) -> String {
    format!("{}/{key}", T::TABLE)
}

fn row<T: Record>(entry: Entry) -> Result<Row<T>, TableError> {
    let key =
        entry.key.split_once('/').map_or_else(|| entry.key.clone(), |(_, key)| key.to_owned());
    let decode = |source| TableError::Decode { table: T::TABLE, key: key.clone(), source };
    let read: Read = serde_json::from_slice(&entry.value).map_err(decode)?;
    let value = if read.version == T::VERSION {
        read.record
    } else {
        T::upgrade(read.version, read.record).ok_or_else(|| TableError::Version {
            table: T::TABLE,
            key: key.clone(),
            found: read.version,
            known: T::VERSION,
        })?
    };
    let record = serde_json::from_value(value).map_err(decode)?;
    Ok(Row { key, record, revision: entry.revision })
}

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] RecordError),
    /// It does not fit into JSON.
    #[error("encoding {table} record `{key}`")]
    Encode {
        /// The table.
        table: &'static str,
        /// The record's key.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
    /// What is stored is not what it should be.
    #[error("decoding {table} record `{key}`")]
    Decode {
        /// The table.
        table: &'static str,
        /// The record's key.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
    /// It was written by a version this one cannot follow.
    #[error(
        "{table} record `{key}` has version {found}, and this program knows version {known}; use the version that wrote it"
    )]
    Version {
        /// The table.
        table: &'static str,
        /// The record's key.
        key: String,
        /// The version it has.
        found: u32,
        /// The version this program knows.
        known: u32,
    },
}

impl TableError {
    /// Whether someone else changed the record first.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_conflict())
    }
}

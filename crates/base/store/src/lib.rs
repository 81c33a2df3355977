//! Blobs and records that survive a crash.
//!
//! A *blob* is bytes called by their digest; a *record* is bytes called by a key,
//! changed by compare-and-commit. Both have two implementations, `memory`, which is
//! the reference, and `local`, which is a directory; `tests/suite.rs` holds what
//! both must do.
//!
//! What a record means belongs to its owner, who sees it through a [`Table`].
//! Images and their names are not here: see `image/content`.

mod blob;
mod local_blobs;
mod local_records;
mod memory;
mod record;
mod table;

pub use blob::{Blob, BlobError, BlobStore, Ingest, Pending};
pub use local_blobs::LocalBlobs;
pub use local_records::LocalRecords;
pub use memory::{MemoryBlobs, MemoryRecords};
pub use record::{Check, Entry, RecordError, RecordStore, Revision, Write};
pub use table::{Record, Row, Table, TableError};

//! Blobs and records that survive a crash.

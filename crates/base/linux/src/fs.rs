//! Files that survive a crash: atomic writes, directory fsync.

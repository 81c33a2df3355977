//! Images by name: resolve, keep, save, load.

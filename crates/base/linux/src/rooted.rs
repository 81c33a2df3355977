//! Paths that cannot leave their root.

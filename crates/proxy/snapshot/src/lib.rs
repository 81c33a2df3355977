//! xDS resources to an immutable snapshot, or reasons why not.

//! What a filter is, and every built-in one.

//! Capability sets: names, dropping, raising.

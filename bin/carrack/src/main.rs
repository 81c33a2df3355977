//! Builds, signs, scans, stores, ships, runs and connects containers.

fn main() {}

//! The shop, from a clean machine to `down`.
fn main() {}

//! Side-by-side figures against the best peers, as ratios.

fn main() {}

//! Side-by-side figures against the best peers: every line a ratio, every pair
//! measured interleaved in one run.
//!
//! `cargo xtask bench` builds what it measures and runs all of it;
//! `cargo xtask bench start run mesh memory` picks parts.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "figures are its data")]

mod measure;
mod memory;
mod mesh;
mod run;
mod start;

use std::process::ExitCode;

type Part = (&'static str, fn() -> anyhow::Result<()>);

const PARTS: &[Part] = &[
    ("start", start::measure),
    ("run", run::measure),
    ("mesh", mesh::measure),
    ("memory", memory::measure),
];

fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = asked.iter().find(|asked| !PARTS.iter().any(|(name, _)| name == asked)) {
        let known: Vec<_> = PARTS.iter().map(|(name, _)| *name).collect();
        eprintln!("`{unknown}` is no part; there are {}", known.join(", "));
        return ExitCode::from(2);
    }
    let mut code = ExitCode::SUCCESS;
    for (name, part) in PARTS {
        if !asked.is_empty() && !asked.iter().any(|asked| asked == name) {
            continue;
        }
        println!("\n## {name}");
        if let Err(error) = part() {
            eprintln!("{name}: {error:#}");
            code = ExitCode::FAILURE;
        }
    }
    code
}

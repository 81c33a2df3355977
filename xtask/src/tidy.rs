//! Small promises about the tree that no compiler checks.

use std::fs;
use std::path::{Path, PathBuf};

const FORBIDDEN_NAMES: &[&str] =
    &["common", "utils", "util", "helpers", "types", "manager", "misc"];

/// Reads every Rust source under `root` and reports every promise broken.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    let mut problems = Vec::new();
    for source in sources(root) {
        let text = fs::read_to_string(&source)
            .map_err(|error| format!("{}: {error}", source.display()))?;
        let shown = source.strip_prefix(root).unwrap_or(&source).display().to_string();
        problems.extend(problems_of(&shown, &text));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}

/// The second is a program without a library below it, which makes its own system calls.
const UNSAFE_ROOMS: [&str; 2] = ["crates/base/linux/", "bin/carrack-runtime/init/"];

fn problems_of(path: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let stem = Path::new(path).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if FORBIDDEN_NAMES.contains(&stem) {
        problems.push(format!("{path}: `{stem}` does not say what the module is for"));
    }
    if path.ends_with("src/lib.rs") && !text.starts_with("//!") {
        problems.push(format!("{path}: a crate starts with what it is for (`//!`)"));
    }
    let unsafe_room = UNSAFE_ROOMS.iter().any(|room| path.starts_with(room));
    for (number, line) in (1..).zip(text.lines()) {
        let code = line.split("//").next().unwrap_or_default();
        let opens_unsafe_code =
            code.contains(concat!("unsafe", " {")) || code.contains(concat!("unsafe", " fn"));
        if !unsafe_room && opens_unsafe_code {
            problems.push(format!("{path}:{number}: `unsafe` lives in crates/base/linux"));
        }
        if code.contains(concat!("todo", "!(")) || code.contains(concat!("unimplemented", "!(")) {
            problems.push(format!("{path}:{number}: finish it, or refuse it with an error"));
        }
    }
    problems
}

fn sources(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending: Vec<PathBuf> = ["bin", "crates", "testkit", "tests", "bench", "xtask"]
        .iter()
        .map(|top| root.join(top))
        .collect();
    while let Some(directory) = pending.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        check(&crate::workspace()).expect("the tree keeps its promises");
    }

    #[test]
    fn unsafe_outside_its_room_is_reported() {
        let text = concat!("fn f() { unsafe", " { g() } }");
        assert_eq!(problems_of("crates/x/src/a.rs", text).len(), 1);
        assert!(problems_of("crates/base/linux/src/a.rs", text).is_empty());
    }
}

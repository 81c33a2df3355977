//! Checks and chores. `cargo xtask up DIR` sets up and runs an application;
//! `cargo xtask test` sets up and runs every check that CI runs.
//!
//! Kept free of heavy dependencies, because it is the first thing a fresh
//! machine compiles.
#![expect(clippy::print_stderr, reason = "a chore speaks to the person who started it")]

mod layers;
mod setup;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "usage: cargo xtask COMMAND
  up [DIR] [ARGS…]   build Carrack and bring up the application in DIR (default: examples/shop)
  test               install the test peers, then run every check and test
  check              formatting, clippy, layers and tidiness only
  setup              install what the tests need and nothing else
  bench [ARGS…]      build for release and print the side-by-side figures
  release            build `carrack` and `carrack-runtime` for release";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let outcome = match command.as_str() {
        "up" => up(&rest),
        "test" => test(),
        "check" => check(),
        "setup" => setup::test_peers(),
        "bench" => bench(&rest),
        "release" => release(),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn up(arguments: &[String]) -> Result<(), String> {
    setup::build_tools()?;
    release()?;
    let carrack = target().join("release/carrack");
    let application = arguments.first().map_or("examples/shop", String::as_str);
    let mut command = Command::new(carrack);
    command.arg("up").arg(application).args(arguments.iter().skip(1));
    run(&mut command)
}

/// Release builds land in `target/release`: the program and, beside it, the
/// small static runtime that it starts containers with.
fn release() -> Result<(), String> {
    run(cargo().args([
        "build",
        "--release",
        "--package",
        "carrack",
        "--package",
        "carrack-runtime",
    ]))
}

fn check() -> Result<(), String> {
    step("formatting", || {
        run(cargo().args(["fmt", "--all", "--check"]))?;
        // Compiled by a build script, so cargo does not know of it.
        let init = workspace().join("bin/carrack-runtime/init/main.rs");
        run(Command::new("rustfmt").args(["--edition", "2024", "--check"]).arg(init))
    })?;
    step("layers", || layers::check(&workspace()))?;
    step("tidiness", || tidy::check(&workspace()))?;
    step("clippy", || {
        run(cargo()
            .args(["clippy", "--workspace", "--all-targets", "--locked", "--"])
            .args(["--deny", "warnings"]))
    })
}

fn test() -> Result<(), String> {
    step("test peers", setup::test_peers)?;
    check()?;
    step("programs", || {
        run(cargo().args([
            "build",
            "--locked",
            "--package",
            "carrack",
            "--package",
            "carrack-runtime",
        ]))
    })?;
    step("tests", || run(cargo().args(["test", "--workspace", "--locked", "--no-fail-fast"])))
}

fn bench(arguments: &[String]) -> Result<(), String> {
    setup::test_peers()?;
    release()?;
    run(cargo().args(["run", "--release", "--package", "carrack-bench", "--"]).args(arguments))
}

fn step(name: &str, work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    eprintln!("==> {name}");
    work().map_err(|message| format!("{name}: {message}"))
}

/// The workspace's root, found from where this crate was compiled.
fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Where cargo leaves what it builds.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

fn run(command: &mut Command) -> Result<(), String> {
    let shown = format!("{command:?}").replace('"', "");
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{shown}` ended with {status}")),
        Err(error) => Err(format!("`{shown}` could not be started: {error}")),
    }
}

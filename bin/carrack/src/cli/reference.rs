//! `docs/reference/commands.md`, written from the commands themselves.

use std::fmt::Write as _;

use clap::CommandFactory as _;

use super::Cli;

fn reference() -> String {
    let mut text = String::from(
        "# Commands\n\nWritten from the program's own help; `UPDATE=1 cargo test -p carrack` writes it anew.\n",
    );
    let mut root = Cli::command();
    root.build();
    for verb in root.get_subcommands_mut().filter(|verb| !verb.is_hide_set()) {
        let name = verb.get_name().to_owned();
        let help = verb.clone().term_width(100).render_long_help().to_string();
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        write!(text, "\n## carrack {name}\n\n```text\n{}\n```\n", lines.join("\n").trim_end())
            .expect("a string");
    }
    text
}

#[test]
fn the_command_reference_says_what_help_says() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/commands.md");
    let written = reference();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(file, &written).expect("writable");
    }
    let kept = std::fs::read_to_string(file).unwrap_or_default();
    assert_eq!(kept, written, "run `UPDATE=1 cargo test -p carrack` and look at the difference");
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

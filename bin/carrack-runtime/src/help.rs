//! Help, written from the tables that are read by.

use crate::commands::{COMMANDS, Command};
use crate::global;
use crate::options::{Count, Flag};

const ABOUT: &str = "\
NAME:
   carrack-runtime - Open Container Initiative runtime

USAGE:
   carrack-runtime [GLOBAL OPTIONS] COMMAND [OPTIONS] [ARGUMENTS]

   Runs containers from OCI bundles: directories with a config.json and a root file system.
   To run one: carrack-runtime run --bundle DIR ID

COMMANDS:
";

/// Of the whole program.
pub(crate) fn program() -> String {
    let mut text = ABOUT.to_owned();
    for command in COMMANDS {
        text.push_str(&format!("   {:<12} {}\n", command.name, command.about));
    }
    text.push_str("   help, h     show this, or the help of a command\n");
    text.push_str("   shim        hold one container for carrack's engine (--dir DIR)\n");
    text.push_str("\nGLOBAL OPTIONS:\n");
    text.push_str(&flags(global::FLAGS));
    text
}

/// Of one command.
pub(crate) fn command(command: &Command) -> String {
    let options = if command.flags.is_empty() { "" } else { " [OPTIONS]" };
    let mut text = format!(
        "NAME:\n   carrack-runtime {} - {}\n\nUSAGE:\n   carrack-runtime {}{options} {}\n",
        command.name, command.about, command.name, command.arguments
    );
    if matches!(command.words, Count::Open(_)) {
        text.push_str("\n   Options stand before ID; what follows it is passed on as it is.\n");
    }
    if !command.details.is_empty() {
        text.push_str("\nDESCRIPTION:\n");
        for line in command.details.lines() {
            text.push_str(&format!("   {line}\n"));
        }
    }
    text.push_str("\nOPTIONS:\n");
    text.push_str(&flags(command.flags));
    text.push_str(&flags(&[Flag::switch("help", "show help").short('h')]));
    text
}

fn flags(flags: &[Flag]) -> String {
    let spelled: Vec<(String, &str)> = flags
        .iter()
        .map(|flag| {
            let value = flag.value.map(|value| format!(" {value}")).unwrap_or_default();
            let short = flag.short.map(|short| format!(", -{short}")).unwrap_or_default();
            (format!("--{}{short}{value}", flag.name), flag.help)
        })
        .collect();
    spelled.iter().map(|(spelling, help)| format!("   {spelling:<30} {help}\n")).collect()
}

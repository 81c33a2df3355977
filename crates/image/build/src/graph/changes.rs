//! What each instruction does to an image's configuration.

use carrack_oci::{ExecutionConfig, Healthcheck};

use crate::frontend::dockerfile::instruction::{Check, Command};

/// The shell that a command line is given to when `SHELL` said nothing.
const DEFAULT_SHELL: &[&str] = &["/bin/sh", "-c"];

/// The program and arguments of a command, the shell included.
pub(super) fn arguments(command: &Command, shell: &[String]) -> Vec<String> {
    match command {
        Command::Exec(words) => words.clone(),
        Command::Shell(line) if shell.is_empty() => {
            let shell = DEFAULT_SHELL.iter().map(|word| (*word).to_owned());
            shell.chain([line.clone()]).collect()
        }
        Command::Shell(line) => shell.iter().chain([line]).cloned().collect(),
    }
}

/// The check as Docker's image configuration has it.
pub(super) fn healthcheck(check: &Check) -> Healthcheck {
    let test = match &check.command {
        None => vec!["NONE".to_owned()],
        Some(Command::Shell(line)) => vec!["CMD-SHELL".to_owned(), line.clone()],
        Some(Command::Exec(words)) => {
            std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect()
        }
    };
    Healthcheck {
        test,
        interval: check.interval_ns,
        timeout: check.timeout_ns,
        start_period: check.start_period_ns,
        start_interval: check.start_interval_ns,
        retries: check.retries,
        ..Healthcheck::default()
    }
}

/// Adds a port such as `80`, `53/udp` or `8000-8010`. `None`: it is not one.
pub(super) fn expose(config: &mut ExecutionConfig, word: &str) -> Option<()> {
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return None;
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return None;
    }
    config.exposed_ports.extend((first..=last).map(|port| format!("{port}/{protocol}")));
    Some(())
}

/// Whether the word names a signal: a number, or a name with or without `SIG`.
pub(super) fn is_signal(word: &str) -> bool {
    if let Ok(number) = word.parse::<u8>() {
        return (1..=64).contains(&number);
    }
    let name = word.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let real_time = |prefix: &str, sign: char| {
        let rest = name.strip_prefix(prefix);
        rest.is_some_and(|rest| {
            let offset = rest.strip_prefix(sign).and_then(|digits| digits.parse::<u8>().ok());
            rest.is_empty() || offset.is_some_and(|offset| offset <= 30)
        })
    };
    SIGNALS.contains(&name) || real_time("RTMIN", '+') || real_time("RTMAX", '-')
}

const SIGNALS: &[&str] = &[
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// `path` taken from `directory`, without `.`, `..` and doubled slashes.
pub(super) fn join(directory: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let start = if path.starts_with('/') { "" } else { directory };
    for part in start.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

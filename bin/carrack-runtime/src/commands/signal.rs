use std::process::ExitCode;

use carrack_container_runtime::ControlError;

use super::{Command, Context, Failed, directory};
use crate::options::{Arguments, Count, Flag, Usage};

pub(super) const KILL: Command = Command {
    name: "kill",
    arguments: "ID [SIGNAL]",
    about: "send a signal to a container's first process [default: SIGTERM]",
    details: "SIGNAL is a number or a name, such as 9, KILL, sigkill or SIGRTMIN+3.",
    flags: &[Flag::switch("all", "send it to every process of the container").short('a')],
    words: Count::Between(1, 2),
    run: kill,
};

pub(super) const DELETE: Command = Command {
    name: "delete",
    arguments: "ID",
    about: "remove what is left of a stopped container",
    details: "",
    flags: &[Flag::switch("force", "in any state, killing what runs; fine when there is none")
        .short('f')],
    words: Count::Exactly(1),
    run: delete,
};

fn kill(context: &Context, arguments: &mut Arguments) -> Result<ExitCode, Failed> {
    let all = arguments.is_on("all");
    let id = arguments.id()?;
    let signal = match arguments.rest()?.first() {
        Some(text) if !text.is_empty() => parse_signal(text)?,
        Some(_) | None => libc::SIGTERM,
    };
    match context.runtime.kill(&id, signal, all) {
        // Whoever wants all of them gone is content when they are.
        Err(ControlError::NotRunning { .. }) if all => {}
        answer => answer?,
    }
    context.log().debug(|| format!("sent signal {signal} to {id}"));
    Ok(ExitCode::SUCCESS)
}

fn delete(context: &Context, arguments: &mut Arguments) -> Result<ExitCode, Failed> {
    let force = arguments.is_on("force");
    let id = arguments.id()?;
    context.runtime.delete(&id, force)?;
    context.log().debug(|| format!("deleted {}", directory(context, &id).display()));
    Ok(ExitCode::SUCCESS)
}

/// A number, or a name with or without `SIG`.
fn parse_signal(text: &str) -> Result<i32, Usage> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    const OTHERS: [(&str, i32); 3] =
        [("IOT", libc::SIGABRT), ("CLD", libc::SIGCHLD), ("POLL", libc::SIGIO)];
    let unknown = || Usage(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=64).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(number) = real_time(bare) {
        return Ok(number);
    }
    let position = NAMES.iter().position(|name| *name == bare);
    let number = position.and_then(|index| i32::try_from(index + 1).ok());
    let other = || OTHERS.iter().find(|(name, _)| *name == bare).map(|(_, number)| *number);
    number.or_else(other).ok_or_else(unknown)
}

/// `RTMIN`, `RTMIN+n`, `RTMAX` and `RTMAX-n`.
fn real_time(bare: &str) -> Option<i32> {
    let (from, rest) = match bare.strip_prefix("RTMIN") {
        Some(rest) => (libc::SIGRTMIN(), rest),
        None => (libc::SIGRTMAX(), bare.strip_prefix("RTMAX")?),
    };
    let offset = if rest.is_empty() { 0 } else { rest.parse::<i32>().ok()? };
    let number = from.checked_add(offset)?;
    (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number).then_some(number)
}

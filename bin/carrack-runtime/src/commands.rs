//! The OCI command line: arguments, one call, one answer.

mod create;
mod exec;
mod show;

use std::error::Error;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use carrack_container_runtime::{ContainerId, Runtime, StartError};

use crate::options::{Global, Usage, Words, unknown};
use crate::{features, init, output};

const HELP: &str = "\
carrack-runtime: runs OCI bundles

usage: carrack-runtime [--root DIR] [--log FILE] [--log-format text|json] [--systemd-cgroup]
                       [--rootless true|false|auto] COMMAND

  create   ID [--bundle DIR] [--pid-file FILE] [--console-socket SOCKET] [--preserve-fds N]
  start    ID
  run      ID [as create] [--detach]
  exec     ID [--process FILE | PROGRAM ARGS…] [--cwd DIR] [--env NAME=VALUE] [--user UID[:GID]]
              [--additional-gids GID] [--cap CAP] [--no-new-privs] [--tty] [--console-socket SOCKET]
              [--pid-file FILE] [--detach] [--preserve-fds N]
  state    ID
  kill     ID [SIGNAL] [--all]
  delete   ID [--force]
  list     [--format table|json] [--quiet]
  ps       ID [--format table|json]
  pause    ID
  resume   ID
  update   ID --resources FILE|-
  spec     [--bundle DIR]
  features
  shim     --dir DIR
  init-program [--output FILE]
";

/// Why a command did not do its work.
pub(crate) enum Failed {
    /// It was called wrongly.
    Usage(Usage),
    /// It failed, with the code to end with.
    Error(Box<dyn Error>, u8),
}

impl From<Usage> for Failed {
    fn from(usage: Usage) -> Self {
        Self::Usage(usage)
    }
}

impl<E: Error + 'static> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Error(Box::new(error), 1)
    }
}

/// Runs one command.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut words = Words::new(arguments);
    let global = match Global::read(&mut words) {
        Ok(global) => global,
        Err(Usage(message)) => {
            output::fail(&message);
            return ExitCode::from(2);
        }
    };
    match dispatch(&global, &mut words) {
        Ok(code) => code,
        Err(Failed::Usage(Usage(message))) => {
            output::fail(&message);
            global.log.error(&message);
            ExitCode::from(2)
        }
        Err(Failed::Error(error, code)) => {
            let message = output::chain(error.as_ref());
            output::fail(&message);
            global.log.error(&message);
            ExitCode::from(code)
        }
    }
}

fn dispatch(global: &Global, words: &mut Words) -> Result<ExitCode, Failed> {
    let cgroups = crate::cgroups::options(global.systemd, global.rootless)
        .map_err(|message| Failed::Usage(Usage(message)))?;
    let runtime = Runtime::new(&global.root).with_cgroups(cgroups);
    let command = words.word("a command")?;
    if matches!(command.as_str(), "create" | "run" | "exec")
        && let Err(code) = crate::seal()
    {
        return Ok(code);
    }
    match command.as_str() {
        "create" => create::create(&runtime, words),
        "run" => create::run(&runtime, words),
        "start" => with_id(words, |id| start(global, &runtime, id)),
        "exec" => exec::exec(&runtime, words),
        "state" => show::state(&runtime, words),
        "list" => show::list(&runtime, words),
        "ps" => show::processes(&runtime, words),
        "kill" => kill(&runtime, words),
        "delete" => delete(&runtime, words),
        "pause" => with_id(words, |id| Ok(runtime.pause(id)?)),
        "resume" => with_id(words, |id| Ok(runtime.resume(id)?)),
        "update" => update(&runtime, words),
        "spec" => show::spec(words),
        "features" => show::document(&features::document()),
        "init-program" => init::write(words),
        "version" => {
            output::print(concat!(
                "carrack-runtime version ",
                env!("CARGO_PKG_VERSION"),
                "\nspec: 1.2.1\n"
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        "help" => {
            output::print(HELP)?;
            Ok(ExitCode::SUCCESS)
        }
        other => {
            Err(Usage(format!("command {other:?} is not known here; see carrack-runtime help"))
                .into())
        }
    }
}

/// The container a command is about.
fn id(words: &mut Words) -> Result<ContainerId, Failed> {
    Ok(words.word("the container's id")?.parse::<ContainerId>()?)
}

/// A command that takes an id and nothing else.
fn with_id(
    words: &mut Words,
    act: impl FnOnce(&ContainerId) -> Result<(), Failed>,
) -> Result<ExitCode, Failed> {
    if let Some(option) = words.option()? {
        return Err(unknown(&option).into());
    }
    let id = id(words)?;
    words.finish()?;
    act(&id)?;
    Ok(ExitCode::SUCCESS)
}

/// A container without a process has nothing to run and ends at once. That is told, and is
/// no failure: whoever made it that way asked for it, and crun's callers see the same.
fn start(global: &Global, runtime: &Runtime, id: &ContainerId) -> Result<(), Failed> {
    match runtime.start(id) {
        Err(error @ StartError::NoProcess { .. }) => {
            let message = error.to_string();
            output::fail(&message);
            global.log.warn(&message);
            Ok(())
        }
        other => Ok(other?),
    }
}

/// Options may stand before and behind the id.
fn flags(words: &mut Words, mut flag: impl FnMut(&str) -> bool) -> Result<(), Usage> {
    while let Some(option) = words.option()? {
        if !flag(&option) {
            return Err(unknown(&option));
        }
    }
    Ok(())
}

fn kill(runtime: &Runtime, words: &mut Words) -> Result<ExitCode, Failed> {
    let mut all = false;
    let mut flag = |option: &str| {
        all |= matches!(option, "--all" | "-a");
        matches!(option, "--all" | "-a")
    };
    flags(words, &mut flag)?;
    let id = id(words)?;
    flags(words, &mut flag)?;
    let signal = match words.rest()?.as_slice() {
        [] => libc::SIGTERM,
        [signal] => parse_signal(signal)?,
        [_, extra, ..] => return Err(Usage(format!("{extra} is one word too many")).into()),
    };
    runtime.kill(&id, signal, all)?;
    Ok(ExitCode::SUCCESS)
}

/// A number, or a name with or without `SIG`.
fn parse_signal(text: &str) -> Result<i32, Usage> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    if let Ok(number) = text.parse::<i32>() {
        return Ok(number);
    }
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number =
        NAMES.iter().position(|name| *name == bare).and_then(|index| i32::try_from(index + 1).ok());
    number.ok_or_else(|| Usage(format!("{text:?} is not a signal")))
}

fn delete(runtime: &Runtime, words: &mut Words) -> Result<ExitCode, Failed> {
    let mut force = false;
    let mut flag = |option: &str| {
        force |= matches!(option, "--force" | "-f");
        matches!(option, "--force" | "-f")
    };
    flags(words, &mut flag)?;
    let id = id(words)?;
    flags(words, &mut flag)?;
    words.finish()?;
    runtime.delete(&id, force)?;
    Ok(ExitCode::SUCCESS)
}

fn update(runtime: &Runtime, words: &mut Words) -> Result<ExitCode, Failed> {
    let mut file = None;
    let mut name = None;
    loop {
        while let Some(option) = words.option()? {
            match option.as_str() {
                "--resources" | "-r" => file = Some(words.text(&option)?),
                _ => return Err(unknown(&option).into()),
            }
        }
        if name.is_some() {
            break;
        }
        name = Some(id(words)?);
    }
    words.finish()?;
    let (Some(id), Some(file)) = (name, file) else {
        return Err(
            Usage("update needs --resources with a file, or - for standard input".into()).into()
        );
    };
    let resources = if file == "-" {
        serde_json::from_reader(std::io::stdin().lock())?
    } else {
        serde_json::from_slice(&carrack_linux::fs::read_bounded(Path::new(&file), 1 << 20)?)?
    };
    for warning in runtime.update(&id, &resources)? {
        output::fail(&format!("warning: {warning}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Hands the caller's end of a terminal to whoever listens at `socket`.
fn hand_over(console: &OwnedFd, socket: &Path) -> std::io::Result<()> {
    let stream = UnixStream::connect(socket)?;
    carrack_linux::socket::send(&stream, b"/dev/ptmx", &[console.as_fd()])?;
    Ok(())
}

/// The code a process ended with, as a shell tells it.
fn code_of(exit: carrack_linux::process::Exit) -> ExitCode {
    ExitCode::from(u8::try_from(exit.shell_code() & 0xff).unwrap_or(u8::MAX))
}

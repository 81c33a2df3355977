//! The OCI command line: arguments, one call, one answer.

mod checkpoint;
mod create;
mod events;
mod exec;
mod list;
mod processes;
mod signal;
mod spec;
mod update;

use std::collections::VecDeque;
use std::error::Error;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use carrack_container_runtime::{ContainerId, Runtime};

use crate::global::{Global, Instead};
use crate::options::{Arguments, Count, Flag, Usage};
use crate::output::Log;
use crate::{features, help, init, output};

/// A command: what it takes and what it does.
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// Its words, for people.
    pub(crate) arguments: &'static str,
    pub(crate) about: &'static str,
    pub(crate) details: &'static str,
    pub(crate) flags: &'static [Flag],
    pub(crate) words: Count,
    run: fn(&Context, &mut Arguments) -> Result<ExitCode, Failed>,
}

/// Every command there is.
pub(crate) const COMMANDS: &[&Command] = &[
    &checkpoint::CHECKPOINT,
    &create::CREATE,
    &signal::DELETE,
    &events::EVENTS,
    &exec::EXEC,
    &FEATURES,
    &INIT_PROGRAM,
    &signal::KILL,
    &list::LIST,
    &PAUSE,
    &processes::PS,
    &checkpoint::RESTORE,
    &RESUME,
    &create::RUN,
    &spec::SPEC,
    &create::START,
    &list::STATE,
    &update::UPDATE,
];

const FEATURES: Command = Command {
    name: "features",
    arguments: "",
    about: "show what this runtime can do, as JSON",
    details: "The document is that of features.md of the runtime specification.",
    flags: &[],
    words: Count::Exactly(0),
    run: |_, _| {
        output::print(&format!("{}\n", serde_json::to_string_pretty(&features::document())?))?;
        Ok(ExitCode::SUCCESS)
    },
};

const INIT_PROGRAM: Command = Command {
    name: "init-program",
    arguments: "",
    about: "write out the program that runs as process 1 in front of another",
    details: "",
    flags: &[Flag::valued("output", "FILE", "write it there [default: standard output]").short('o')],
    words: Count::Exactly(0),
    run: |_, arguments| init::write(arguments.path("output")),
};

const PAUSE: Command = Command {
    name: "pause",
    arguments: "ID",
    about: "make every process of a container stand still",
    details: "",
    flags: &[],
    words: Count::Exactly(1),
    run: |context, arguments| {
        context.runtime.pause(&arguments.id()?)?;
        Ok(ExitCode::SUCCESS)
    },
};

const RESUME: Command = Command {
    name: "resume",
    arguments: "ID",
    about: "let a paused container go on",
    details: "",
    flags: &[],
    words: Count::Exactly(1),
    run: |context, arguments| {
        context.runtime.resume(&arguments.id()?)?;
        Ok(ExitCode::SUCCESS)
    },
};

/// What a command works with.
pub(crate) struct Context {
    pub(crate) runtime: Runtime,
    pub(crate) global: Global,
}

impl Context {
    pub(crate) fn log(&self) -> &Log {
        &self.global.log
    }
}

/// Why a command did not do its work.
pub(crate) enum Failed {
    /// It was called wrongly.
    Usage(Usage),
    /// It failed, with the code to end with.
    Error(Box<dyn Error>, u8),
    /// It ends with this code, and why has been told.
    Told(ExitCode),
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
    let mut line: VecDeque<OsString> = arguments.collect();
    let global = match Global::read(&mut line) {
        Ok(global) => global,
        Err((log, Usage(message))) => {
            log.error(&message);
            return ExitCode::FAILURE;
        }
    };
    let log = global.log.clone();
    match dispatch(global, line) {
        Ok(code) | Err(Failed::Told(code)) => code,
        Err(Failed::Usage(Usage(message))) => {
            log.error(&message);
            ExitCode::FAILURE
        }
        Err(Failed::Error(error, code)) => {
            log.error(&output::chain(error.as_ref()));
            ExitCode::from(code)
        }
    }
}

fn dispatch(global: Global, mut line: VecDeque<OsString>) -> Result<ExitCode, Failed> {
    if global.instead == Some(Instead::Version) {
        return show(&version());
    }
    let name = line.pop_front().unwrap_or_default();
    let name = name.to_string_lossy().into_owned();
    if global.instead == Some(Instead::Help) || matches!(name.as_str(), "" | "help" | "h") {
        let topic = if name == "help" || name == "h" { line.pop_front() } else { None };
        return match topic {
            None => show(&help::program()),
            Some(topic) => show(&help::command(find(&topic.to_string_lossy(), &global.log)?)),
        };
    }
    let command = find(&name, &global.log)?;
    let mut arguments = Arguments::read(command.flags, command.words, line)?;
    if arguments.is_on("help") {
        return show(&help::command(command));
    }
    arguments.check_count(command.name, command.words)?;
    if matches!(command.name, "create" | "run" | "exec" | "restore") {
        crate::seal().map_err(Failed::Told)?;
    }
    global.log.debug(|| format!("{} with states in {}", command.name, global.root.display()));
    let cgroups = crate::cgroups::options(global.systemd, global.rootless).map_err(Usage)?;
    let runtime = Runtime::new(&global.root).with_cgroups(cgroups);
    (command.run)(&Context { runtime, global }, &mut arguments)
}

fn show(text: &str) -> Result<ExitCode, Failed> {
    output::print(text)?;
    Ok(ExitCode::SUCCESS)
}

/// For scripts that ask the way they ask other runtimes: three lines, each with its key.
fn version() -> String {
    format!(
        "carrack-runtime version {version}\ncommit: {version}\nspec: {spec}\n",
        version = env!("CARGO_PKG_VERSION"),
        spec = carrack_container_runtime::features::SPEC_VERSION,
    )
}

/// The code other runtimes end with for a command they do not know.
const UNKNOWN_COMMAND: u8 = 3;

fn find(name: &str, log: &Log) -> Result<&'static Command, Failed> {
    COMMANDS.iter().find(|command| command.name == name).copied().ok_or_else(|| {
        log.error(&format!("No help topic for '{name}': see carrack-runtime help"));
        Failed::Told(ExitCode::from(UNKNOWN_COMMAND))
    })
}

/// Hands a descriptor to whoever listens at `socket`.
fn hand_over(socket: &Path, name: &[u8], descriptor: BorrowedFd<'_>) -> std::io::Result<()> {
    let failed = |error: std::io::Error| {
        let message = format!("handing over to {}: {error}", socket.display());
        std::io::Error::new(error.kind(), message)
    };
    let stream = UnixStream::connect(socket).map_err(failed)?;
    carrack_linux::socket::send(&stream, name, &[descriptor.as_fd()]).map_err(failed)?;
    Ok(())
}

/// The code a process ended with, as a shell tells it.
fn code_of(exit: carrack_linux::process::Exit) -> ExitCode {
    ExitCode::from(u8::try_from(exit.shell_code() & 0xff).unwrap_or(u8::MAX))
}

/// The descriptors a service manager passed to this process, from 3 up.
fn listened() -> u32 {
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    let own = number("LISTEN_PID") == Some(std::process::id());
    if own { number("LISTEN_FDS").unwrap_or_default() } else { 0 }
}

/// How many descriptors the program inherits, all of which have to be there.
fn inherited(preserve: u32, listened: u32) -> Result<u32, Usage> {
    for number in (3 + listened)..(3 + listened + preserve) {
        if !Path::new(&format!("/proc/self/fd/{number}")).exists() {
            return Err(Usage(format!(
                "--preserve-fds {preserve}: descriptor {number} is not open; pass it, or fewer"
            )));
        }
    }
    Ok(preserve + listened)
}

/// A container's record below `root`, gone or not.
fn directory(context: &Context, id: &ContainerId) -> std::path::PathBuf {
    context.global.root.join(id.as_str())
}

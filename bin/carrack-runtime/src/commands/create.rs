use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use carrack_container_runtime::{
    ContainerId, CreateError, CreateExtras, CreateRequest, Created, Runtime, StartError, Stdio,
};
use carrack_linux::process;

use super::{Command, Context, Failed, code_of, hand_over, inherited, listened};
use crate::foreground::{self, Attended};
use crate::notify::{self, Notify};
use crate::options::{Arguments, Count, Flag, Usage};
use crate::output;
use crate::terminal::Terminal;

const BUNDLE: Flag =
    Flag::valued("bundle", "DIR", "the bundle [default: the working directory]").short('b');
const CONSOLE: Flag = Flag::valued(
    "console-socket",
    "SOCKET",
    "hand the container's terminal to whoever listens at SOCKET",
);
const PIDFD: Flag =
    Flag::valued("pidfd-socket", "SOCKET", "hand a descriptor of the process to SOCKET");
const PID_FILE: Flag = Flag::valued("pid-file", "FILE", "write the process id to FILE");
const NO_PIVOT: Flag =
    Flag::switch("no-pivot", "(refused: the root is always changed by pivot_root)");
const NO_KEYRING: Flag = Flag::switch("no-new-keyring", "keep the caller's session keyring");
const PRESERVE: Flag = Flag::valued(
    "preserve-fds",
    "N",
    "pass on N descriptors behind the standard streams and $LISTEN_FDS",
);

pub(super) const CREATE: Command = Command {
    name: "create",
    arguments: "ID",
    about: "make a container that waits for its start",
    details: "ID is yours to choose and unique on this machine.",
    flags: &[BUNDLE, CONSOLE, PIDFD, PID_FILE, NO_PIVOT, NO_KEYRING, PRESERVE],
    words: Count::Exactly(1),
    run: create,
};

pub(super) const RUN: Command = Command {
    name: "run",
    arguments: "ID",
    about: "create a container, start it, and stay until it ends",
    details: "Ends with the code of the program. Signals are passed on to it; with a terminal\n\
              (process.terminal) so are keys. The container is deleted at the end.",
    flags: &[
        BUNDLE,
        CONSOLE,
        PIDFD,
        PID_FILE,
        NO_PIVOT,
        NO_KEYRING,
        PRESERVE,
        Flag::switch("detach", "return once the program runs").short('d'),
        Flag::switch("keep", "do not delete the container when it ends"),
        Flag::switch("no-subreaper", "leave orphans of the container to somebody else"),
    ],
    words: Count::Exactly(1),
    run,
};

pub(super) const START: Command = Command {
    name: "start",
    arguments: "ID",
    about: "let a created container's program run",
    details: "With $NOTIFY_SOCKET set at create and start: returns once the program is ready.",
    flags: &[],
    words: Count::Exactly(1),
    run: start,
};

/// What `create` and `run` were asked.
struct Options {
    id: ContainerId,
    bundle: PathBuf,
    console_socket: Option<PathBuf>,
    pidfd_socket: Option<PathBuf>,
    pid_file: Option<PathBuf>,
    inherited: u32,
    extras: CreateExtras,
    detach: bool,
}

impl Options {
    fn read(arguments: &mut Arguments, detach: bool) -> Result<Self, Failed> {
        if arguments.is_on("no-pivot") {
            let message = "--no-pivot: a container whose root is only moved can get out of it, so \
                           it is always changed by pivot_root; leave the option out, and on a RAM \
                           disk put the root file system on a tmpfs";
            return Err(Usage(message.into()).into());
        }
        let listened = listened();
        let mut environment = Vec::new();
        if listened > 0 {
            environment = vec![format!("LISTEN_FDS={listened}"), "LISTEN_PID=1".into()];
        }
        let notify = notify::is_wanted();
        environment.extend(notify.then(|| notify::INSIDE.to_owned()));
        Ok(Self {
            bundle: arguments.path("bundle").unwrap_or_else(|| ".".into()),
            console_socket: arguments.path("console-socket"),
            pidfd_socket: arguments.path("pidfd-socket"),
            pid_file: arguments.path("pid-file"),
            inherited: inherited(arguments.number("preserve-fds")?.unwrap_or_default(), listened)?,
            extras: CreateExtras {
                environment,
                notify,
                keep_keyring: arguments.is_on("no-new-keyring"),
                plain_newlines: !detach,
            },
            detach,
            id: arguments.id()?,
        })
    }

    /// Whether the configuration asks for a terminal, and that somebody takes it.
    fn terminal(&self) -> Result<bool, Failed> {
        let path = self.bundle.join("config.json");
        let bytes = carrack_linux::fs::read_bounded(&path, 16 << 20).map_err(|error| {
            io::Error::new(error.kind(), format!("reading {}: {error}", path.display()))
        })?;
        let config: serde_json::Value = serde_json::from_slice(&bytes)?;
        let terminal = config["process"]["terminal"].as_bool().unwrap_or(false);
        check_terminal(terminal, self.detach, self.console_socket.is_some())?;
        Ok(terminal)
    }

    fn create(&self, context: &Context, terminal: bool) -> Result<Created, Failed> {
        let request = CreateRequest {
            id: &self.id,
            bundle: &self.bundle,
            stdio: if terminal { Stdio::Terminal } else { Stdio::Inherit },
            pid_file: self.pid_file.as_deref(),
            preserve_fds: self.inherited,
            init: None,
        };
        let created = context.runtime.create_with(request, &self.extras)?;
        context.log().debug(|| format!("created {} as process {:?}", self.id, created.pid));
        for warning in &created.warnings {
            context.log().warn(&warning.to_string());
        }
        if let Err(error) = self.hand_over(&created) {
            // Nobody would ever see this container.
            context.runtime.delete(&self.id, true)?;
            return Err(error.into());
        }
        Ok(created)
    }

    fn hand_over(&self, created: &Created) -> io::Result<()> {
        if let (Some(console), Some(socket)) = (&created.console, &self.console_socket) {
            hand_over(socket, b"/dev/ptmx", console.as_fd())?;
        }
        if let Some(socket) = &self.pidfd_socket {
            hand_over(socket, b"standard", created.pidfd.as_fd())?;
        }
        Ok(())
    }

    fn listen(&self, runtime: &Runtime) -> io::Result<Option<Notify>> {
        let listen = || Notify::listen(&runtime.notify_directory(&self.id));
        self.extras.notify.then(listen).transpose()
    }
}

/// A terminal needs somebody at its other end.
pub(super) fn check_terminal(terminal: bool, detach: bool, socket: bool) -> Result<(), Usage> {
    if detach && terminal && !socket {
        let message = "process.terminal is set, and nobody takes the terminal: cannot allocate tty \
                       if the runtime will detach without setting console socket; give \
                       --console-socket";
        return Err(Usage(message.into()));
    }
    if socket && !(detach && terminal) {
        let message = "--console-socket: cannot use console socket if the runtime will not detach \
                       or allocate tty (process.terminal is not set, or the command stays); leave \
                       it out";
        return Err(Usage(message.into()));
    }
    Ok(())
}

fn create(context: &Context, arguments: &mut Arguments) -> Result<ExitCode, Failed> {
    let options = Options::read(arguments, true)?;
    let terminal = options.terminal()?;
    options.create(context, terminal)?;
    Ok(ExitCode::SUCCESS)
}

/// With the code that a shell gives a program it cannot run, for whoever runs one.
fn as_a_shell(failed: Failed) -> Failed {
    match failed {
        Failed::Error(error, code) => {
            let found = error.downcast_ref().and_then(CreateError::exit_code);
            let code = found.and_then(|found| u8::try_from(found).ok()).unwrap_or(code);
            Failed::Error(error, code)
        }
        other @ (Failed::Usage(_) | Failed::Told(_)) => other,
    }
}

fn run(context: &Context, arguments: &mut Arguments) -> Result<ExitCode, Failed> {
    let options = Options::read(arguments, arguments.is_on("detach"))?;
    let keep = arguments.is_on("keep");
    let asked = options.terminal()?;
    let terminal = (asked && !options.detach).then(Terminal::find).transpose()?;
    if !options.detach && !arguments.is_on("no-subreaper") {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    }
    let created = options.create(context, asked).map_err(as_a_shell)?;
    let ended = begin(context, &options, created, terminal);
    match ended {
        Ok(None) => Ok(ExitCode::SUCCESS),
        Ok(Some(exit)) => {
            let code = exit.shell_code();
            if let Some(cause) = context.runtime.explain_exit(&options.id, code) {
                output::fail(&format!("the program ended with code {code}: {cause}"));
            }
            if !keep {
                context.runtime.delete(&options.id, true)?;
            }
            Ok(code_of(exit))
        }
        Err(error) => {
            if !keep {
                context.runtime.delete(&options.id, true)?;
            }
            Err(error)
        }
    }
}

/// Starts what was created and stays with it, unless detached.
fn begin(
    context: &Context,
    options: &Options,
    created: Created,
    terminal: Option<Terminal>,
) -> Result<Option<process::Exit>, Failed> {
    let notify = options.listen(&context.runtime)?;
    let signals = (!options.detach).then(foreground::hold_signals).transpose()?;
    if let (Some(console), Some(terminal)) = (&created.console, &terminal) {
        terminal.resize(console);
    }
    if let Err(error) = context.runtime.start(&options.id) {
        let code = error.exit_code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
        return Err(Failed::Error(Box::new(error), code));
    }
    context.log().debug(|| format!("started {}", options.id));
    let Created { pid, pidfd, console, .. } = created;
    match signals {
        None => {
            if let Some(notify) = notify {
                notify.wait(&pidfd, pid.as_raw_nonzero().get())?;
            }
            Ok(None)
        }
        Some(signals) => {
            let terminal = console.zip(terminal);
            Ok(Some(Attended { pid, pidfd, signals, terminal, notify }.attend()?))
        }
    }
}

fn start(context: &Context, arguments: &mut Arguments) -> Result<ExitCode, Failed> {
    let id = arguments.id()?;
    let directory = context.runtime.notify_directory(&id);
    let watched = if notify::is_wanted() && directory.is_dir() {
        watch(&context.runtime, &id, &directory)?
    } else {
        None
    };
    match context.runtime.start(&id) {
        // It has nothing to run and ends at once, as whoever made it that way asked for.
        Err(error @ StartError::NoProcess { .. }) => context.log().warn(&error.to_string()),
        answer => answer?,
    }
    if let Some((notify, pid, pidfd)) = watched {
        notify.wait(&pidfd, pid)?;
    }
    Ok(ExitCode::SUCCESS)
}

type Watched = Option<(Notify, i32, std::os::fd::OwnedFd)>;

/// The first process of a created container, and the socket it will speak to.
fn watch(runtime: &Runtime, id: &ContainerId, directory: &Path) -> Result<Watched, Failed> {
    let Some(pid) = runtime.state(id)?.pid else { return Ok(None) };
    let pidfd = process::open(pid)?;
    Ok(Some((Notify::listen(directory)?, pid.as_raw_nonzero().get(), pidfd)))
}

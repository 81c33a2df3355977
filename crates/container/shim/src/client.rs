//! Asking a shim: what the engine and the builder hold on to.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, PidfdFlags};
use rustix::termios::Winsize;

use crate::config::{ExecConfig, Log, ShimConfig};
use crate::error::ShimError;
use crate::protocol::{self, Answer, Request, State, Stats};
use crate::record::{self, Exit};

/// A shim, reached through its directory.
///
/// Every call is a connection of its own and waits for its answer, so one client
/// may be used from several threads; none of them holds up another. Calls return
/// [`ShimError::Gone`] once the shim is dead, also in the middle of a call.
#[derive(Clone, Debug)]
pub struct Client {
    directory: PathBuf,
    pid: i32,
}

/// A process's streams, as far as it has them.
///
/// With a terminal, `stdin` and `stdout` are two handles on it and `stderr` is
/// absent. Otherwise they are pipes; dropping `stdin` is how a process started by
/// [`Client::exec`] reads end-of-file.
#[derive(Debug, Default)]
pub struct Streams {
    /// Writes what the process reads.
    pub stdin: Option<OwnedFd>,
    /// Reads what the process writes.
    pub stdout: Option<OwnedFd>,
    /// Reads its errors.
    pub stderr: Option<OwnedFd>,
}

/// A process added to a container: its streams, and the hold on it.
#[derive(Debug)]
pub struct ExecStream {
    /// What it reads and writes.
    pub streams: Streams,
    /// The hold on it.
    pub control: ExecControl,
}

/// The hold on a process added to a container.
///
/// Dropping it before the process ended kills the process, unless it was started
/// detached. Becomes readable (see [`AsFd`]) when the process ended or the shim is
/// gone.
#[derive(Debug)]
pub struct ExecControl {
    /// The process, on the host.
    pub pid: i32,
    console: Option<OwnedFd>,
    watch: ExitWatch,
}

/// Waits for the end of a process, without holding a thread.
///
/// The descriptor behind [`AsFd`] becomes readable when the process ended or the
/// shim is gone; [`ExitWatch::receive`] then tells which, without waiting.
#[derive(Debug)]
pub struct ExitWatch {
    directory: PathBuf,
    connection: UnixStream,
}

impl Client {
    /// Starts a shim in `directory` from `program`, and has it create the container.
    ///
    /// On return all of the container stands except the user's program, which
    /// [`Client::start`] starts. The shim is nobody's child and outlives the caller.
    /// If it fails nothing is left running.
    ///
    /// # Errors
    ///
    /// [`ShimError::Refused`] when the container cannot be created.
    pub fn spawn(program: &Path, directory: &Path, config: &ShimConfig) -> Result<Self, ShimError> {
        if config.log == Log::Descriptors {
            let message = "the log goes to descriptors, and none were given";
            let source = io::Error::new(io::ErrorKind::InvalidInput, message);
            return Err(spawn_error(program, directory, source));
        }
        Self::spawn_passing(program, directory, config, &[])
    }

    /// Like [`Client::spawn`] for [`Log::Descriptors`]: the container writes straight
    /// to `stdout` and `stderr`.
    ///
    /// # Errors
    ///
    /// As [`Client::spawn`].
    pub fn spawn_with_output(
        program: &Path,
        directory: &Path,
        config: &ShimConfig,
        stdout: OwnedFd,
        stderr: OwnedFd,
    ) -> Result<Self, ShimError> {
        let config = ShimConfig { log: Log::Descriptors, ..config.clone() };
        Self::spawn_passing(program, directory, &config, &[stdout.as_fd(), stderr.as_fd()])
    }

    fn spawn_passing(
        program: &Path,
        directory: &Path,
        config: &ShimConfig,
        output: &[BorrowedFd<'_>],
    ) -> Result<Self, ShimError> {
        let failed = |source| spawn_error(program, directory, source);
        write_config(directory, config).map_err(failed)?;
        let connection = launch(program, directory).map_err(failed)?;
        let conversation = conversation_error("creating the container", directory);
        protocol::send(&connection, &Request::Start, output).map_err(&conversation)?;
        let mut none = Vec::new();
        match protocol::receive(&connection, &mut none).map_err(&conversation)? {
            Some(Answer::Refused { kind, message }) => {
                Err(ShimError::Refused { attempt: "creating the container", kind, message })
            }
            Some(_) => Self::connect(directory),
            None => Err(ShimError::Stillborn {
                directory: directory.to_owned(),
                log: end_of_log(directory),
            }),
        }
    }

    /// Finds the shim that holds the container of `directory`.
    ///
    /// # Errors
    ///
    /// [`ShimError::Gone`] when there is none, or none any more.
    pub fn connect(directory: &Path) -> Result<Self, ShimError> {
        let connection = dial("finding the shim", directory)?;
        let peer = rustix::net::sockopt::socket_peercred(&connection)
            .map_err(|error| conversation_error("finding the shim", directory)(error.into()))?;
        Ok(Self { directory: directory.to_owned(), pid: peer.pid.as_raw_pid() })
    }

    /// The shim's directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The shim's process id.
    #[must_use]
    pub fn shim_pid(&self) -> i32 {
        self.pid
    }

    /// A handle on the shim's process, which becomes readable when it dies.
    ///
    /// # Errors
    ///
    /// [`ShimError::Gone`] when it already has.
    pub fn shim_pidfd(&self) -> Result<OwnedFd, ShimError> {
        let gone = || ShimError::Gone { directory: self.directory.clone() };
        let pid = Pid::from_raw(self.pid).ok_or_else(gone)?;
        let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|_| gone())?;
        // Whoever had the number when the handle was opened is still the shim if the
        // socket's owner has that number afterwards.
        let now = Self::connect(&self.directory)?;
        if now.pid == self.pid { Ok(handle) } else { Err(gone()) }
    }

    /// Starts the user's program.
    ///
    /// # Errors
    ///
    /// [`ShimError::Refused`], of a kind that tells a missing program and one that
    /// cannot be executed from the rest.
    pub fn start(&self) -> Result<(), ShimError> {
        self.done("starting the container", &Request::Start)
    }

    /// Sends a signal to the container's first process, or to all of its processes.
    ///
    /// # Errors
    ///
    /// [`ShimError::Refused`] once the container has ended.
    pub fn kill(&self, signal: i32, all: bool) -> Result<(), ShimError> {
        self.done("signaling the container", &Request::Kill { signal, all })
    }

    /// Waits until the container's first process has ended.
    ///
    /// All it wrote is in the log by then, and the exit is on disk.
    ///
    /// # Errors
    ///
    /// [`ShimError::Gone`] when the shim dies first.
    pub fn wait(&self) -> Result<Exit, ShimError> {
        self.watch()?.receive()
    }

    /// Like [`Client::wait`], to be waited for by other means than a thread.
    ///
    /// # Errors
    ///
    /// [`ShimError::Gone`] when the shim is dead already.
    pub fn watch(&self) -> Result<ExitWatch, ShimError> {
        let attempt = "waiting for the container";
        let connection = dial(attempt, &self.directory)?;
        protocol::send(&connection, &Request::Wait, &[])
            .map_err(conversation_error(attempt, &self.directory))?;
        Ok(ExitWatch { directory: self.directory.clone(), connection })
    }

    /// Runs one more process in the container.
    ///
    /// # Errors
    ///
    /// As [`Client::start`].
    pub fn exec(&self, config: ExecConfig) -> Result<ExecStream, ShimError> {
        let attempt = "running a process in the container";
        let terminal = config.process.terminal && !config.detached;
        let request = Request::Exec(Box::new(config));
        let (connection, pid, streams) = self.streams(attempt, &request)?;
        let console = streams.stdout.as_ref().filter(|_| terminal).map(OwnedFd::try_clone);
        let console = console.transpose().map_err(conversation_error(attempt, &self.directory))?;
        let watch = ExitWatch { directory: self.directory.clone(), connection };
        Ok(ExecStream { streams, control: ExecControl { pid, console, watch } })
    }

    /// Connects to the container's own streams, from now on.
    ///
    /// `stdin` is there if the container was created with it open. Output is not lost
    /// for those who attach before [`Client::start`]. Someone who attaches and does
    /// not read holds the container up once the pipe is full; someone who goes away
    /// does not.
    ///
    /// # Errors
    ///
    /// [`ShimError::Refused`] once the container has ended.
    pub fn attach(&self) -> Result<Streams, ShimError> {
        self.streams("attaching to the container", &Request::Attach).map(|answer| answer.2)
    }

    /// Tells the container's terminal its size.
    ///
    /// # Errors
    ///
    /// [`ShimError::Refused`] when it has no terminal.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<(), ShimError> {
        self.done("resizing the container's terminal", &Request::Resize { columns, rows })
    }

    /// Lets go of the container's standard input, so that it reads end-of-file once
    /// all who attached have let go too.
    ///
    /// # Errors
    ///
    /// [`ShimError::Gone`] when the shim is dead.
    pub fn close_stdin(&self) -> Result<(), ShimError> {
        self.done("closing the container's input", &Request::CloseStdin)
    }

    /// Where the container is in its life.
    ///
    /// # Errors
    ///
    /// [`ShimError::Gone`] when the shim is dead.
    pub fn state(&self) -> Result<State, ShimError> {
        match self.ask("asking for the container's state", &Request::State)? {
            Answer::State(state) => Ok(state),
            _ => Err(self.strange("asking for the container's state")),
        }
    }

    /// Freezes all of the container's processes.
    ///
    /// # Errors
    ///
    /// [`ShimError::Refused`] when it does not run.
    pub fn pause(&self) -> Result<(), ShimError> {
        self.done("pausing the container", &Request::Pause)
    }

    /// Lets a frozen container go on.
    ///
    /// # Errors
    ///
    /// [`ShimError::Refused`] when it is not frozen.
    pub fn resume(&self) -> Result<(), ShimError> {
        self.done("resuming the container", &Request::Resume)
    }

    /// What the container uses of the machine.
    ///
    /// # Errors
    ///
    /// [`ShimError::Refused`] when it has ended.
    pub fn stats(&self) -> Result<Stats, ShimError> {
        match self.ask("measuring the container", &Request::Stats)? {
            Answer::Stats(stats) => Ok(stats),
            _ => Err(self.strange("measuring the container")),
        }
    }

    /// Removes a container that has ended, and ends its shim.
    ///
    /// With `force` one that runs is killed first. The logs and the record of the exit
    /// stay in the directory.
    ///
    /// # Errors
    ///
    /// [`ShimError::Refused`] when it still runs and `force` was not given.
    pub fn delete(self, force: bool) -> Result<(), ShimError> {
        self.done("deleting the container", &Request::Delete { force })
    }

    fn done(&self, attempt: &'static str, request: &Request) -> Result<(), ShimError> {
        match self.ask(attempt, request)? {
            Answer::Done => Ok(()),
            _ => Err(self.strange(attempt)),
        }
    }

    fn ask(&self, attempt: &'static str, request: &Request) -> Result<Answer, ShimError> {
        self.converse(attempt, request).map(|(_, answer, _)| answer)
    }

    fn streams(
        &self,
        attempt: &'static str,
        request: &Request,
    ) -> Result<(UnixStream, i32, Streams), ShimError> {
        let (connection, answer, descriptors) = self.converse(attempt, request)?;
        let Answer::Streams { pid, stdin, stdout, stderr } = answer else {
            return Err(self.strange(attempt));
        };
        let mut descriptors = descriptors.into_iter();
        let mut next = |there: bool| if there { descriptors.next() } else { None };
        let streams = Streams { stdin: next(stdin), stdout: next(stdout), stderr: next(stderr) };
        Ok((connection, pid, streams))
    }

    fn converse(
        &self,
        attempt: &'static str,
        request: &Request,
    ) -> Result<(UnixStream, Answer, Vec<OwnedFd>), ShimError> {
        let connection = dial(attempt, &self.directory)?;
        let broken = conversation_error(attempt, &self.directory);
        protocol::send(&connection, request, &[]).map_err(&broken)?;
        let mut descriptors = Vec::new();
        let answer = listen(attempt, &self.directory, &connection, &mut descriptors)?;
        Ok((connection, answer, descriptors))
    }

    fn strange(&self, attempt: &'static str) -> ShimError {
        conversation_error(attempt, &self.directory)(io::Error::new(
            io::ErrorKind::InvalidData,
            "the shim answered something else; was it started by another version?",
        ))
    }
}

impl ExitWatch {
    /// How the process ended. Waits if it has not.
    ///
    /// # Errors
    ///
    /// [`ShimError::Gone`] when the shim died first.
    pub fn receive(&self) -> Result<Exit, ShimError> {
        let attempt = "waiting for a process to end";
        match listen(attempt, &self.directory, &self.connection, &mut Vec::new())? {
            Answer::Exit(exit) => Ok(exit),
            _ => Err(ShimError::Gone { directory: self.directory.clone() }),
        }
    }
}

impl AsFd for ExitWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl ExecControl {
    /// Sends the process a signal. One that has ended takes no notice.
    ///
    /// # Errors
    ///
    /// [`ShimError::Conversation`]. That the shim is gone is for
    /// [`ExecControl::receive`] to say.
    pub fn kill(&self, signal: i32) -> Result<(), ShimError> {
        let request = Request::Kill { signal, all: false };
        let sent = protocol::send(&self.watch.connection, &request, &[])
            .map_err(conversation_error("signaling a process", &self.watch.directory));
        // The shim closes the connection once it has told of the end.
        sent.or_else(|error| if error.is_gone() { Ok(()) } else { Err(error) })
    }

    /// Tells its terminal its size. Without a terminal this does nothing.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        match &self.console {
            Some(console) => Ok(rustix::termios::tcsetwinsize(console, winsize(columns, rows))?),
            None => Ok(()),
        }
    }

    /// How the process ended. Waits if it has not.
    ///
    /// # Errors
    ///
    /// [`ShimError::Gone`] when the shim died first.
    pub fn receive(&self) -> Result<Exit, ShimError> {
        self.watch.receive()
    }
}

impl AsFd for ExecControl {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}

pub(crate) fn winsize(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// The shim works in the root directory, so that it keeps no other busy; what it is told
/// must not depend on where the client works.
fn write_config(directory: &Path, config: &ShimConfig) -> io::Result<()> {
    let mut config = config.clone();
    config.bundle = std::path::absolute(&config.bundle)?;
    config.runtime_root = std::path::absolute(&config.runtime_root)?;
    if let Log::Lines { path, .. } = &mut config.log {
        *path = std::path::absolute(&path)?;
    }
    fs::create_dir_all(directory)?;
    fs::write(directory.join(record::CONFIG), serde_json::to_vec_pretty(&config)?)
}

/// Runs `program` until it has put the shim into the background, and returns the
/// socket on which the shim will say how it went.
fn launch(program: &Path, directory: &Path) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    let log =
        OpenOptions::new().create(true).append(true).open(directory.join(record::SHIM_LOG))?;
    let status = Command::new(program)
        .arg0("carrack-runtime")
        .args([OsStr::new("shim"), OsStr::new("--dir")])
        .arg(std::path::absolute(directory)?)
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(log)
        .env_clear()
        .status()?;
    if status.success() {
        return Ok(ours);
    }
    Err(io::Error::other(format!("{status}: {}", end_of_log(directory))))
}

fn dial(attempt: &'static str, directory: &Path) -> Result<UnixStream, ShimError> {
    let gone = || ShimError::Gone { directory: directory.to_owned() };
    let opened = File::open(directory).and_then(|opened| {
        carrack_linux::socket::connect_in(opened.as_fd(), OsStr::new(record::SOCKET))
    });
    opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => gone(),
        _ => conversation_error(attempt, directory)(error),
    })
}

fn listen(
    attempt: &'static str,
    directory: &Path,
    connection: &UnixStream,
    descriptors: &mut Vec<OwnedFd>,
) -> Result<Answer, ShimError> {
    match protocol::receive(connection, descriptors) {
        Ok(Some(Answer::Refused { kind, message })) => {
            Err(ShimError::Refused { attempt, kind, message })
        }
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(ShimError::Gone { directory: directory.to_owned() }),
        Err(error) => Err(conversation_error(attempt, directory)(error)),
    }
}

/// A peer that vanished shows in several ways, all of them [`ShimError::Gone`].
fn conversation_error(attempt: &'static str, directory: &Path) -> impl Fn(io::Error) -> ShimError {
    let directory = directory.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionRefused => ShimError::Gone { directory: directory.clone() },
        _ => ShimError::Conversation { attempt, directory: directory.clone(), source },
    }
}

fn spawn_error(program: &Path, directory: &Path, source: io::Error) -> ShimError {
    ShimError::Spawn { program: program.to_owned(), directory: directory.to_owned(), source }
}

/// The last line or two of `shim.log`, for a message.
fn end_of_log(directory: &Path) -> String {
    let log = fs::read(directory.join(record::SHIM_LOG)).unwrap_or_default();
    let text = String::from_utf8_lossy(&log);
    match text.trim_end().lines().last() {
        Some(line) => line.to_owned(),
        None => String::from("it said nothing"),
    }
}

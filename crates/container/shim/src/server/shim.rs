//! The state of one shim, and what each event does to it.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use carrack_linux::process::{self, Exit as Ended};
use jiff::Timestamp;
use rustix::pipe::PipeFlags;
use rustix::process::Pid;

use super::container::Ends;
use super::output::Stream;
use super::setup::{self, Held};
use super::{Refused, attempting};
use crate::client::winsize;
use crate::config::{ExecConfig, Log};
use crate::poll::{EventFlags, Token};
use crate::protocol::{self, Answer, Decoder, Request, State, Status};
use crate::record::{self, Exit};

/// More connections than this are closed as they come.
const CONNECTIONS_MAX: usize = 512;
/// How long those who attached may take to read the rest once all else is done.
const LINGER: Duration = Duration::from_secs(10);

/// One container, held.
#[derive(Debug)]
pub(super) struct Shim {
    directory: PathBuf,
    held: Held,
    status: Status,
    started_at: Option<Timestamp>,
    exit: Option<Exit>,
    connections: Vec<Connection>,
    added: Vec<Added>,
    /// Set once the container is deleted: when to end at the latest.
    ending: Option<Instant>,
}

/// A client's connection.
#[derive(Debug)]
struct Connection {
    token: Token,
    stream: UnixStream,
    decoder: Decoder,
    waits: bool,
    deletes: bool,
}

/// A process somebody added to the container.
#[derive(Debug)]
struct Added {
    pid: Pid,
    pidfd: OwnedFd,
    /// Whose it is; it dies with that connection.
    owner: Option<Token>,
}

/// What to tell a client, and the descriptors to go along.
type Reply = (Answer, Vec<OwnedFd>);

impl Shim {
    /// Makes the container; see [`setup::create`].
    pub(super) fn create(
        directory: &Path,
        output: Vec<OwnedFd>,
        init: Option<&[u8]>,
    ) -> Result<Self, Refused> {
        Ok(Self {
            directory: directory.to_owned(),
            held: setup::create(directory, output, init)?,
            status: Status::Created,
            started_at: None,
            exit: None,
            connections: Vec::new(),
            added: Vec::new(),
            ending: None,
        })
    }

    /// Serves until the container is deleted.
    pub(super) fn run(mut self) -> io::Result<()> {
        loop {
            let left = self.ending.map(|end| end.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero() || !self.held.output.is_pending()) {
                return Ok(());
            }
            for (token, flags) in self.held.poll.wait(left)? {
                self.handle(token, flags);
            }
        }
    }

    fn handle(&mut self, token: Token, flags: EventFlags) {
        if token == self.held.listener.0 {
            self.accept();
        } else if token == self.held.signals.0 {
            self.held.signals.1.drain();
            self.reap();
        } else if let Some(index) = self.connections.iter().position(|known| known.token == token) {
            self.converse(index);
        } else {
            self.held.output.handle(&self.held.poll, token, flags);
        }
    }

    fn accept(&mut self) {
        let Ok((stream, _)) = self.held.listener.1.accept() else { return };
        if self.connections.len() >= CONNECTIONS_MAX || !is_trusted(&stream) {
            return;
        }
        let added =
            stream.set_nonblocking(true).and_then(|()| self.held.poll.add(&stream, EventFlags::IN));
        if let Ok(token) = added {
            let decoder = Decoder::default();
            self.connections.push(Connection {
                token,
                stream,
                decoder,
                waits: false,
                deletes: false,
            });
        }
    }

    /// Reads what a client says, and does it.
    fn converse(&mut self, index: usize) {
        let mut connection = self.connections.swap_remove(index);
        let mut buffer = [0_u8; 4096];
        // Clients have no descriptors to send; any that come are closed.
        let read = carrack_linux::socket::receive(&connection.stream, &mut buffer, &mut Vec::new());
        let keep = match read {
            Ok(0) => false,
            Ok(read) => {
                connection.decoder.feed(buffer.get(..read).unwrap_or_default());
                self.answer_all(&mut connection)
            }
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        if keep {
            self.connections.push(connection);
        } else {
            self.abandon(&connection);
        }
    }

    /// Answers every whole request that has come. `false` ends the connection.
    fn answer_all(&mut self, connection: &mut Connection) -> bool {
        loop {
            let frame = match connection.decoder.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => return true,
                Err(_) => return false,
            };
            let Ok(request) = serde_json::from_slice(&frame) else { return false };
            let reply = match self.obey(connection, request) {
                Ok(None) => continue,
                Ok(Some(reply)) => reply,
                Err(Refused { kind, message }) => (Answer::Refused { kind, message }, Vec::new()),
            };
            if !tell(connection, &reply) {
                return false;
            }
        }
    }

    /// Does what a client asks. `None` when the answer has to wait.
    fn obey(
        &mut self,
        connection: &mut Connection,
        request: Request,
    ) -> Result<Option<Reply>, Refused> {
        let done = || Ok(Some((Answer::Done, Vec::new())));
        match request {
            Request::Start => self.start().and_then(|()| done()),
            Request::Kill { signal, all } => self.kill(connection.token, signal, all),
            Request::Wait => match &self.exit {
                Some(exit) => Ok(Some((Answer::Exit(exit.clone()), Vec::new()))),
                None => {
                    connection.waits = true;
                    Ok(None)
                }
            },
            Request::Exec(config) => self.exec(connection.token, &config).map(Some),
            Request::Attach => self.attach().map(Some),
            Request::Resize { columns, rows } => self.resize(columns, rows).and_then(|()| done()),
            Request::CloseStdin => {
                self.held.stdin = None;
                done()
            }
            Request::State => Ok(Some((Answer::State(self.state()), Vec::new()))),
            Request::Pause => {
                self.expect(Status::Running)?;
                self.held.container.pause()?;
                self.status = Status::Paused;
                done()
            }
            Request::Resume => {
                self.expect(Status::Paused)?;
                self.held.container.resume()?;
                self.status = Status::Running;
                done()
            }
            Request::Stats => Ok(Some((Answer::Stats(self.held.container.stats()?), Vec::new()))),
            Request::Delete { force } => self.delete(connection, force),
        }
    }

    fn start(&mut self) -> Result<(), Refused> {
        self.expect(Status::Created)?;
        self.held.container.start()?;
        self.status = Status::Running;
        self.started_at = Some(Timestamp::now());
        Ok(())
    }

    /// Signals the container, or the process that the connection added to it.
    fn kill(&self, token: Token, signal: i32, all: bool) -> Result<Option<Reply>, Refused> {
        if let Some(added) = self.added.iter().find(|added| added.owner == Some(token)) {
            // It may have ended a moment ago; its owner is about to hear of that.
            process::signal(added.pidfd.as_fd(), signal).ok();
            return Ok(None);
        }
        if self.exit.is_some() {
            return Err(Refused::wrong_state("it has ended already"));
        }
        self.held.container.kill(signal, all)?;
        Ok(Some((Answer::Done, Vec::new())))
    }

    fn exec(&mut self, token: Token, config: &ExecConfig) -> Result<Reply, Refused> {
        self.expect(Status::Running)?;
        let (executed, ends) = self.held.container.exec(config)?;
        let owner = (!config.detached).then_some(token);
        self.added.push(Added { pid: executed.pid, pidfd: executed.pidfd, owner });
        Ok(streams(executed.pid, ends))
    }

    fn attach(&mut self) -> Result<Reply, Refused> {
        if self.exit.is_some() {
            return Err(Refused::wrong_state("it has ended already"));
        }
        if self.held.config.log == Log::Descriptors {
            return Err(Refused::wrong_state("its output goes straight to whoever created it"));
        }
        let ends = self.make_ends().map_err(attempting("making pipes"))?;
        Ok(streams(self.held.init, ends))
    }

    /// Ends for somebody who attaches: they are told what is said from now on.
    fn make_ends(&mut self) -> io::Result<Ends> {
        let input = if self.held.config.open_stdin { self.input() } else { None };
        let stdin = input.map(|input| input.try_clone_to_owned()).transpose()?;
        let stdout = Some(self.make_sink(Stream::Stdout)?);
        let stderr =
            if self.held.config.terminal { None } else { Some(self.make_sink(Stream::Stderr)?) };
        Ok(Ends { stdin, stdout, stderr })
    }

    fn input(&self) -> Option<BorrowedFd<'_>> {
        self.held.console.as_ref().or(self.held.stdin.as_ref()).map(|input| input.as_fd())
    }

    fn make_sink(&mut self, stream: Stream) -> io::Result<OwnedFd> {
        let (theirs, ours) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        self.held.output.add_sink(&mut self.held.poll, ours, stream)?;
        Ok(theirs)
    }

    fn resize(&self, columns: u16, rows: u16) -> Result<(), Refused> {
        let console =
            self.held.console.as_ref().ok_or_else(|| Refused::wrong_state("it has no terminal"))?;
        rustix::termios::tcsetwinsize(console, winsize(columns, rows))
            .map_err(|error| attempting("setting the size")(error.into()))
    }

    fn state(&self) -> State {
        State {
            status: self.status,
            pid: self.exit.is_none().then(|| self.held.init.as_raw_pid()),
            started_at: self.started_at,
            exit: self.exit.clone(),
            lost_lines: self.held.output.lost_lines(),
        }
    }

    fn delete(
        &mut self,
        connection: &mut Connection,
        force: bool,
    ) -> Result<Option<Reply>, Refused> {
        if self.exit.is_some() {
            return self.finish_delete().map(|()| Some((Answer::Done, Vec::new())));
        }
        if !force {
            return Err(Refused::wrong_state("it has not ended; stop it first, or force it"));
        }
        self.held.container.kill(libc::SIGKILL, true)?;
        connection.deletes = true;
        Ok(None)
    }

    fn finish_delete(&mut self) -> Result<(), Refused> {
        if self.ending.is_none() {
            self.held.container.delete()?;
            fs::remove_file(self.directory.join(record::SOCKET))
                .map_err(attempting("removing the shim's socket"))?;
            self.ending = Some(Instant::now() + LINGER);
        }
        Ok(())
    }

    fn expect(&self, status: Status) -> Result<(), Refused> {
        if self.status == status {
            return Ok(());
        }
        let name = |status| match status {
            Status::Created => "created and not started",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        };
        let message = format!("it is {}, and has to be {}", name(self.status), name(status));
        Err(Refused::wrong_state(message))
    }

    /// Takes in every child that has ended, ours and those left to us.
    fn reap(&mut self) {
        while let Ok(Some((pid, ended))) = process::try_wait_any() {
            let exit = self.exit_of(pid, ended);
            if pid == self.held.init {
                self.finish(exit);
            } else if let Some(index) = self.added.iter().position(|added| added.pid == pid) {
                let added = self.added.swap_remove(index);
                self.tell_owner(&added, exit);
            }
        }
    }

    fn exit_of(&self, pid: Pid, ended: Ended) -> Exit {
        let signal = match ended {
            Ended::Signal(signal) => Some(signal),
            Ended::Code(_) => None,
        };
        // A process that was added is not asked about unless the kernel may have killed it.
        let asks = pid == self.held.init || signal == Some(libc::SIGKILL);
        let oom = asks && self.held.container.stats().is_ok_and(|stats| stats.oom_kills > 0);
        Exit { code: ended.shell_code(), signal, at: Timestamp::now(), oom }
    }

    /// The container has ended: all it wrote goes to the log, then its exit to the disk,
    /// then the word to those who wait for it.
    fn finish(&mut self, exit: Exit) {
        self.held.output.finish(&self.held.poll);
        self.held.console = None;
        self.held.stdin = None;
        self.status = Status::Stopped;
        self.record(&exit);
        self.exit = Some(exit.clone());
        for mut connection in std::mem::take(&mut self.connections) {
            let reply = if connection.deletes {
                match self.finish_delete() {
                    Ok(()) => (Answer::Done, Vec::new()),
                    Err(Refused { kind, message }) => {
                        (Answer::Refused { kind, message }, Vec::new())
                    }
                }
            } else if connection.waits {
                (Answer::Exit(exit.clone()), Vec::new())
            } else {
                self.connections.push(connection);
                continue;
            };
            (connection.waits, connection.deletes) = (false, false);
            if tell(&connection, &reply) {
                self.connections.push(connection);
            } else {
                self.abandon(&connection);
            }
        }
    }

    fn record(&self, exit: &Exit) {
        let path = self.directory.join(record::EXIT);
        let written = serde_json::to_vec(exit)
            .map_err(io::Error::from)
            .and_then(|bytes| carrack_linux::fs::replace(&path, &bytes, 0o600));
        if let Err(error) = written {
            super::complain(&format!("writing {}: {error}", path.display()));
        }
    }

    fn tell_owner(&mut self, added: &Added, exit: Exit) {
        let owner = self.connections.iter().position(|known| Some(known.token) == added.owner);
        let Some(index) = owner else { return };
        let connection = self.connections.swap_remove(index);
        tell(&connection, &(Answer::Exit(exit), Vec::new()));
        self.held.poll.remove(&connection.stream);
    }

    /// A client went away. What it added to the container goes too.
    fn abandon(&mut self, connection: &Connection) {
        self.held.poll.remove(&connection.stream);
        for added in &mut self.added {
            if added.owner == Some(connection.token) {
                added.owner = None;
                // It may have ended a moment ago, which is just as well.
                process::signal(added.pidfd.as_fd(), libc::SIGKILL).ok();
            }
        }
    }
}

/// Whether whoever connected is root or who we are.
fn is_trusted(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}

/// Sends an answer. One that cannot be sent whole at once goes to somebody who does not
/// listen: `false`, and the connection ends.
fn tell(connection: &Connection, (answer, descriptors): &Reply) -> bool {
    let descriptors: Vec<_> = descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
    protocol::send(&connection.stream, answer, &descriptors).is_ok()
}

fn streams(pid: Pid, ends: Ends) -> Reply {
    let answer = Answer::Streams {
        pid: pid.as_raw_pid(),
        stdin: ends.stdin.is_some(),
        stdout: ends.stdout.is_some(),
        stderr: ends.stderr.is_some(),
    };
    (answer, [ends.stdin, ends.stdout, ends.stderr].into_iter().flatten().collect())
}

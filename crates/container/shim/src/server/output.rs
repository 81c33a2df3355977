//! From the container's output to the log and to those who attached.
//!
//! Everything read is written to the log first, then to each sink. A sink that is full
//! pauses the stream it listens to until there is room again, so nothing is lost to it;
//! a sink whose reader went away is dropped.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

pub(super) use super::log::Stream;
use super::log::{Lines, LogFile};
use crate::poll::{EventFlags, Poll, Token};

const CHUNK: usize = 16 << 10;
/// The most that can wait in a pipe, so the most there is to read after the end.
const DRAIN_MAX: usize = 1 << 20;
/// How long a terminal may take to hand over what was written before its other side
/// closed.
const DRAIN_PATIENCE: Duration = Duration::from_millis(200);

/// A container's streams on their way out.
#[derive(Debug, Default)]
pub(super) struct Output {
    log: Option<LogFile>,
    sources: Vec<Source>,
    sinks: Vec<Sink>,
}

#[derive(Debug)]
struct Source {
    token: Token,
    descriptor: OwnedFd,
    stream: Stream,
    lines: Lines,
    paused: bool,
    /// How long to wait for the last of it: nothing for a pipe, where what was written
    /// is there at once.
    patience: Duration,
}

#[derive(Debug)]
struct Sink {
    token: Token,
    descriptor: OwnedFd,
    stream: Stream,
    pending: Vec<u8>,
    waiting: bool,
}

/// What a read found.
enum Found {
    Bytes(usize),
    Nothing,
    End,
}

impl Output {
    pub(super) fn new(log: Option<LogFile>) -> Self {
        Self { log, ..Self::default() }
    }

    pub(super) fn lost_lines(&self) -> u64 {
        self.log.as_ref().map_or(0, LogFile::lost_lines)
    }

    /// Starts reading the end of a pipe that the container writes to.
    pub(super) fn add_pipe(
        &mut self,
        poll: &mut Poll,
        descriptor: OwnedFd,
        stream: Stream,
    ) -> io::Result<()> {
        self.add_source(poll, descriptor, stream, Duration::ZERO)
    }

    /// Starts reading the container's terminal.
    pub(super) fn add_terminal(&mut self, poll: &mut Poll, master: OwnedFd) -> io::Result<()> {
        self.add_source(poll, master, Stream::Stdout, DRAIN_PATIENCE)
    }

    fn add_source(
        &mut self,
        poll: &mut Poll,
        descriptor: OwnedFd,
        stream: Stream,
        patience: Duration,
    ) -> io::Result<()> {
        let token = poll.add(&descriptor, EventFlags::IN)?;
        let lines = Lines::new(stream);
        self.sources.push(Source { token, descriptor, stream, lines, paused: false, patience });
        Ok(())
    }

    /// Writes what a stream says from now on to `descriptor` too, which must not block.
    pub(super) fn add_sink(
        &mut self,
        poll: &mut Poll,
        descriptor: OwnedFd,
        stream: Stream,
    ) -> io::Result<()> {
        let token = poll.add(&descriptor, EventFlags::empty())?;
        self.sinks.push(Sink { token, descriptor, stream, pending: Vec::new(), waiting: false });
        self.settle(poll);
        Ok(())
    }

    /// Whether somebody has not yet taken all there is for them.
    pub(super) fn is_pending(&self) -> bool {
        self.sinks.iter().any(|sink| !sink.pending.is_empty())
    }

    /// Does what an event asks for. Tokens of others are ignored.
    pub(super) fn handle(&mut self, poll: &Poll, token: Token, flags: EventFlags) {
        if let Some(index) = self.sources.iter().position(|source| source.token == token) {
            self.read(poll, index);
        } else if flags.contains(EventFlags::ERR) {
            // The reader went away.
            self.drop_sinks(poll, |sink| sink.token == token);
        }
        self.settle(poll);
    }

    /// Reads what the streams still hold after the container's end, and closes them.
    /// Sinks get the rest as they take it, then their end.
    pub(super) fn finish(&mut self, poll: &Poll) {
        while let Some(mut source) = self.sources.pop() {
            poll.remove(&source.descriptor);
            let deadline = Instant::now() + source.patience;
            let mut drained = 0;
            while drained < DRAIN_MAX && wait_readable(&source.descriptor, deadline) {
                match self.take(&mut source) {
                    Found::Bytes(read) => drained += read,
                    Found::Nothing => {}
                    Found::End => break,
                }
            }
            self.end(&mut source);
        }
        self.settle(poll);
    }

    fn read(&mut self, poll: &Poll, index: usize) {
        let mut source = self.sources.remove(index);
        if let Found::End = self.take(&mut source) {
            poll.remove(&source.descriptor);
            self.end(&mut source);
        } else {
            self.sources.insert(index, source);
        }
    }

    /// Reads once, and passes on what came.
    fn take(&mut self, source: &mut Source) -> Found {
        let mut buffer = [0_u8; CHUNK];
        let bytes = match rustix::io::read(&source.descriptor, &mut buffer) {
            Ok(0) => return Found::End,
            Ok(read) => buffer.get(..read).unwrap_or_default(),
            Err(Errno::AGAIN | Errno::INTR) => return Found::Nothing,
            // A terminal says so when its other side is closed.
            Err(_) => return Found::End,
        };
        if let Some(log) = &mut self.log {
            source.lines.feed(bytes, log, Timestamp::now());
        }
        for sink in self.sinks.iter_mut().filter(|sink| sink.stream == source.stream) {
            sink.pending.extend_from_slice(bytes);
        }
        Found::Bytes(bytes.len())
    }

    fn end(&mut self, source: &mut Source) {
        if let Some(log) = &mut self.log {
            source.lines.finish(log, Timestamp::now());
        }
    }

    /// Writes what sinks can take, lets go of those that are done, and pauses or resumes
    /// the streams.
    fn settle(&mut self, poll: &Poll) {
        let mut broken = Vec::new();
        for sink in &mut self.sinks {
            if sink.pour().and_then(|()| sink.await_room(poll)).is_err() {
                broken.push(sink.token);
            }
        }
        let streams: Vec<_> = self.sources.iter().map(|source| source.stream).collect();
        self.drop_sinks(poll, |sink| {
            let done = sink.pending.is_empty() && !streams.contains(&sink.stream);
            done || broken.contains(&sink.token)
        });
        for source in &mut self.sources {
            let listener = |sink: &&Sink| sink.stream == source.stream;
            let full = self.sinks.iter().filter(listener).any(|sink| !sink.pending.is_empty());
            source.pause(poll, full);
        }
    }

    fn drop_sinks(&mut self, poll: &Poll, which: impl Fn(&Sink) -> bool) {
        self.sinks.retain(|sink| {
            let drop = which(sink);
            if drop {
                poll.remove(&sink.descriptor);
            }
            !drop
        });
    }
}

impl Source {
    fn pause(&mut self, poll: &Poll, pause: bool) {
        if pause == self.paused {
            return;
        }
        let flags = if pause { EventFlags::empty() } else { EventFlags::IN };
        // Changing what is in the set cannot fail; if it did, the next event tries again.
        if poll.change(self.token, &self.descriptor, flags).is_ok() {
            self.paused = pause;
        }
    }
}

impl Sink {
    /// Writes as much as there is room for.
    fn pour(&mut self) -> io::Result<()> {
        let mut written = 0;
        while let Some(rest) = self.pending.get(written..).filter(|rest| !rest.is_empty()) {
            match rustix::io::write(&self.descriptor, rest) {
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.pending.drain(..written);
        Ok(())
    }

    /// Asks to be told of room if, and only if, something waits for it.
    fn await_room(&mut self, poll: &Poll) -> io::Result<()> {
        let waiting = !self.pending.is_empty();
        if waiting != self.waiting {
            let flags = if waiting { EventFlags::OUT } else { EventFlags::empty() };
            poll.change(self.token, &self.descriptor, flags)?;
            self.waiting = waiting;
        }
        Ok(())
    }
}

/// Waits until there is something to read, at the latest until `deadline`.
fn wait_readable(descriptor: &OwnedFd, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    let Ok(patience) = left.try_into() else { return false };
    let mut interest = [PollFd::new(descriptor, PollFlags::IN)];
    matches!(rustix::event::poll(&mut interest, Some(&patience)), Ok(ready) if ready > 0)
}

//! Copying between a process's streams and what containerd made for them.
//!
//! ```text
//! the process ──pipe or terminal──▶ Copy ──▶ FIFO, file or logger
//! the process ◀─pipe or terminal── Copy ◀── FIFO
//! ```
//!
//! Nothing here waits. A reader that is slow or absent holds up the one stream it should
//! read, by way of the pipe that then fills, and nothing else; one that is gone for good
//! loses what is said. A descriptor is watched only while something is wanted of it, for
//! the other side's leaving is told for as long as one watches.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::poll::{EventFlags, Poll, Token};

const CHUNK: usize = 16 << 10;

/// How long what is left of a deleted process's output may take to reach its reader.
const LINGER: Duration = Duration::from_secs(2);

/// Which process a stream belongs to.
pub(crate) type Owner = u64;

/// All streams of a shim's processes.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    copies: Vec<Copy>,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

#[derive(Debug)]
struct Copy {
    owner: Owner,
    way: Way,
    source: Option<OwnedFd>,
    sink: Option<OwnedFd>,
    /// Keeps an input FIFO from ending while nobody has it open yet.
    hold: Option<OwnedFd>,
    /// What the sink had no room for.
    pending: Vec<u8>,
    reads: Option<Token>,
    writes: Option<Token>,
    deadline: Option<Instant>,
}

impl Streams {
    /// Copies what a process says; without a sink it is read and dropped.
    pub(crate) fn add_output(
        &mut self,
        poll: &mut Poll,
        owner: Owner,
        source: OwnedFd,
        sink: Option<OwnedFd>,
    ) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&source, true)?;
        self.add(poll, Copy::new(owner, Way::Out, source, sink))
    }

    /// Copies what a process is told; `hold` is the writing end of the source.
    pub(crate) fn add_input(
        &mut self,
        poll: &mut Poll,
        owner: Owner,
        (source, hold): (OwnedFd, OwnedFd),
        sink: OwnedFd,
    ) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&sink, true)?;
        let copy = Copy { hold: Some(hold), ..Copy::new(owner, Way::In, source, Some(sink)) };
        self.add(poll, copy)
    }

    fn add(&mut self, poll: &mut Poll, mut copy: Copy) -> io::Result<()> {
        copy.watch(poll)?;
        self.copies.push(copy);
        Ok(())
    }

    /// Ends a process's input once those who write to it have closed it.
    pub(crate) fn close_input(&mut self, owner: Owner) {
        for copy in self.of(owner).filter(|copy| copy.way == Way::In) {
            copy.hold = None;
        }
    }

    /// The process has ended: nobody reads its input any more.
    pub(crate) fn drop_input(&mut self, poll: &Poll, owner: Owner) {
        self.retain(poll, |copy| copy.owner != owner || copy.way == Way::Out);
    }

    /// The process is forgotten: the rest of its output has a moment to go.
    pub(crate) fn forget(&mut self, poll: &mut Poll, owner: Owner) {
        self.drop_input(poll, owner);
        let deadline = Instant::now() + LINGER;
        for copy in self.of(owner) {
            while copy.advance(poll) {}
            copy.deadline = Some(deadline);
        }
        self.settle(poll);
        // Nobody of the process is left to say more.
        self.retain(poll, |copy| copy.owner != owner || !copy.pending.is_empty());
    }

    fn of(&mut self, owner: Owner) -> impl Iterator<Item = &mut Copy> {
        self.copies.iter_mut().filter(move |copy| copy.owner == owner)
    }

    /// When to look at the streams at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.copies.iter().filter_map(|copy| copy.deadline).min()
    }

    /// Does what an event asks for. Tokens of others are ignored.
    pub(crate) fn handle(&mut self, poll: &mut Poll, token: Token) {
        let of_token = |copy: &&mut Copy| [copy.reads, copy.writes].contains(&Some(token));
        if let Some(copy) = self.copies.iter_mut().find(of_token) {
            copy.advance(poll);
            self.settle(poll);
        }
    }

    /// Lets go of what is done or late, and watches for what is wanted next.
    pub(crate) fn settle(&mut self, poll: &mut Poll) {
        let now = Instant::now();
        let late = |copy: &Copy| copy.deadline.is_some_and(|deadline| deadline <= now);
        self.retain(poll, |copy| !copy.is_done() && !late(copy));
        for copy in &mut self.copies {
            // A stream that cannot be watched is as good as broken.
            if copy.watch(poll).is_err() {
                copy.end(poll);
            }
        }
    }

    fn retain(&mut self, poll: &Poll, keep: impl Fn(&Copy) -> bool) {
        self.copies.retain(|copy| {
            let kept = keep(copy);
            if !kept {
                copy.unwatch(poll);
            }
            kept
        });
    }
}

impl Copy {
    fn new(owner: Owner, way: Way, source: OwnedFd, sink: Option<OwnedFd>) -> Self {
        Self {
            owner,
            way,
            source: Some(source),
            sink,
            hold: None,
            pending: Vec::new(),
            reads: None,
            writes: None,
            deadline: None,
        }
    }

    fn is_done(&self) -> bool {
        let broken = self.way == Way::In && self.sink.is_none();
        broken || (self.source.is_none() && self.pending.is_empty())
    }

    /// Writes what waits and then, if there is room, reads and writes once more; says
    /// whether it did, and all of it.
    fn advance(&mut self, poll: &Poll) -> bool {
        self.pour(poll);
        if !self.pending.is_empty() {
            return false;
        }
        let Some(source) = &self.source else { return false };
        let mut buffer = [0_u8; CHUNK];
        match rustix::io::read(source, &mut buffer) {
            Err(Errno::AGAIN | Errno::INTR) => false,
            // A terminal answers an error when its other side is closed.
            Ok(0) | Err(_) => {
                self.end(poll);
                false
            }
            Ok(read) => {
                let bytes = buffer.get(..read).unwrap_or_default();
                let written = self.write(poll, bytes);
                self.pending.extend_from_slice(bytes.get(written..).unwrap_or_default());
                self.pending.is_empty()
            }
        }
    }

    /// Closes the source, whose watch goes first: others may still hold the same pipe.
    fn end(&mut self, poll: &Poll) {
        if let (Some(source), Some(_)) = (self.source.take(), self.reads.take()) {
            poll.remove(&source);
        }
    }

    fn pour(&mut self, poll: &Poll) {
        let mut pending = std::mem::take(&mut self.pending);
        let written = self.write(poll, &pending);
        if written < pending.len() {
            pending.drain(..written);
            self.pending = pending;
        }
    }

    /// Writes what there is room for. Nobody being there counts as having written it all.
    fn write(&mut self, poll: &Poll, bytes: &[u8]) -> usize {
        let mut written = 0;
        while let (Some(sink), Some(rest)) = (&self.sink, bytes.get(written..)) {
            if rest.is_empty() {
                break;
            }
            match rustix::io::write(sink, rest) {
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return written,
                Err(_) => {
                    if let (Some(sink), Some(_)) = (self.sink.take(), self.writes.take()) {
                        poll.remove(&sink);
                    }
                }
            }
        }
        bytes.len()
    }

    /// Watches the source while it may be read, and the sink while something waits.
    fn watch(&mut self, poll: &mut Poll) -> io::Result<()> {
        let full = !self.pending.is_empty();
        let source = self.source.as_ref().filter(|_| !full);
        change(poll, &mut self.reads, source, self.source.as_ref(), EventFlags::IN)?;
        let sink = self.sink.as_ref().filter(|_| full);
        change(poll, &mut self.writes, sink, self.sink.as_ref(), EventFlags::OUT)
    }

    fn unwatch(&self, poll: &Poll) {
        if let (Some(_), Some(source)) = (self.reads, &self.source) {
            poll.remove(source);
        }
        if let (Some(_), Some(sink)) = (self.writes, &self.sink) {
            poll.remove(sink);
        }
    }
}

/// Makes what is watched follow what is wanted.
fn change(
    poll: &mut Poll,
    token: &mut Option<Token>,
    wanted: Option<&OwnedFd>,
    there: Option<&OwnedFd>,
    flags: EventFlags,
) -> io::Result<()> {
    match (wanted, *token) {
        (Some(descriptor), None) => *token = Some(poll.add(descriptor, flags)?),
        (None, Some(_)) => {
            // Closed already, it is watched no more.
            if let Some(descriptor) = there {
                poll.remove(descriptor);
            }
            *token = None;
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use rustix::pipe::PipeFlags;

    use super::*;

    fn pipe() -> (OwnedFd, OwnedFd) {
        rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).expect("pipe")
    }

    /// Handles what happens until nothing does for a moment.
    fn settle(streams: &mut Streams, poll: &mut Poll) {
        loop {
            let events = poll.wait(Some(Duration::from_millis(20))).expect("polled");
            if events.is_empty() {
                return;
            }
            for (token, _) in events {
                streams.handle(poll, token);
            }
        }
    }

    #[test]
    fn a_reader_that_does_not_read_holds_up_the_stream_and_gets_all_of_it_later() {
        let (mut poll, mut streams) = (Poll::new().expect("poll"), Streams::default());
        let (source, process) = pipe();
        let (reader, sink) = pipe();
        streams.add_output(&mut poll, 1, source, Some(sink)).expect("added");
        let mut process = File::from(process);
        let chunk = [7_u8; 4096];
        let mut said = 0;
        // Until both pipes are full: then the shim sleeps instead of turning.
        while let Ok(written) = process.write(&chunk) {
            said += written;
            settle(&mut streams, &mut poll);
        }
        assert!(said > 2 * (64 << 10), "{said}");
        drop(process);
        let (mut reader, mut heard, mut buffer) = (File::from(reader), 0, vec![0; 64 << 10]);
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => heard += read,
                Err(_) => settle(&mut streams, &mut poll),
            }
        }
        assert_eq!(heard, said);
        assert!(streams.copies.is_empty());
    }

    #[test]
    fn input_ends_when_it_was_closed_here_and_by_those_who_write_and_not_before() {
        let (mut poll, mut streams) = (Poll::new().expect("poll"), Streams::default());
        let (source, hold) = pipe();
        let writer = hold.try_clone().expect("another end");
        let (process, sink) = pipe();
        streams.add_input(&mut poll, 1, (source, hold), sink).expect("added");
        let mut process = File::from(process);
        let mut buffer = [0; 16];
        File::from(writer).write_all(b"one").expect("written");
        settle(&mut streams, &mut poll);
        assert_eq!(process.read(&mut buffer).expect("read"), 3);
        process.read(&mut buffer).expect_err("it has not ended");
        streams.close_input(1);
        settle(&mut streams, &mut poll);
        assert_eq!(process.read(&mut buffer).expect("read"), 0);
    }

    #[test]
    fn what_a_forgotten_process_left_has_a_moment_to_go_and_no_more() {
        let (mut poll, mut streams) = (Poll::new().expect("poll"), Streams::default());
        let (source, process) = pipe();
        let (_reader, sink) = pipe();
        // As a FIFO would be that nobody reads.
        while rustix::io::write(&sink, &[0; 4096]).is_ok() {}
        rustix::io::write(&process, b"left").expect("written");
        streams.add_output(&mut poll, 1, source, Some(sink)).expect("added");
        streams.forget(&mut poll, 1);
        assert!(streams.deadline().is_some());
        streams.copies.iter_mut().for_each(|copy| copy.deadline = Some(Instant::now()));
        streams.settle(&mut poll);
        assert!(streams.copies.is_empty() && streams.deadline().is_none());
    }
}

//! The connections of those who call: containerd's one, and any other of root.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::io::Errno;

use super::frame::{Decoder, Frame, Status, response};
use super::wire::Message;
use crate::poll::{EventFlags, Poll, Token};

/// More connections than this are closed as they come.
const CONNECTIONS_MAX: usize = 64;
/// Somebody who leaves this much unread does not listen.
const UNREAD_MAX: usize = 8 << 20;

/// Who waits for an answer: a connection, and a stream of it.
pub(super) type Waiter = (Token, u32);

/// All who speak to the shim.
#[derive(Debug)]
pub(super) struct Conversations {
    listener: (Token, UnixListener),
    all: Vec<Conversation>,
}

#[derive(Debug)]
struct Conversation {
    token: Token,
    socket: UnixStream,
    decoder: Decoder,
    unsent: Vec<u8>,
    writes: bool,
}

impl Conversations {
    pub(super) fn new(poll: &mut Poll, listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let token = poll.add(&listener, EventFlags::IN)?;
        Ok(Self { listener: (token, listener), all: Vec::new() })
    }

    /// Whether somebody has not yet taken an answer.
    pub(super) fn is_pending(&self) -> bool {
        self.all.iter().any(|conversation| !conversation.unsent.is_empty())
    }

    /// Takes what came; the requests in it are the caller's to answer. `None` when the
    /// token is not one of ours.
    pub(super) fn handle(
        &mut self,
        poll: &mut Poll,
        token: Token,
    ) -> Option<Vec<(Waiter, Vec<u8>)>> {
        if token == self.listener.0 {
            self.accept(poll);
            return Some(Vec::new());
        }
        let index = self.all.iter().position(|known| known.token == token)?;
        let mut requests = Vec::new();
        let conversation = self.all.get_mut(index)?;
        let refused = conversation.read().and_then(|frames| {
            for frame in frames {
                match frame {
                    Frame::Request(stream, message) => requests.push(((token, stream), message)),
                    Frame::Refused(stream, status) => {
                        conversation.unsent.extend(response(stream, &Err(status)));
                    }
                    // An answer to a question nobody asked.
                    Frame::Response(..) => return Err(io::ErrorKind::InvalidData.into()),
                }
            }
            conversation.pour(poll)
        });
        if refused.is_err() {
            poll.remove(&conversation.socket);
            self.all.swap_remove(index);
        }
        Some(requests)
    }

    /// Answers; somebody who went away meanwhile misses it.
    pub(super) fn answer(
        &mut self,
        poll: &Poll,
        (token, stream): Waiter,
        answer: &Result<Message, Status>,
    ) {
        let Some(index) = self.all.iter().position(|known| known.token == token) else { return };
        let Some(conversation) = self.all.get_mut(index) else { return };
        conversation.unsent.extend(response(stream, answer));
        if conversation.pour(poll).is_err() {
            poll.remove(&conversation.socket);
            self.all.swap_remove(index);
        }
    }

    fn accept(&mut self, poll: &mut Poll) {
        let Ok((socket, _)) = self.listener.1.accept() else { return };
        if self.all.len() >= CONNECTIONS_MAX || !is_trusted(&socket) {
            return;
        }
        let added = socket.set_nonblocking(true).and_then(|()| poll.add(&socket, EventFlags::IN));
        if let Ok(token) = added {
            let (decoder, unsent) = (Decoder::default(), Vec::new());
            self.all.push(Conversation { token, socket, decoder, unsent, writes: false });
        }
    }
}

impl Conversation {
    /// Whatever frames have come; an error ends the conversation.
    fn read(&mut self) -> io::Result<Vec<Frame>> {
        let mut buffer = [0_u8; 4096];
        match rustix::io::read(&self.socket, &mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => self.decoder.feed(buffer.get(..read).unwrap_or_default()),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut frames = Vec::new();
        while let Some(frame) = self.decoder.next_frame().map_err(io::Error::other)? {
            frames.push(frame);
        }
        Ok(frames)
    }

    fn pour(&mut self, poll: &Poll) -> io::Result<()> {
        pour(&self.socket, &mut self.unsent)?;
        if self.unsent.len() > UNREAD_MAX {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let writes = !self.unsent.is_empty();
        if writes != self.writes {
            let flags = if writes { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            poll.change(self.token, &self.socket, flags)?;
            self.writes = writes;
        }
        Ok(())
    }
}

/// Sends what there is room for, and keeps the rest.
pub(super) fn pour(socket: impl AsFd, unsent: &mut Vec<u8>) -> io::Result<()> {
    let mut sent = 0;
    while let Some(rest) = unsent.get(sent..).filter(|rest| !rest.is_empty()) {
        match rustix::net::send(&socket, rest, rustix::net::SendFlags::NOSIGNAL) {
            Ok(count) => sent += count,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => break,
            Err(error) => return Err(error.into()),
        }
    }
    unsent.drain(..sent);
    if unsent.is_empty() {
        *unsent = Vec::new();
    }
    Ok(())
}

/// Whether whoever connected is root or who we are.
fn is_trusted(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}

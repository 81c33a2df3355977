//! The socket between us and the copy of us inside the container.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use carrack_linux::socket;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::failure::Failure;

/// One message; each is one packet.
#[derive(Debug)]
pub(crate) enum Message {
    /// To the inside: user and group ids are mapped.
    Mapped,
    /// To the outside: a time namespace is made, and nobody is in it yet.
    Unshared,
    /// To the inside: its clocks are set.
    Offset,
    /// To the outside: where to listen for calls that a seccomp filter leaves to a listener.
    Listener(Option<OwnedFd>),
    /// To the inside: somebody listens.
    Heard,
    /// To the inside: the control group has taken the process in.
    Joined,
    /// To the outside: the mounts stand, hooks may run.
    Prepared,
    /// To the inside: the hooks outside have run.
    Hooked,
    /// To the outside: the process only waits now; its terminal, if it has one.
    Ready(Option<OwnedFd>),
    /// To the outside: it failed.
    Failed(Failure),
}

/// One end.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

/// The longest message read; longer explanations are cut.
const MAX_MESSAGE: usize = 16 << 10;

impl Channel {
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self(one), Self(other)))
    }

    pub(crate) fn send(&self, message: &Message) -> io::Result<()> {
        let (tag, payload, descriptor) = match message {
            Message::Mapped => (b'm', Vec::new(), None),
            Message::Unshared => (b'u', Vec::new(), None),
            Message::Offset => (b'o', Vec::new(), None),
            Message::Heard => (b'k', Vec::new(), None),
            Message::Listener(listener) => (b'l', Vec::new(), listener.as_ref()),
            Message::Joined => (b'j', Vec::new(), None),
            Message::Prepared => (b'p', Vec::new(), None),
            Message::Hooked => (b'h', Vec::new(), None),
            Message::Ready(console) => (b'r', Vec::new(), console.as_ref()),
            Message::Failed(failure) => (b'f', failure.encode(), None),
        };
        let mut bytes = vec![tag];
        bytes.extend(payload.into_iter().take(MAX_MESSAGE - 1));
        let descriptors: Vec<BorrowedFd<'_>> =
            descriptor.into_iter().map(std::os::fd::AsFd::as_fd).collect();
        socket::send(&self.0, &bytes, &descriptors)?;
        Ok(())
    }

    /// The next message; `None` when the other end is gone.
    pub(crate) fn receive(&self) -> io::Result<Option<Message>> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let mut descriptors = Vec::new();
        let length = socket::receive(&self.0, &mut buffer, &mut descriptors)?;
        buffer.truncate(length);
        let Some((tag, payload)) = buffer.split_first() else { return Ok(None) };
        Ok(Some(match tag {
            b'm' => Message::Mapped,
            b'u' => Message::Unshared,
            b'o' => Message::Offset,
            b'k' => Message::Heard,
            b'l' => Message::Listener(descriptors.pop()),
            b'j' => Message::Joined,
            b'p' => Message::Prepared,
            b'h' => Message::Hooked,
            b'r' => Message::Ready(descriptors.pop()),
            b'f' => Message::Failed(Failure::decode(payload)),
            other => return Err(io::Error::other(format!("unknown message {other}"))),
        }))
    }
}

//! A process's pipes and terminals, as tokio reads and writes them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::{Bytes, BytesMut};
use rustix::fs::OFlags;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

/// The most bytes read at once.
const CHUNK: usize = 32 << 10;

/// What a process writes.
#[derive(Debug)]
pub(crate) struct Output(pipe::Receiver);

/// What a process reads.
#[derive(Debug)]
pub(crate) struct Input(pipe::Sender);

impl Output {
    /// Takes a pipe or a terminal.
    pub(crate) fn new(descriptor: OwnedFd) -> io::Result<Self> {
        set_nonblocking(descriptor.as_fd())?;
        Ok(Self(pipe::Receiver::from_owned_fd_unchecked(descriptor)?))
    }

    /// What comes next; none at the end. A terminal whose last program is gone is at its end.
    pub(crate) async fn read(&mut self) -> io::Result<Option<Bytes>> {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        match self.0.read_buf(&mut buffer).await {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(buffer.freeze())),
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Input {
    /// Takes a pipe or a terminal.
    pub(crate) fn new(descriptor: OwnedFd) -> io::Result<Self> {
        set_nonblocking(descriptor.as_fd())?;
        Ok(Self(pipe::Sender::from_owned_fd_unchecked(descriptor)?))
    }

    /// Writes all of `bytes`.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await
    }
}

/// Waits until there is something to read from `descriptor`, without a thread and without
/// changing how others read from it.
#[derive(Debug)]
pub(crate) struct Readable(pipe::Receiver);

impl Readable {
    pub(crate) fn of(descriptor: BorrowedFd<'_>) -> io::Result<Self> {
        // A second handle: tokio wants one of its own to close.
        let descriptor = descriptor.try_clone_to_owned()?;
        Ok(Self(pipe::Receiver::from_owned_fd_unchecked(descriptor)?))
    }

    pub(crate) async fn wait(&self) -> io::Result<()> {
        self.0.readable().await
    }

    /// Takes what there is to read, after [`wait`](Self::wait).
    pub(crate) fn take(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

fn set_nonblocking(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(descriptor)?;
    Ok(rustix::fs::fcntl_setfl(descriptor, flags | OFlags::NONBLOCK)?)
}

//! A program's word to the service manager that it is ready, passed on (sd_notify).
//!
//! The program writes to a socket in its container's record; the manager's own socket,
//! `$NOTIFY_SOCKET`, is never shown inside.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec};

/// The variable that names the manager's socket.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// The same for the program.
pub(crate) const INSIDE: &str = "NOTIFY_SOCKET=/run/notify/notify.sock";

/// How long a manager may take to have read everything.
const BARRIER_SECONDS: i64 = 30;

/// Whether a service manager wants to hear.
pub(crate) fn is_wanted() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|name| !name.is_empty())
}

/// Both sockets.
#[derive(Debug)]
pub(crate) struct Notify {
    inside: UnixDatagram,
    manager: UnixDatagram,
}

impl Notify {
    /// Listens in `directory`.
    pub(crate) fn listen(directory: &Path) -> io::Result<Self> {
        let path = directory.join("notify.sock");
        let inside = UnixDatagram::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))?;
        inside.set_nonblocking(true)?;
        let manager = UnixDatagram::unbound()?;
        let name = std::env::var_os(VARIABLE).unwrap_or_default().into_vec();
        let address = match name.strip_prefix(b"@") {
            Some(hidden) => SocketAddr::from_abstract_name(hidden)?,
            None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(&name))?,
        };
        manager.connect_addr(&address)?;
        Ok(Self { inside, manager })
    }

    /// Passes on that the program is ready, when that is what has come: with the process
    /// to watch from now on. Answers whether it was.
    pub(crate) fn pass_on(&self, pid: i32) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        let length = match self.inside.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        let message = buffer.get(..length).unwrap_or_default();
        let ready = message.split(|&byte| byte == b'\n').find(|line| line.starts_with(b"READY="));
        let Some(ready) = ready else { return Ok(false) };
        self.manager.send(&[ready, b"\n"].concat())?;
        self.manager.send(format!("MAINPID={pid}\n").as_bytes())?;
        self.wait_until_read()?;
        Ok(true)
    }

    /// A pipe's end goes along last; the manager closes it when it gets there.
    fn wait_until_read(&self) -> io::Result<()> {
        let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        carrack_linux::socket::send(&self.manager, b"BARRIER=1", &[theirs.as_fd()])?;
        drop(theirs);
        let time = Timespec { tv_sec: BARRIER_SECONDS, tv_nsec: 0 };
        let mut watched = [PollFd::new(&ours, PollFlags::IN)];
        // A manager that knows no barriers lets the time pass; it has been told all the same.
        rustix::event::poll(&mut watched, Some(&time))?;
        Ok(())
    }

    /// Waits until the program is ready or `pidfd`'s process has ended.
    pub(crate) fn wait(&self, pidfd: &OwnedFd, pid: i32) -> io::Result<()> {
        loop {
            let mut watched =
                [PollFd::new(&self.inside, PollFlags::IN), PollFd::new(pidfd, PollFlags::IN)];
            match rustix::event::poll(&mut watched, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let [said, ended] = watched.map(|watched| !watched.revents().is_empty());
            if (said && self.pass_on(pid)?) || (ended && !said) {
                return Ok(());
            }
        }
    }
}

impl AsFd for Notify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inside.as_fd()
    }
}

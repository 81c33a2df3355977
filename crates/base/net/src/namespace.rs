//! Opening sockets in another network namespace.
//!
//! A socket belongs for good to the namespace of the thread that made it. [`NetworkNamespace::run`]
//! takes the calling thread there for the length of a closure, and back; nothing awaits within, so
//! no other task ever runs in the wrong namespace.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections waiting to be accepted; the kernel may allow fewer.
const BACKLOG: i32 = 4096;

/// A network namespace, held open: it lives as long as this does.
#[derive(Debug)]
pub struct NetworkNamespace {
    file: File,
    inode: u64,
}

impl NetworkNamespace {
    /// Opens the namespace at `path`, such as one bound under `/run/netns`.
    ///
    /// # Errors
    ///
    /// When the path cannot be opened, or this process may not see its own namespace.
    pub fn open(path: &Path) -> io::Result<Self> {
        home()?;
        let file = File::open(path)?;
        let inode = file.metadata()?.ino();
        Ok(Self { file, inode })
    }

    /// The number by which the kernel knows this namespace: two that differ are two namespaces.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Runs `act` in this namespace, on this thread.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered, or what `act` returns. A thread that cannot come back
    /// would go on to serve other tasks in the wrong network, so then the process aborts.
    pub fn run<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let home = home()?;
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
        let _back = Return { home };
        act()
    }

    /// Opens a listening TCP socket in this namespace.
    ///
    /// # Errors
    ///
    /// When the address is taken or cannot be bound.
    pub fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let socket = self.run(|| listening_socket(address))?;
        TcpListener::from_std(socket.into())
    }

    /// Connects from this namespace, with the given packet mark.
    ///
    /// # Errors
    ///
    /// When the socket cannot be opened or the other end does not answer.
    pub async fn connect(&self, to: SocketAddr, mark: u32) -> io::Result<TcpStream> {
        let socket = self.run(|| {
            let socket = match to {
                SocketAddr::V4(_) => TcpSocket::new_v4(),
                SocketAddr::V6(_) => TcpSocket::new_v6(),
            }?;
            socket2::SockRef::from(&socket).set_mark(mark)?;
            Ok(socket)
        })?;
        let stream = socket.connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Opens a listening TCP socket in the namespace this process is in.
///
/// # Errors
///
/// When the address is taken or cannot be bound.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::from_std(listening_socket(address)?.into())
}

fn listening_socket(address: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// The namespace this process started in.
fn home() -> io::Result<&'static File> {
    static HOME: OnceLock<File> = OnceLock::new();
    if let Some(home) = HOME.get() {
        return Ok(home);
    }
    let opened = File::open("/proc/self/ns/net")?;
    Ok(HOME.get_or_init(|| opened))
}

/// Takes the thread home when dropped, also when the closure panics.
struct Return {
    home: &'static File,
}

impl Drop for Return {
    fn drop(&mut self) {
        let back = move_into_link_name_space(self.home.as_fd(), Some(LinkNameSpaceType::Network));
        if let Err(error) = back {
            tracing::error!(%error, "a thread cannot return to its network namespace");
            std::process::abort();
        }
    }
}

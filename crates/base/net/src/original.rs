//! Where a connection was going before a redirect brought it here.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::SockRef;
use tokio::net::TcpStream;

/// The address the other end believes it is talking to.
///
/// # Errors
///
/// When connection tracking does not know the connection: it was not redirected, or it is gone.
pub fn destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    let socket = SockRef::from(stream);
    let local = stream.local_addr()?;
    let address = match local.ip() {
        IpAddr::V4(_) => socket.original_dst_v4(),
        IpAddr::V6(_) => socket.original_dst_v6(),
    }?;
    address.as_socket().ok_or_else(|| io::Error::other("the original destination is no IP address"))
}

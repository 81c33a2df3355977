//! Sockets beyond what the standard library offers: descriptors passed along,
//! marks, original destinations, and Unix sockets named relative to a directory.

use std::ffi::OsStr;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// The most descriptors one message carries here.
pub const MAX_DESCRIPTORS: usize = 8;

/// Sends `bytes`, with `descriptors` attached to the first of them.
///
/// May send fewer bytes than given, as `write` does; the descriptors then went
/// along and must not be sent again. A peer that is gone is an error, never a
/// signal.
///
/// # Errors
///
/// What `sendmsg` says; `InvalidInput` for more than [`MAX_DESCRIPTORS`].
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fits = descriptors.is_empty() || control.push(SendAncillaryMessage::ScmRights(descriptors));
    if !fits || descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
    }
    let parts = [IoSlice::new(bytes)];
    let sent = rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(&socket, &parts, &mut control, SendFlags::NOSIGNAL)
    });
    Ok(sent?)
}

/// Receives into `buffer`; descriptors that came along are appended, each to
/// be closed on exec.
///
/// Returns 0 when the peer closed its end.
///
/// # Errors
///
/// What `recvmsg` says.
pub fn receive(
    socket: impl AsFd,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)
    })?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            descriptors.extend(passed);
        }
    }
    Ok(received.bytes)
}

/// Marks every packet the socket sends from now on, for firewall rules to match.
///
/// # Errors
///
/// `EPERM` without `CAP_NET_ADMIN` over the socket's network namespace.
pub fn set_mark(socket: impl AsFd, mark: u32) -> io::Result<()> {
    let value = mark.to_ne_bytes();
    let length = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the pointer and length describe `value`, which outlives the call and
    // which the kernel only reads; the descriptor is borrowed for the call.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MARK,
            value.as_ptr().cast(),
            length,
        )
    };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Where a redirected TCP connection was going before the redirect.
///
/// # Errors
///
/// `ENOENT` when the connection was not redirected.
pub fn original_destination(socket: impl AsFd) -> io::Result<SocketAddrV4> {
    const SO_ORIGINAL_DST: libc::c_int = 80;
    // A `sockaddr_in`: family, port, address, padding.
    let mut address = [0_u8; size_of::<libc::sockaddr_in>()];
    let mut length = libc::socklen_t::try_from(address.len()).map_err(io::Error::other)?;
    // SAFETY: the pointers describe `address` and its length, both live and writable
    // for the call, which writes at most `length` bytes; the descriptor is borrowed.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_IP,
            SO_ORIGINAL_DST,
            address.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    let port = u16::from_be_bytes([address[2], address[3]]);
    let host = Ipv4Addr::new(address[4], address[5], address[6], address[7]);
    Ok(SocketAddrV4::new(host, port))
}

/// Listens on a Unix socket called `name` in `directory`.
///
/// A socket's address holds 107 bytes and our directories have long names, so the
/// address goes through the descriptor; how long the directory's path is does not
/// matter.
///
/// # Errors
///
/// `AddrInUse` when something of that name exists, listening or not.
pub fn listen_in(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<UnixListener> {
    UnixListener::bind(through_descriptor(directory, name))
}

/// Connects to the Unix socket called `name` in `directory`; see [`listen_in`].
///
/// # Errors
///
/// `ConnectionRefused` when nobody listens any more, `NotFound` when there is no
/// such socket.
pub fn connect_in(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<UnixStream> {
    UnixStream::connect(through_descriptor(directory, name))
}

/// Connects to the Unix socket at `path`, which the caller trusts.
///
/// # Errors
///
/// As [`connect_in`].
pub fn connect(path: &std::path::Path) -> io::Result<UnixStream> {
    UnixStream::connect(path)
}

fn through_descriptor(directory: BorrowedFd<'_>, name: &OsStr) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    path.push(name);
    path
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn a_descriptor_sent_along_is_the_same_open_file() {
        let (left, right) = UnixStream::pair().expect("socket pair");
        let mut file = tempfile::tempfile().expect("temporary file");
        file.write_all(b"kept").expect("write");
        send(&left, b"x", &[file.as_fd()]).expect("send");

        let (mut buffer, mut passed) = ([0_u8; 4], Vec::new());
        assert_eq!(receive(&right, &mut buffer, &mut passed).expect("receive"), 1);
        let mut same = File::from(passed.remove(0));
        std::io::Seek::rewind(&mut same).expect("rewind");
        let mut text = String::new();
        same.read_to_string(&mut text).expect("read");
        assert_eq!(text, "kept");
        drop(left);
        assert_eq!(receive(&right, &mut buffer, &mut passed).expect("closed"), 0);
    }

    #[test]
    fn a_socket_in_a_directory_with_a_very_long_path_is_reached() {
        let root = tempfile::tempdir().expect("directory");
        let deep = root.path().join("d".repeat(200));
        std::fs::create_dir(&deep).expect("mkdir");
        let directory = File::open(&deep).expect("open");
        let listener = listen_in(directory.as_fd(), OsStr::new("s.sock")).expect("listen");
        let mut client = connect_in(directory.as_fd(), OsStr::new("s.sock")).expect("connect");
        client.write_all(b"hello").expect("write");
        drop(client);
        let mut text = String::new();
        listener.accept().expect("accept").0.read_to_string(&mut text).expect("read");
        assert_eq!(text, "hello");
    }
}

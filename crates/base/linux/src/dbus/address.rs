//! Where a bus listens.

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::BusError;

/// Where a bus, or a program that speaks its language, listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A bus, by the path of its socket.
    Path(PathBuf),
    /// A bus, by its name among abstract sockets.
    Abstract(Vec<u8>),
    /// One program behind its own socket, without a bus between.
    Private(PathBuf),
}

impl Address {
    /// The addresses in a text such as `unix:path=/run/user/1000/bus;unix:abstract=/tmp/x`;
    /// those of kinds not spoken here are left out.
    ///
    /// # Errors
    ///
    /// [`BusError::Address`] when none is left.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, BusError> {
        let found: Vec<Self> = text.split(';').filter_map(Self::parse).collect();
        if found.is_empty() {
            return Err(BusError::Address { text: text.to_owned() });
        }
        Ok(found)
    }

    fn parse(text: &str) -> Option<Self> {
        use std::ffi::OsString;
        use std::os::unix::ffi::OsStringExt;
        let keys = text.strip_prefix("unix:")?;
        keys.split(',').filter_map(|key| key.split_once('=')).find_map(|(key, value)| match key {
            "path" => Some(Self::Path(OsString::from_vec(unescape(value)?).into())),
            "abstract" => Some(Self::Abstract(unescape(value)?)),
            _ => None,
        })
    }

    /// Whether there is no bus to be greeted.
    pub(super) fn is_private(&self) -> bool {
        matches!(self, Self::Private(_))
    }

    /// Connects, waiting no longer than `limit` for a place in the queue.
    pub(super) fn connect(&self, limit: Duration) -> io::Result<UnixStream> {
        let address = match self {
            Self::Path(path) | Self::Private(path) => SocketAddrUnix::new(path)?,
            Self::Abstract(name) => SocketAddrUnix::new_abstract_name(name)?,
        };
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
        rustix::net::connect(&socket, &address)?;
        Ok(socket.into())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) | Self::Private(path) => path.display().fmt(out),
            Self::Abstract(name) => write!(out, "@{}", String::from_utf8_lossy(name)),
        }
    }
}

/// `%2f` is a slash.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut plain = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            plain.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        plain.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
    }
    Some(plain)
}

//! HBONE: a TCP connection as one stream of HTTP/2 CONNECT over mutual TLS.
//!
//! The stream's authority is the address and port meant. A header of ours tells the other end what
//! this end knows of the bytes to come, so that it can judge requests one by one or bytes at once.

mod client;
mod stream;

pub(crate) use client::{TunnelError, Tunnels};
pub(crate) use stream::TunnelStream;

use carrack_xds::Protocol;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

/// Where every workload's proxy accepts tunnels.
pub(crate) const PORT: u16 = 15008;
/// Says what the stream carries.
const CARRIES: HeaderName = HeaderName::from_static("x-carrack-carries");

/// How much of a stream may be underway before the reader must have taken some.
pub(crate) const STREAM_WINDOW: u32 = 1 << 20;
/// The same for all streams of a connection together.
pub(crate) const CONNECTION_WINDOW: u32 = 16 << 20;
/// Big frames: fewer of them.
pub(crate) const FRAME: u32 = 64 << 10;
/// Streams of one connection at a time.
pub(crate) const STREAMS: u32 = 1024;
/// The head of a CONNECT is small.
pub(crate) const HEADERS: u32 = 16 << 10;
/// Bytes of one stream waiting to be sent.
pub(crate) const SEND_BUFFER: usize = 512 << 10;

/// What one end knows of the bytes a stream will carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carries {
    /// HTTP requests, each to be judged for itself.
    Http,
    /// Something else, to be judged as a whole.
    Bytes,
    /// The caller has not spoken yet.
    Unknown,
}

impl Carries {
    pub(crate) fn declared(protocol: Option<Protocol>) -> Self {
        match protocol {
            Some(Protocol::Http | Protocol::Http2) => Self::Http,
            Some(Protocol::Tcp) => Self::Bytes,
            None => Self::Unknown,
        }
    }

    fn header(self) -> Option<HeaderValue> {
        match self {
            Self::Http => Some(HeaderValue::from_static("http")),
            Self::Bytes => Some(HeaderValue::from_static("bytes")),
            Self::Unknown => None,
        }
    }

    pub(crate) fn of(headers: &HeaderMap) -> Self {
        match headers.get(CARRIES).map(HeaderValue::as_bytes) {
            Some(b"http") => Self::Http,
            Some(b"bytes") => Self::Bytes,
            Some(_) | None => Self::Unknown,
        }
    }
}

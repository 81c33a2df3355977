//! What a client speaks, by its first bytes.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// A request line longer than this is taken for one all the same.
const ENOUGH: usize = 8 << 10;
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const METHODS: [&[u8]; 9] = [
    b"GET ",
    b"POST ",
    b"PUT ",
    b"HEAD ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"CONNECT ",
    b"TRACE ",
];

/// What some first bytes are the beginning of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guess {
    /// HTTP/1.x.
    Http1,
    /// HTTP/2, by its preface.
    Http2,
    /// Something else.
    Opaque,
    /// Too little to tell.
    More,
}

/// What these first bytes are the beginning of.
pub(crate) fn guess(bytes: &[u8]) -> Guess {
    if bytes.is_empty() {
        return Guess::More;
    }
    if bytes.starts_with(HTTP2_PREFACE) {
        return Guess::Http2;
    }
    if HTTP2_PREFACE.starts_with(bytes) || METHODS.iter().any(|method| method.starts_with(bytes)) {
        return Guess::More;
    }
    if !METHODS.iter().any(|method| bytes.starts_with(method)) {
        return Guess::Opaque;
    }
    // Other line protocols have verbs like these; only HTTP ends the line with its version.
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) if is_request_line(bytes.get(..end).unwrap_or_default()) => Guess::Http1,
        Some(_) => Guess::Opaque,
        None if bytes.len() >= ENOUGH => Guess::Http1,
        None => Guess::More,
    }
}

fn is_request_line(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")
}

/// Reads until it is clear what the client speaks. `None` when it ended before it spoke.
///
/// Cancel-safe: what was read is in `bytes`.
pub(crate) async fn first_bytes(
    stream: &mut (impl AsyncRead + Unpin),
    bytes: &mut BytesMut,
) -> io::Result<Option<Guess>> {
    loop {
        if bytes.capacity() == bytes.len() {
            bytes.reserve(4096);
        }
        let count = stream.read_buf(bytes).await?;
        if count == 0 {
            return Ok((!bytes.is_empty()).then_some(Guess::Opaque));
        }
        match guess(bytes) {
            Guess::More => {}
            sure => return Ok(Some(sure)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &str, expected: Guess) {
        assert_eq!(guess(bytes.as_bytes()), expected, "for {bytes:?}");
    }

    #[test]
    fn http_is_known_by_its_first_line() {
        check("GET / HTTP/1.1\r\nHost: a\r\n", Guess::Http1);
        check("POST /x?y=z HTTP/1.0\r\n", Guess::Http1);
        check("OPTIONS * HTTP/1.1\n", Guess::Http1);
        check("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0", Guess::Http2);
    }

    #[test]
    fn other_protocols_are_not_taken_for_http() {
        check("*1\r\n$4\r\nPING\r\n", Guess::Opaque);
        check("GET key\r\n", Guess::Opaque);
        check("\x16\x03\x01\x02\0", Guess::Opaque);
        check("SSH-2.0-x\r\n", Guess::Opaque);
        check("PRI * HTTP/2.1", Guess::Opaque);
        check("GETTING", Guess::Opaque);
    }

    #[test]
    fn a_beginning_that_fits_both_waits_for_more() {
        for bytes in ["", "G", "GET", "GET ", "GET /long", "P", "PRI * HTTP/2.0\r\n", "DELETE /"] {
            check(bytes, Guess::More);
        }
        check(&format!("GET /{}", "x".repeat(ENOUGH)), Guess::Http1);
    }
}

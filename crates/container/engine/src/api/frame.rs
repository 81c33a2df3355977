//! What goes over an upgraded connection: standard streams, sizes, signals and the end.
//!
//! A frame is a kind (one byte), a length (four, big-endian) and so many bytes. The client
//! speaks first, with [`Frame::Request`]; the server answers [`Frame::Ready`] once the program
//! runs, or [`Frame::Failed`]. [`Frame::Exited`] is the last frame of a program that ended.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio_util::codec::{Decoder, Encoder};

use super::answer::{Exit, Fault};

/// The most bytes one frame carries. Longer writes are cut into several.
pub const LARGEST_FRAME: usize = 1 << 20;

const HEADER: usize = 5;

/// One thing said over an upgraded connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// What is asked for, as JSON. The client's first frame.
    Request(Bytes),
    /// The program runs, or runs already.
    Ready,
    /// Bytes for standard input.
    Stdin(Bytes),
    /// There will be no more standard input.
    StdinEnd,
    /// Bytes from standard output, or from the terminal.
    Stdout(Bytes),
    /// Bytes from standard error.
    Stderr(Bytes),
    /// The terminal has this size now.
    Resize {
        /// Width in characters.
        columns: u16,
        /// Height in characters.
        rows: u16,
    },
    /// Send the program this signal.
    Signal(i32),
    /// The program ended; nothing follows.
    Exited(Exit),
    /// It could not be done; nothing follows.
    Failed(Fault),
}

/// Why a connection's bytes are no frames.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The connection broke.
    #[error("reading or writing frames")]
    Io(#[from] std::io::Error),
    /// A frame of a kind that is not known.
    #[error("frame of unknown kind {0}; client and engine are of different versions")]
    Unknown(u8),
    /// A frame longer than [`LARGEST_FRAME`].
    #[error("frame of {0} bytes; the most is {LARGEST_FRAME}")]
    TooLong(usize),
    /// A frame whose content is not what its kind says.
    #[error("malformed {0} frame")]
    Malformed(&'static str),
}

/// Cuts bytes into frames and back.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameCodec;

impl Encoder<Frame> for FrameCodec {
    type Error = FrameError;

    fn encode(&mut self, frame: Frame, out: &mut BytesMut) -> Result<(), FrameError> {
        let (kind, body) = match frame {
            Frame::Request(json) => (0, json),
            Frame::Ready => (1, Bytes::new()),
            Frame::Stdin(bytes) => (2, bytes),
            Frame::StdinEnd => (3, Bytes::new()),
            Frame::Stdout(bytes) => (4, bytes),
            Frame::Stderr(bytes) => (5, bytes),
            Frame::Resize { columns, rows } => {
                let mut body = BytesMut::with_capacity(4);
                body.put_u16(columns);
                body.put_u16(rows);
                (6, body.freeze())
            }
            Frame::Signal(number) => (7, Bytes::copy_from_slice(&number.to_be_bytes())),
            Frame::Exited(exit) => (8, json("exited", &exit)?),
            Frame::Failed(fault) => (9, json("failed", &fault)?),
        };
        if body.len() > LARGEST_FRAME {
            return Err(FrameError::TooLong(body.len()));
        }
        let length = u32::try_from(body.len()).map_err(|_| FrameError::TooLong(body.len()))?;
        out.reserve(HEADER + body.len());
        out.put_u8(kind);
        out.put_u32(length);
        out.put_slice(&body);
        Ok(())
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some((header, rest)) = input.split_at_checked(HEADER) else {
            return Ok(None);
        };
        let (kind, mut length) = (header[0], &header[1..]);
        let length = usize::try_from(length.get_u32()).unwrap_or(usize::MAX);
        if length > LARGEST_FRAME {
            return Err(FrameError::TooLong(length));
        }
        if rest.len() < length {
            input.reserve(length - rest.len());
            return Ok(None);
        }
        input.advance(HEADER);
        let mut body = input.split_to(length).freeze();
        let frame = match kind {
            0 => Frame::Request(body),
            1 => Frame::Ready,
            2 => Frame::Stdin(body),
            3 => Frame::StdinEnd,
            4 => Frame::Stdout(body),
            5 => Frame::Stderr(body),
            6 if length == 4 => Frame::Resize { columns: body.get_u16(), rows: body.get_u16() },
            6 => return Err(FrameError::Malformed("resize")),
            7 if length == 4 => Frame::Signal(body.get_i32()),
            7 => return Err(FrameError::Malformed("signal")),
            8 => Frame::Exited(parse("exited", &body)?),
            9 => Frame::Failed(parse("failed", &body)?),
            other => return Err(FrameError::Unknown(other)),
        };
        Ok(Some(frame))
    }
}

fn json(what: &'static str, value: &impl Serialize) -> Result<Bytes, FrameError> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|_| FrameError::Malformed(what))
}

fn parse<T: for<'de> Deserialize<'de>>(what: &'static str, body: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(body).map_err(|_| FrameError::Malformed(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(frames: &[Frame]) -> Vec<Frame> {
        let mut bytes = BytesMut::new();
        for frame in frames {
            FrameCodec.encode(frame.clone(), &mut bytes).expect("frames are written");
        }
        // One byte at a time, as the worst connection would deliver them.
        let mut arrived = BytesMut::new();
        let mut read = Vec::new();
        for byte in bytes {
            arrived.put_u8(byte);
            while let Some(frame) = FrameCodec.decode(&mut arrived).expect("frames are read") {
                read.push(frame);
            }
        }
        assert!(arrived.is_empty());
        read
    }

    #[test]
    fn every_frame_arrives_as_it_was_sent() {
        let exit = Exit {
            code: 137,
            signal: Some(9),
            out_of_memory: true,
            at: jiff::Timestamp::UNIX_EPOCH,
        };
        let fault =
            Fault { message: "no".to_owned(), causes: vec!["why".to_owned()], exit_code: 127 };
        let frames = [
            Frame::Request(Bytes::from_static(b"{}")),
            Frame::Ready,
            Frame::Stdin(Bytes::from_static(b"in")),
            Frame::StdinEnd,
            Frame::Stdout(Bytes::from_static(b"out")),
            Frame::Stderr(Bytes::new()),
            Frame::Resize { columns: 80, rows: 24 },
            Frame::Signal(15),
            Frame::Exited(exit),
            Frame::Failed(fault),
        ];
        assert_eq!(round_trip(&frames), frames);
    }

    #[test]
    fn a_frame_too_long_is_refused_before_it_is_read() {
        let mut bytes = BytesMut::from(&[2_u8, 0xff, 0xff, 0xff, 0xff][..]);
        assert!(matches!(FrameCodec.decode(&mut bytes), Err(FrameError::TooLong(_))));
    }

    #[test]
    fn a_frame_of_unknown_kind_is_refused() {
        let mut bytes = BytesMut::from(&[77_u8, 0, 0, 0, 0][..]);
        assert!(matches!(FrameCodec.decode(&mut bytes), Err(FrameError::Unknown(77))));
    }
}

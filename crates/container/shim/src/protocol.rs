//! What client and shim say to each other.
//!
//! A connection carries frames: four bytes of length, lowest first, then JSON. The
//! client asks once per connection and the shim answers once, with descriptors
//! attached where the answer has streams. Two requests have a second answer when a
//! process ends: `Wait` (its only one) and `Exec` (whose connection also takes
//! `Kill` for the process it started).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::ExecConfig;
use crate::error::Refusal;
use crate::record::Exit;

/// Longer frames are refused. A process with its environment is the longest.
pub(crate) const MAX_FRAME: usize = 4 << 20;
const HEADER: usize = 4;

/// What a client may ask.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Start,
    Kill { signal: i32, all: bool },
    Wait,
    Exec(Box<ExecConfig>),
    Attach,
    Resize { columns: u16, rows: u16 },
    CloseStdin,
    State,
    Pause,
    Resume,
    Stats,
    Delete { force: bool },
}

/// What the shim says first, on the socket it was spawned with, and afterwards to
/// each request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done,
    State(State),
    Stats(Stats),
    Exit(Exit),
    /// The descriptors that came along, in order: stdin, stdout, stderr, as far as
    /// the answer says they are there.
    Streams {
        pid: i32,
        stdin: bool,
        stdout: bool,
        stderr: bool,
    },
    Refused {
        kind: Refusal,
        message: String,
    },
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All is set up; the program has not been started.
    Created,
    /// The program runs.
    Running,
    /// The program is frozen.
    Paused,
    /// The program has ended.
    Stopped,
}

/// A container, as its shim sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Where it is in its life.
    pub status: Status,
    /// Its first process, on the host; `None` once that has ended.
    pub pid: Option<i32>,
    /// When the program was started.
    pub started_at: Option<Timestamp>,
    /// How it ended.
    pub exit: Option<Exit>,
    /// Lines of output that could not be written to the log, such as for want of
    /// space.
    pub lost_lines: u64,
}

/// What a container has used of the machine. What this machine does not count is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Processor time, in nanoseconds.
    pub cpu_ns: u64,
    /// Time spent waiting for more processor time than its limit allows, in nanoseconds.
    pub throttled_ns: u64,
    /// Memory in use, in bytes, with the page cache.
    pub memory_bytes: u64,
    /// Of it, page cache that could be dropped at once.
    pub memory_inactive_file_bytes: u64,
    /// The most memory it may use, in bytes; `None` without a limit.
    pub memory_limit_bytes: Option<u64>,
    /// Processes killed for want of memory.
    pub oom_kills: u64,
    /// Processes and threads.
    pub pids: u64,
    /// The most of them there may be; `None` without a limit.
    pub pids_limit: Option<u64>,
    /// Read from block devices, in bytes.
    pub block_read_bytes: u64,
    /// Written to block devices, in bytes.
    pub block_written_bytes: u64,
}

/// Sends one message, waiting until the peer has taken it.
pub(crate) fn send<T: Serialize>(
    socket: impl AsFd,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let frame = encode(message)?;
    let mut sent = carrack_linux::socket::send(&socket, &frame, descriptors)?;
    while let Some(rest) = frame.get(sent..).filter(|rest| !rest.is_empty()) {
        sent += carrack_linux::socket::send(&socket, rest, &[])?;
    }
    Ok(())
}

/// Receives one message, waiting for it. `None` when the peer closed instead.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<Option<T>> {
    let mut decoder = Decoder::default();
    loop {
        if let Some(frame) = decoder.next_frame()? {
            return serde_json::from_slice(&frame).map(Some).map_err(io::Error::from);
        }
        // Never beyond the frame's end, so that the next one's descriptors stay where
        // they are.
        let wanted = decoder.missing()?;
        let mut buffer = [0_u8; 4096];
        let window = buffer.len().min(wanted);
        let Some(window) = buffer.get_mut(..window) else { return Ok(None) };
        let read = carrack_linux::socket::receive(&socket, window, descriptors)?;
        if read == 0 {
            return Ok(None);
        }
        decoder.feed(window.get(..read).unwrap_or_default());
    }
}

fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; HEADER];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - HEADER;
    if length > MAX_FRAME {
        return Err(too_long(length));
    }
    let length = u32::try_from(length).map_err(io::Error::other)?;
    for (byte, value) in frame.iter_mut().zip(length.to_le_bytes()) {
        *byte = value;
    }
    Ok(frame)
}

/// Puts frames together from the pieces they arrive in.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    /// Takes in what arrived.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes out the next whole frame.
    pub(crate) fn next_frame(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(length) = self.length()? else { return Ok(None) };
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        let rest = self.buffer.split_off(HEADER + length);
        let mut frame = std::mem::replace(&mut self.buffer, rest);
        frame.drain(..HEADER);
        Ok(Some(frame))
    }

    /// How many bytes the frame under way still lacks, as far as is known.
    fn missing(&self) -> io::Result<usize> {
        let known = self.length()?.unwrap_or(0) + HEADER;
        Ok(known.saturating_sub(self.buffer.len()))
    }

    fn length(&self) -> io::Result<Option<usize>> {
        let Some(header) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let length = usize::try_from(u32::from_le_bytes(*header)).map_err(io::Error::other)?;
        if length > MAX_FRAME { Err(too_long(length)) } else { Ok(Some(length)) }
    }
}

fn too_long(length: usize) -> io::Error {
    let message = format!("a message of {length} bytes; the most is {MAX_FRAME}");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_frame_in_pieces_is_put_together_and_the_next_one_kept() {
        let mut bytes = encode(&Request::Start).expect("encodes");
        bytes.extend(encode(&Request::Wait).expect("encodes"));
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        for byte in bytes {
            decoder.feed(&[byte]);
            frames.extend(decoder.next_frame().expect("frame"));
        }
        assert_eq!(frames, [b"\"Start\"".to_vec(), b"\"Wait\"".to_vec()]);
    }

    #[test]
    fn a_frame_that_claims_to_be_huge_is_refused_before_it_is_read() {
        let mut decoder = Decoder::default();
        decoder.feed(&u32::MAX.to_le_bytes());
        assert!(decoder.next_frame().is_err());
    }

    #[test]
    fn a_peer_that_closes_in_the_middle_is_told_from_one_that_answers() {
        let (left, right) = UnixStream::pair().expect("pair");
        send(&left, &Answer::Done, &[]).expect("send");
        carrack_linux::socket::send(&left, &[9, 0, 0, 0, b'"'], &[]).expect("send");
        drop(left);
        let mut none = Vec::new();
        assert!(matches!(receive::<Answer>(&right, &mut none), Ok(Some(Answer::Done))));
        assert!(matches!(receive::<Answer>(&right, &mut none), Ok(None)));
    }

    proptest::proptest! {
        #[test]
        fn whatever_bytes_come_the_decoder_ends_with_frames_or_a_refusal(
            bytes in proptest::collection::vec(0_u8..4, 0..200),
            cut in 0_usize..200,
        ) {
            let mut whole = Decoder::default();
            whole.feed(&bytes);
            let mut pieces = Decoder::default();
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            pieces.feed(first);
            let mut found = frames(&mut pieces);
            pieces.feed(second);
            found.extend(frames(&mut pieces));
            proptest::prop_assert_eq!(found, frames(&mut whole));
        }
    }

    fn frames(decoder: &mut Decoder) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| decoder.next_frame().ok().flatten()).collect()
    }
}

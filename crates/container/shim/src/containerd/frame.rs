//! ttrpc: requests and responses in frames, over a stream socket.
//!
//! ```text
//! length u32 │ stream u32 │ type u8 │ flags u8 │ length bytes of a message
//! ```
//!
//! Numbers are big-endian. A client numbers its streams oddly and waits for one response
//! on each; only such plain calls exist in this protocol. See PROTOCOL.md of
//! github.com/containerd/ttrpc.

use super::wire::{Malformed, Message, for_each};

/// The longest message either side may send.
pub(crate) const LONGEST: usize = 4 << 20;
const HEADER: usize = 10;

const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;
/// The flag of a request that more data follows.
const REMOTE_OPEN: u8 = 2;

/// gRPC's codes, as far as they are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Unknown = 2,
    InvalidArgument = 3,
    NotFound = 5,
    AlreadyExists = 6,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Unimplemented = 12,
}

/// An answer in the negative.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl Status {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<Malformed> for Status {
    fn from(error: Malformed) -> Self {
        Self::new(Code::InvalidArgument, error.to_string())
    }
}

/// A call: which method, and the message for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) service: String,
    pub(crate) method: String,
    pub(crate) payload: Vec<u8>,
}

impl Call {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut call = Self::default();
        for_each(bytes, |field, value| {
            match field {
                1 => call.service = value.text()?,
                2 => call.method = value.text()?,
                3 => call.payload = value.bytes()?.to_vec(),
                // The caller's patience and its trace: it stops waiting by itself.
                _ => {}
            }
            Ok(())
        })?;
        Ok(call)
    }

    /// The call as a frame.
    pub(crate) fn frame(&self, stream: u32) -> Vec<u8> {
        let message =
            Message::new().text(1, &self.service).text(2, &self.method).bytes(3, &self.payload);
        frame(stream, REQUEST, message.as_bytes())
    }
}

/// The frame that answers `stream`.
pub(crate) fn response(stream: u32, answer: &Result<Message, Status>) -> Vec<u8> {
    let message = match answer {
        Ok(message) => Message::new().bytes(2, message.as_bytes()),
        Err(status) => {
            let status = Message::new().number(1, status.code as u32).text(2, &status.message);
            Message::new().message(1, &status)
        }
    };
    if message.as_bytes().len() > LONGEST {
        let status = Status::new(Code::ResourceExhausted, "the answer is longer than 4 MiB");
        return response(stream, &Err(status));
    }
    frame(stream, RESPONSE, message.as_bytes())
}

/// What a response says: nothing, or why not.
pub(crate) fn refusal(response: &[u8]) -> Result<Option<String>, Malformed> {
    let mut refusal = None;
    for_each(response, |field, value| {
        if field == 1 {
            let (mut code, mut message) = (0, String::new());
            for_each(value.bytes()?, |field, value| {
                match field {
                    1 => code = value.small()?,
                    2 => message = value.text()?,
                    _ => {}
                }
                Ok(())
            })?;
            refusal = (code != 0).then_some(message);
        }
        Ok(())
    })?;
    Ok(refusal)
}

fn frame(stream: u32, kind: u8, message: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER + message.len());
    // Whoever writes one has kept it below the limit.
    frame.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend(stream.to_be_bytes());
    frame.extend([kind, 0]);
    frame.extend(message);
    frame
}

/// One frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A request: its stream and message.
    Request(u32, Vec<u8>),
    /// The answer to a stream of ours.
    Response(u32, Vec<u8>),
    /// A request that is not taken, with the reason for its sender.
    Refused(u32, Status),
}

/// The conversation makes no sense any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of type {0} is neither a request nor a response")]
pub(crate) struct Nonsense(u8);

/// Cuts what comes into frames.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    bytes: Vec<u8>,
    /// How much of a message that is too long is still to come.
    skip: usize,
}

impl Decoder {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        self.bytes.extend_from_slice(bytes.get(skipped..).unwrap_or_default());
    }

    /// The next whole frame; `None` until more has come.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, Nonsense> {
        let Some((length, stream, kind, flags)) = self.header() else { return Ok(None) };
        if !matches!(kind, REQUEST | RESPONSE) {
            return Err(Nonsense(kind));
        }
        if length > LONGEST {
            let here = (self.bytes.len() - HEADER).min(length);
            self.bytes.drain(..HEADER + here);
            self.skip = length - here;
            let message = format!("a message of {length} bytes; at most {LONGEST} are taken");
            return Ok(Some(Frame::Refused(stream, Status::new(Code::ResourceExhausted, message))));
        }
        if self.bytes.len() < HEADER + length {
            return Ok(None);
        }
        let message: Vec<u8> = self.bytes.drain(..HEADER + length).skip(HEADER).collect();
        if self.bytes.is_empty() {
            // Calls come seldom, and a big one must not keep its memory.
            self.bytes = Vec::new();
        }
        Ok(Some(match kind {
            RESPONSE => Frame::Response(stream, message),
            _ if stream % 2 == 0 => {
                let status =
                    Status::new(Code::InvalidArgument, "a client's streams have odd numbers");
                Frame::Refused(stream, status)
            }
            _ if flags & REMOTE_OPEN != 0 => {
                let status =
                    Status::new(Code::Unimplemented, "no call here takes a stream of data");
                Frame::Refused(stream, status)
            }
            _ => Frame::Request(stream, message),
        }))
    }

    fn header(&self) -> Option<(usize, u32, u8, u8)> {
        let (length, rest) = self.bytes.split_first_chunk::<4>()?;
        let (stream, rest) = rest.split_first_chunk::<4>()?;
        let (&[kind, flags], _) = rest.split_first_chunk::<2>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        Some((length, u32::from_be_bytes(*stream), kind, flags))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn call(payload: &[u8]) -> Call {
        Call {
            service: "containerd.task.v2.Task".into(),
            method: "State".into(),
            payload: payload.into(),
        }
    }

    #[test]
    fn calls_are_found_wherever_the_bytes_are_cut() {
        let sent = [call(b"one"), call(b""), call(&[7; 5000])];
        let bytes: Vec<u8> =
            (1_u32..).step_by(2).zip(&sent).flat_map(|(stream, call)| call.frame(stream)).collect();
        for chunk in [1, 3, 10, 11, 4096, bytes.len()] {
            let (mut decoder, mut seen) = (Decoder::default(), Vec::new());
            for piece in bytes.chunks(chunk) {
                decoder.feed(piece);
                while let Some(frame) = decoder.next_frame().expect("sense") {
                    let Frame::Request(stream, message) = frame else { panic!("{frame:?}") };
                    seen.push((stream, Call::decode(&message).expect("a call")));
                }
            }
            assert_eq!(seen, [(1, sent[0].clone()), (3, sent[1].clone()), (5, sent[2].clone())]);
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_and_skipped() {
        let mut decoder = Decoder::default();
        let length = u32::try_from(LONGEST + 5).expect("small");
        decoder.feed(&[&length.to_be_bytes()[..], &7_u32.to_be_bytes(), &[1, 0], b"head"].concat());
        let frame = decoder.next_frame().expect("sense");
        let Some(Frame::Refused(7, status)) = frame else { panic!("{frame:?}") };
        assert_eq!(status.code, Code::ResourceExhausted);
        for _ in 0..LONGEST / (1 << 20) {
            decoder.feed(&[0; 1 << 20]);
            assert_eq!(decoder.next_frame(), Ok(None));
        }
        decoder.feed(b"!");
        decoder.feed(&call(b"after").frame(9));
        let frame = decoder.next_frame().expect("sense");
        assert!(matches!(frame, Some(Frame::Request(9, _))), "{frame:?}");
    }

    #[test]
    fn what_no_client_of_plain_calls_sends_is_refused() {
        let refused = |stream: u32, flags| {
            let mut decoder = Decoder::default();
            decoder.feed(&[&[0; 4][..], &stream.to_be_bytes(), &[REQUEST, flags]].concat());
            match decoder.next_frame().expect("sense") {
                Some(Frame::Refused(_, status)) => Some(status.code),
                _ => None,
            }
        };
        assert_eq!(refused(2, 0), Some(Code::InvalidArgument));
        assert_eq!(refused(1, REMOTE_OPEN), Some(Code::Unimplemented));
        assert_eq!(refused(1, 0), None);
        let mut decoder = Decoder::default();
        decoder.feed(&[0, 0, 0, 0, 0, 0, 0, 1, 3, 0]);
        assert_eq!(decoder.next_frame(), Err(Nonsense(3)));
    }

    #[test]
    fn a_refusal_comes_through_a_response() {
        let said = |answer: &Result<Message, Status>| {
            let mut decoder = Decoder::default();
            decoder.feed(&response(5, answer));
            match decoder.next_frame().expect("sense") {
                Some(Frame::Response(5, message)) => refusal(&message).expect("a response"),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(said(&Ok(Message::new().text(1, "x"))), None);
        let status = Status::new(Code::NotFound, "no such container");
        assert_eq!(said(&Err(status)).as_deref(), Some("no such container"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(pieces in prop::collection::vec(any::<Vec<u8>>(), 0..8)) {
            let mut decoder = Decoder::default();
            for piece in &pieces {
                decoder.feed(piece);
                while let Ok(Some(frame)) = decoder.next_frame() {
                    if let Frame::Request(_, message) | Frame::Response(_, message) = frame {
                        Call::decode(&message).ok();
                        refusal(&message).ok();
                    }
                }
            }
        }
    }
}

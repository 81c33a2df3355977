//! W3C trace context: the `traceparent` header.

use std::fmt;

/// Which trace a request belongs to, and which span of it called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: [u8; 16],
    parent_id: [u8; 8],
    flags: u8,
}

/// The length of a `traceparent` of version 00.
const LENGTH: usize = 55;

impl TraceContext {
    /// Starts a new trace, sampled.
    #[must_use]
    pub fn start() -> Self {
        Self { trace_id: random_nonzero(), parent_id: random_nonzero(), flags: 1 }
    }

    /// Reads a `traceparent` header. What is malformed is none, as the specification asks.
    ///
    /// Versions after 00 are read as far as version 00 goes.
    #[must_use]
    pub fn parse(header: &[u8]) -> Option<Self> {
        let separators = [2, 35, 52].iter().all(|at| header.get(*at) == Some(&b'-'));
        let version = hex_bytes::<1>(header.get(0..2)?)?;
        let ends = match version {
            [0xff] => false,
            [0] => header.len() == LENGTH,
            _ => header.len() == LENGTH || header.get(LENGTH) == Some(&b'-'),
        };
        if !separators || !ends {
            return None;
        }
        let trace_id = hex_bytes(header.get(3..35)?)?;
        let parent_id = hex_bytes(header.get(36..52)?)?;
        let [flags] = hex_bytes(header.get(53..55)?)?;
        (trace_id != [0; 16] && parent_id != [0; 8]).then_some(Self { trace_id, parent_id, flags })
    }

    /// The trace, in hexadecimal.
    #[must_use]
    pub fn trace_id(&self) -> String {
        let mut text = [0; 32];
        write_hex(&self.trace_id, &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The header's value.
    #[must_use]
    pub fn to_header(&self) -> [u8; LENGTH] {
        let mut header = [b'-'; LENGTH];
        write_hex(&[0], &mut header[0..2]);
        write_hex(&self.trace_id, &mut header[3..35]);
        write_hex(&self.parent_id, &mut header[36..52]);
        write_hex(&[self.flags], &mut header[53..55]);
        header
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.to_header()))
    }
}

fn random_nonzero<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    while bytes == [0; N] {
        rand::fill(&mut bytes);
    }
    bytes
}

fn write_hex(bytes: &[u8], out: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(out.chunks_exact_mut(2)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

/// Lower-case digits only, as the specification has it.
fn hex_bytes<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[track_caller]
    fn refused(header: &str) {
        assert_eq!(TraceContext::parse(header.as_bytes()), None, "for {header}");
    }

    #[test]
    fn a_header_is_written_as_it_was_read() {
        let context = TraceContext::parse(GOOD.as_bytes()).expect("parses");
        assert_eq!(context.to_string(), GOOD);
        assert_eq!(context.trace_id(), "0af7651916cd43dd8448eb211c80319c");
    }

    #[test]
    fn a_started_trace_can_be_read_by_the_next_hop() {
        let context = TraceContext::start();
        assert_eq!(TraceContext::parse(&context.to_header()), Some(context));
    }

    #[test]
    fn malformed_headers_are_as_good_as_none() {
        refused("");
        refused("00");
        refused(&GOOD.to_uppercase());
        refused(&format!("{GOOD}-more"));
        refused("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        refused("00-00000000000000000000000000000000-b7ad6b7169203331-01");
        refused("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01");
        refused("00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01");
    }

    #[test]
    fn a_later_version_is_read_as_far_as_this_one_goes() {
        let header = format!("01{}-more", GOOD.trim_start_matches("00"));
        assert!(TraceContext::parse(header.as_bytes()).is_some());
    }
}

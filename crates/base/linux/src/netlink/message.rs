//! Writing one netlink message, and reading attributes out of another.

use super::HEADER;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLA_F_NESTED: u16 = 1 << 15;
const ATTRIBUTE_HEADER: usize = 4;

/// One message under construction: a header, a fixed part, then attributes.
#[derive(Debug)]
pub struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    /// A message of type `kind` whose fixed part is `fixed`.
    ///
    /// `flags` are those besides "request" and "acknowledge".
    #[must_use]
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut message = Self { kind, flags, body: fixed.to_vec() };
        message.pad();
        message
    }

    /// Adds an attribute.
    pub fn bytes(&mut self, attribute: u16, value: &[u8]) -> &mut Self {
        let start = self.open(attribute);
        self.body.extend_from_slice(value);
        self.close(start);
        self
    }

    /// Adds a number in the machine's byte order.
    pub fn number(&mut self, attribute: u16, value: u32) -> &mut Self {
        self.bytes(attribute, &value.to_ne_bytes())
    }

    /// Adds a number in the network's byte order, as netfilter has them.
    pub fn network_number(&mut self, attribute: u16, value: u32) -> &mut Self {
        self.bytes(attribute, &value.to_be_bytes())
    }

    /// Adds a text, with the NUL the kernel expects after it.
    pub fn text(&mut self, attribute: u16, value: &str) -> &mut Self {
        let start = self.open(attribute);
        self.body.extend_from_slice(value.as_bytes());
        self.body.push(0);
        self.close(start);
        self
    }

    /// Adds an attribute made of the attributes `inner` adds.
    pub fn nested(&mut self, attribute: u16, inner: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.open(attribute | NLA_F_NESTED);
        inner(self);
        self.close(start);
        self
    }

    /// Adds bytes that stand in the message as they are, such as a fixed part inside
    /// a nested attribute.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.body.extend_from_slice(bytes);
        self.pad();
        self
    }

    fn open(&mut self, attribute: u16) -> usize {
        let start = self.body.len();
        self.body.extend_from_slice(&[0, 0]);
        self.body.extend_from_slice(&attribute.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        // No attribute here comes near 64 KiB; one that did would be refused by the
        // kernel for its length, not misread.
        let length = u16::try_from(self.body.len() - start).unwrap_or(u16::MAX);
        for (byte, value) in self.body.iter_mut().skip(start).zip(length.to_ne_bytes()) {
            *byte = value;
        }
        self.pad();
    }

    fn pad(&mut self) {
        self.body.resize(self.body.len().next_multiple_of(4), 0);
    }

    /// The finished message.
    pub(super) fn finish(self, sequence: u32, acknowledge: bool) -> Vec<u8> {
        let mut flags = self.flags | NLM_F_REQUEST;
        if acknowledge {
            flags |= NLM_F_ACK;
        }
        let length = u32::try_from(HEADER + self.body.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(HEADER + self.body.len());
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(&self.kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&0_u32.to_ne_bytes());
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// The value of the first attribute numbered `wanted`.
pub(super) fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(super::u16_at(bytes, 0)?);
        let number = super::u16_at(bytes, 2)? & !NLA_F_NESTED;
        let value = bytes.get(ATTRIBUTE_HEADER..length)?;
        if number == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_found_again() {
        let mut message = Message::new(1, 0, &[0; 3]);
        message.text(3, "ab").nested(4, |inner| {
            inner.number(1, 7);
        });
        let bytes = message.finish(1, true);
        assert_eq!(bytes.len() % 4, 0);
        let attributes = &bytes[HEADER + 4..];
        assert_eq!(attribute(attributes, 3), Some(b"ab\0".as_slice()));
        let nested = attribute(attributes, 4).expect("nested");
        assert_eq!(attribute(nested, 1), Some(7_u32.to_ne_bytes().as_slice()));
        assert_eq!(attribute(attributes, 9), None);
    }

    #[test]
    fn an_attribute_that_claims_more_than_there_is_ends_the_reading() {
        assert_eq!(attribute(&[255, 0, 1, 0, 1, 2], 1), None);
        assert_eq!(attribute(&[0, 0, 2, 0], 1), None);
    }
}

//! Protocol buffers: the few shapes this protocol has, read and written by hand.
//!
//! A message is a list of fields, each a number and a value; a field that is not known is
//! skipped, one that is cut short is [`Malformed`]. See the encoding guide at
//! <https://protobuf.dev/programming-guides/encoding/>.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a protocol buffer message: {0}")]
pub(crate) struct Malformed(&'static str);

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// A number or a truth.
    Number(u64),
    /// Text, bytes or a message.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    pub(crate) fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) => Err(Malformed("a number where bytes belong")),
        }
    }

    pub(crate) fn text(self) -> Result<String, Malformed> {
        let text = std::str::from_utf8(self.bytes()?);
        text.map(str::to_owned).map_err(|_| Malformed("text that is not UTF-8"))
    }

    pub(crate) fn number(self) -> Result<u64, Malformed> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Bytes(_) => Err(Malformed("bytes where a number belongs")),
        }
    }

    /// A number of 32 bits; higher bits are dropped, as the encoding says.
    pub(crate) fn small(self) -> Result<u32, Malformed> {
        Ok(u32::try_from(self.number()? & u64::from(u32::MAX)).unwrap_or(u32::MAX))
    }

    pub(crate) fn truth(self) -> Result<bool, Malformed> {
        Ok(self.number()? != 0)
    }
}

/// Calls `take` with each field's number and value.
pub(crate) fn for_each<'a>(
    mut bytes: &'a [u8],
    mut take: impl FnMut(u64, Value<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let field = tag >> 3;
        if field == 0 || field > u64::from(u32::MAX >> 3) {
            return Err(Malformed("a field number out of range"));
        }
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut bytes)?),
            1 => Value::Number(fixed(&mut bytes, 8)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?)
                    .map_err(|_| Malformed("a length beyond memory"))?;
                Value::Bytes(cut(&mut bytes, length)?)
            }
            5 => Value::Number(fixed(&mut bytes, 4)?),
            _ => return Err(Malformed("a kind of field that does not exist here")),
        };
        take(field, value)?;
    }
    Ok(())
}

fn cut<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (head, rest) = bytes.split_at_checked(length).ok_or(Malformed("it is cut short"))?;
    *bytes = rest;
    Ok(head)
}

fn fixed(bytes: &mut &[u8], length: usize) -> Result<u64, Malformed> {
    let bytes = cut(bytes, length)?;
    Ok(bytes.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(Malformed("it is cut short"))?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Malformed("a number of more than ten bytes"))
}

/// A message being written. Fields that hold nothing are left out, as version 3 says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn number(mut self, field: u32, number: impl Into<u64>) -> Self {
        let number = number.into();
        if number != 0 {
            self.tag(field, 0);
            self.varint(number);
        }
        self
    }

    pub(crate) fn bytes(mut self, field: u32, bytes: &[u8]) -> Self {
        if !bytes.is_empty() {
            self.put(field, bytes);
        }
        self
    }

    pub(crate) fn text(self, field: u32, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    /// One of several texts; there even when it is empty.
    pub(crate) fn item(mut self, field: u32, text: &str) -> Self {
        self.put(field, text.as_bytes());
        self
    }

    /// A message within this one; there even when it is empty.
    pub(crate) fn message(mut self, field: u32, message: &Self) -> Self {
        self.put(field, &message.0);
        self
    }

    pub(crate) fn messages(self, field: u32, messages: impl IntoIterator<Item = Self>) -> Self {
        messages.into_iter().fold(self, |whole, message| whole.message(field, &message))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn put(&mut self, field: u32, bytes: &[u8]) {
        self.tag(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn tag(&mut self, field: u32, kind: u64) {
        self.varint((u64::from(field) << 3) | kind);
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(u8::try_from(number & 0x7f).unwrap_or_default() | 0x80);
            number >>= 7;
        }
        self.0.push(u8::try_from(number).unwrap_or_default());
    }
}

/// `google.protobuf.Any`: bytes, and the name of what they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Any {
    pub(crate) url: String,
    pub(crate) value: Vec<u8>,
}

impl Any {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut any = Self::default();
        for_each(bytes, |field, value| {
            match field {
                1 => any.url = value.text()?,
                2 => any.value = value.bytes()?.to_vec(),
                _ => {}
            }
            Ok(())
        })?;
        Ok(any)
    }

    pub(crate) fn of(url: &str, message: Message) -> Self {
        Self { url: url.to_owned(), value: message.into_bytes() }
    }

    pub(crate) fn encode(&self) -> Message {
        Message::new().text(1, &self.url).bytes(2, &self.value)
    }

    /// The type's name, without the address some callers put before it.
    pub(crate) fn name(&self) -> &str {
        self.url.rsplit_once('/').map_or(self.url.as_str(), |(_, name)| name)
    }
}

/// `google.protobuf.Timestamp`.
pub(crate) fn timestamp(at: SystemTime) -> Message {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Message::new().number(1, since.as_secs()).number(2, since.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let inner = Message::new().text(1, "a").number(2, 300_u32);
        let message = Message::new().number(1, u64::MAX).message(4, &inner).text(17, "é");
        let mut seen = Vec::new();
        for_each(message.as_bytes(), |field, value| {
            seen.push((field, value));
            Ok(())
        })
        .expect("whole");
        assert_eq!(
            seen,
            [
                (1, Value::Number(u64::MAX)),
                (4, Value::Bytes(b"\x0a\x01a\x10\xac\x02")),
                (17, Value::Bytes("é".as_bytes())),
            ]
        );
    }

    #[test]
    fn an_empty_field_is_left_out_and_an_empty_message_is_not() {
        assert!(Message::new().text(1, "").number(2, 0_u32).as_bytes().is_empty());
        assert_eq!(Message::new().message(3, &Message::new()).as_bytes(), b"\x1a\x00");
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let cases: [&[u8]; 6] = [
            b"\x0a",                                         // no length
            b"\x0a\x05abc",                                  // cut short
            b"\x00\x01",                                     // field 0
            b"\x0b\x0c",                                     // a group
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", // too long a number
            b"\x09\x01\x02",                                 // seven bytes short
        ];
        for case in cases {
            for_each(case, |_, _| Ok(())).expect_err(&format!("{case:?} was taken"));
        }
        assert!(Value::Bytes(b"\xff").text().is_err());
    }

    #[test]
    fn numbers_of_fixed_size_are_read_too() {
        let mut seen = Vec::new();
        for_each(b"\x0d\x01\x02\x00\x00\x11\x01\x00\x00\x00\x00\x00\x00\x80", |field, value| {
            seen.push((field, value.number()?));
            Ok(())
        })
        .expect("whole");
        assert_eq!(seen, [(1, 0x201), (2, 0x8000_0000_0000_0001)]);
    }
}

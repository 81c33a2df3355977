//! Values as bytes.

use super::{BusError, Value};

/// How deep containers may be nested.
const MAX_DEPTH: u32 = 16;

/// Writes values, little-endian, each at a multiple of its size.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    pub(super) fn u32(&mut self, number: u32) {
        self.align(4);
        self.bytes.extend(number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    pub(super) fn signature(&mut self, signature: &str) {
        self.bytes.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.bytes.extend(signature.as_bytes());
        self.bytes.push(0);
    }

    pub(super) fn value(&mut self, value: &Value) {
        match value {
            Value::Byte(number) => self.bytes.push(*number),
            Value::Bool(on) => self.u32(u32::from(*on)),
            Value::I16(number) => self.number(&number.to_le_bytes()),
            Value::U16(number) => self.number(&number.to_le_bytes()),
            Value::I32(number) => self.number(&number.to_le_bytes()),
            Value::U32(number) => self.number(&number.to_le_bytes()),
            Value::I64(number) => self.number(&number.to_le_bytes()),
            Value::U64(number) => self.number(&number.to_le_bytes()),
            Value::Double(number) => self.number(&number.to_le_bytes()),
            Value::Text(text) | Value::Path(text) => self.text(text),
            Value::Signature(text) => self.signature(text),
            Value::Array(element, values) => self.array(element, values),
            Value::Struct(fields) => {
                self.align(8);
                fields.iter().for_each(|field| self.value(field));
            }
            Value::Variant(inner) => {
                self.signature(&inner.signature());
                self.value(inner);
            }
        }
    }

    fn number(&mut self, bytes: &[u8]) {
        self.align(bytes.len());
        self.bytes.extend(bytes);
    }

    fn array(&mut self, element: &str, values: &[Value]) {
        self.u32(0);
        let length_at = self.bytes.len() - 4;
        self.align(alignment(element));
        let start = self.bytes.len();
        values.iter().for_each(|value| self.value(value));
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        if let Some(place) = self.bytes.get_mut(length_at..length_at + 4) {
            place.copy_from_slice(&length.to_le_bytes());
        }
    }
}

fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'y' | b'g' | b'v') => 1,
        Some(b'n' | b'q') => 2,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 4,
    }
}

/// Reads values from bytes that somebody else wrote.
#[derive(Debug)]
pub(super) struct Parser<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
    pub(super) big_endian: bool,
}

fn malformed(what: &'static str) -> BusError {
    BusError::Malformed { what }
}

impl Parser<'_> {
    pub(super) fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Result<&[u8], BusError> {
        let end = self.at.checked_add(count).ok_or(malformed("a length"))?;
        let taken = self.bytes.get(self.at..end).ok_or(malformed("it ends early"))?;
        self.at = end;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], BusError> {
        self.align(N);
        let big_endian = self.big_endian;
        let mut bytes: [u8; N] =
            self.take(N)?.try_into().map_err(|_| malformed("it ends early"))?;
        if big_endian {
            bytes.reverse();
        }
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, BusError> {
        Ok(u32::from_le_bytes(self.number()?))
    }

    fn length(&mut self) -> Result<usize, BusError> {
        usize::try_from(self.u32()?).map_err(|_| malformed("a length"))
    }

    fn text(&mut self, length: usize) -> Result<String, BusError> {
        let text = self.take(length)?.to_vec();
        if self.take(1)? != [0] {
            return Err(malformed("a text without its end"));
        }
        String::from_utf8(text).map_err(|_| malformed("a text that is not UTF-8"))
    }

    pub(super) fn signature(&mut self) -> Result<String, BusError> {
        let length = usize::from(self.take(1)?.first().copied().unwrap_or_default());
        self.text(length)
    }

    /// All values of a signature.
    pub(super) fn values(&mut self, signature: &str) -> Result<Vec<Value>, BusError> {
        self.sequence(signature, 0)
    }

    fn sequence(&mut self, mut signature: &str, depth: u32) -> Result<Vec<Value>, BusError> {
        let mut values = Vec::new();
        while !signature.is_empty() {
            let (first, rest) = split(signature)?;
            values.push(self.value(first, depth)?);
            signature = rest;
        }
        Ok(values)
    }

    fn value(&mut self, signature: &str, depth: u32) -> Result<Value, BusError> {
        if depth > MAX_DEPTH {
            return Err(malformed("values nested too deep"));
        }
        let inner = signature.get(1..).unwrap_or_default();
        Ok(match signature.as_bytes().first() {
            Some(b'y') => Value::Byte(self.take(1)?.first().copied().unwrap_or_default()),
            Some(b'b') => Value::Bool(self.u32()? != 0),
            Some(b'n') => Value::I16(i16::from_le_bytes(self.number()?)),
            Some(b'q') => Value::U16(u16::from_le_bytes(self.number()?)),
            Some(b'i') => Value::I32(i32::from_le_bytes(self.number()?)),
            Some(b'u' | b'h') => Value::U32(self.u32()?),
            Some(b'x') => Value::I64(i64::from_le_bytes(self.number()?)),
            Some(b't') => Value::U64(u64::from_le_bytes(self.number()?)),
            Some(b'd') => Value::Double(f64::from_le_bytes(self.number()?)),
            Some(b's') => {
                let length = self.length()?;
                Value::Text(self.text(length)?)
            }
            Some(b'o') => {
                let length = self.length()?;
                Value::Path(self.text(length)?)
            }
            Some(b'g') => Value::Signature(self.signature()?),
            Some(b'a') => self.array(inner, depth + 1)?,
            Some(b'(' | b'{') => {
                self.align(8);
                let fields = inner.get(..inner.len().saturating_sub(1)).unwrap_or_default();
                Value::Struct(self.sequence(fields, depth + 1)?)
            }
            Some(b'v') => {
                let signature = self.signature()?;
                let (first, rest) = split(&signature)?;
                if !rest.is_empty() {
                    return Err(malformed("a variant of several values"));
                }
                Value::Variant(Box::new(self.value(first, depth + 1)?))
            }
            _ => return Err(malformed("a type that does not exist")),
        })
    }

    fn array(&mut self, element: &str, depth: u32) -> Result<Value, BusError> {
        let length = self.length()?;
        self.align(alignment(element));
        let end = self.at.checked_add(length).ok_or(malformed("a length"))?;
        if end > self.bytes.len() {
            return Err(malformed("an array that ends early"));
        }
        let mut values = Vec::new();
        while self.at < end {
            let before = self.at;
            values.push(self.value(element, depth)?);
            if self.at == before {
                return Err(malformed("values without bytes"));
            }
        }
        Ok(Value::Array(element.to_owned(), values))
    }
}

/// The first complete type of a signature, and the rest.
fn split(signature: &str) -> Result<(&str, &str), BusError> {
    let mut depth = 0u32;
    for (at, byte) in signature.bytes().enumerate() {
        match byte {
            b'a' => continue,
            b'(' | b'{' => depth += 1,
            b')' | b'}' => {
                depth = depth.checked_sub(1).ok_or(malformed("a signature"))?;
            }
            _ => {}
        }
        if depth == 0 {
            return signature.split_at_checked(at + 1).ok_or(malformed("a signature"));
        }
    }
    Err(malformed("a signature"))
}

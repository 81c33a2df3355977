//! Messages: a head, fields, a body.

use super::wire::{Parser, Writer};
use super::{BusError, Method, Value};

/// Bytes that say how long the rest is.
pub(super) const HEAD: usize = 16;

/// The longest message taken; the specification allows more than anybody needs.
const MAX_MESSAGE: usize = 1 << 20;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

const CALL: u8 = 1;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Return,
    Error,
    Signal,
    /// A call, or what a later version has.
    Other,
}

/// A message that came; its body is read when somebody wants it.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) reply_to: Option<u32>,
    pub(super) interface: Option<String>,
    pub(super) member: Option<String>,
    pub(super) error: Option<String>,
    signature: String,
    bytes: Vec<u8>,
    body: usize,
    big_endian: bool,
}

impl Message {
    pub(super) fn values(&self) -> Result<Vec<Value>, BusError> {
        let bytes = self.bytes.get(self.body..).unwrap_or_default();
        Parser { bytes, at: 0, big_endian: self.big_endian }.values(&self.signature)
    }
}

pub(super) fn encode_call(serial: u32, method: Method<'_>, values: &[Value]) -> Vec<u8> {
    let fields = [
        (PATH, Value::Path(method.path.to_owned())),
        (DESTINATION, Value::Text(method.destination.to_owned())),
        (INTERFACE, Value::Text(method.interface.to_owned())),
        (MEMBER, Value::Text(method.name.to_owned())),
    ];
    encode(CALL, serial, fields.into(), values)
}

pub(super) fn encode(
    kind: u8,
    serial: u32,
    mut fields: Vec<(u8, Value)>,
    values: &[Value],
) -> Vec<u8> {
    let mut body = Writer::default();
    values.iter().for_each(|value| body.value(value));
    if !values.is_empty() {
        let signature = values.iter().map(Value::signature).collect();
        fields.push((SIGNATURE, Value::Signature(signature)));
    }
    let fields = fields.into_iter().map(|(code, value)| {
        Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))])
    });
    let mut message = Writer { bytes: vec![b'l', kind, 0, 1] };
    message.u32(u32::try_from(body.bytes.len()).unwrap_or(u32::MAX));
    message.u32(serial);
    message.value(&Value::Array("(yv)".into(), fields.collect()));
    message.align(8);
    message.bytes.extend(body.bytes);
    message.bytes
}

/// How many bytes follow a head.
pub(super) fn rest_length(head: &[u8; HEAD]) -> Result<usize, BusError> {
    let mut parser = Parser { bytes: head, at: 4, big_endian: is_big_endian(head)? };
    let body = parser.u32()?;
    parser.u32()?;
    let fields = parser.u32()?;
    let length = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let rest = length(fields).saturating_add(7) / 8 * 8;
    let rest = rest.saturating_add(length(body));
    if rest > MAX_MESSAGE {
        return Err(BusError::Malformed { what: "a message longer than a mebibyte" });
    }
    Ok(rest)
}

fn is_big_endian(bytes: &[u8]) -> Result<bool, BusError> {
    match bytes.first() {
        Some(b'l') => Ok(false),
        Some(b'B') => Ok(true),
        _ => Err(BusError::Malformed { what: "a message without its byte order" }),
    }
}

/// A whole message.
pub(super) fn decode(bytes: Vec<u8>) -> Result<Message, BusError> {
    let big_endian = is_big_endian(&bytes)?;
    let mut parser = Parser { bytes: &bytes, at: 12, big_endian };
    let fields = parser.values("a(yv)")?;
    parser.align(8);
    let body = parser.at;
    let kind = match bytes.get(1) {
        Some(2) => Kind::Return,
        Some(3) => Kind::Error,
        Some(4) => Kind::Signal,
        _ => Kind::Other,
    };
    let mut message = Message {
        kind,
        reply_to: None,
        interface: None,
        member: None,
        error: None,
        signature: String::new(),
        bytes: Vec::new(),
        body,
        big_endian,
    };
    for (code, value) in pairs(fields) {
        match (code, value) {
            (INTERFACE, Value::Text(text)) => message.interface = Some(text),
            (MEMBER, Value::Text(text)) => message.member = Some(text),
            (ERROR_NAME, Value::Text(text)) => message.error = Some(text),
            (REPLY_SERIAL, Value::U32(serial)) => message.reply_to = Some(serial),
            (SIGNATURE, Value::Signature(text)) => message.signature = text,
            _ => {}
        }
    }
    message.bytes = bytes;
    Ok(message)
}

fn pairs(fields: Vec<Value>) -> impl Iterator<Item = (u8, Value)> {
    let fields = fields.into_iter().flat_map(|value| match value {
        Value::Array(_, fields) => fields,
        _ => Vec::new(),
    });
    fields.filter_map(|field| {
        let Value::Struct(parts) = field else { return None };
        match <[Value; 2]>::try_from(parts).ok()? {
            [Value::Byte(code), Value::Variant(value)] => Some((code, *value)),
            _ => None,
        }
    })
}

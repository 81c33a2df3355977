//! Extended headers: what does not fit into a header's fields.
//!
//! A record is `<length> <key>=<value>\n`, where the length counts all of it.

use std::collections::BTreeMap;

use super::ArchiveError;

/// In front of an extended attribute's name.
const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";

const BROKEN: ArchiveError = ArchiveError::Header("extended records cannot be read");

/// What an extended header says about the entry after it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) modified: Option<i64>,
    pub(super) attributes: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Records {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, ArchiveError> {
        let mut records = Self::default();
        while !bytes.is_empty() {
            let (key, value, rest) = split_record(bytes).ok_or(BROKEN)?;
            records.take_in(key, value)?;
            bytes = rest;
        }
        Ok(records)
    }

    fn take_in(&mut self, key: &[u8], value: &[u8]) -> Result<(), ArchiveError> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(natural(value).ok_or(BROKEN)?),
            b"uid" => self.uid = Some(natural(value).ok_or(BROKEN)?),
            b"gid" => self.gid = Some(natural(value).ok_or(BROKEN)?),
            b"mtime" => self.modified = Some(seconds(value).ok_or(BROKEN)?),
            _ => {
                if let Some(name) = key.strip_prefix(ATTRIBUTE) {
                    self.attributes.insert(name.to_vec(), value.to_vec());
                } else if key.starts_with(b"GNU.sparse.") {
                    return Err(ArchiveError::Header("content is sparse, which is not supported"));
                }
                // Anything else (access times, comments, names of owners) does not
                // change what is unpacked.
            }
        }
        Ok(())
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut all: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let number = |number: u64| number.to_string().into_bytes();
        all.extend(self.path.clone().map(|path| (b"path".to_vec(), path)));
        all.extend(self.link.clone().map(|link| (b"linkpath".to_vec(), link)));
        all.extend(self.size.map(|size| (b"size".to_vec(), number(size))));
        all.extend(self.uid.map(|uid| (b"uid".to_vec(), number(uid))));
        all.extend(self.gid.map(|gid| (b"gid".to_vec(), number(gid))));
        all.extend(self.modified.map(|time| (b"mtime".to_vec(), time.to_string().into_bytes())));
        all.extend(
            self.attributes.iter().map(|(name, value)| ([ATTRIBUTE, name].concat(), value.clone())),
        );
        all.iter().flat_map(|(key, value)| record(key, value)).collect()
    }
}

fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(natural(bytes.get(..space)?)?).ok()?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let key = record.get(..equals).filter(|key| !key.is_empty())?;
    Some((key, record.get(equals + 1..)?, bytes.get(length..)?))
}

fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    // The length counts its own digits: one more of them may make it longer again.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

fn natural(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(text).ok()?.parse().ok())?
}

/// Whole seconds of a decimal number; a fraction is rounded down.
fn seconds(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: i64 = whole.parse().ok()?;
    let is_below = whole.starts_with('-') && fraction.bytes().any(|digit| digit != b'0');
    number.checked_sub(i64::from(is_below))
}

//! The 512 bytes in front of every entry.

use super::{ArchiveError, BLOCK};

/// Where a field lies: its start and its length.
type Field = (usize, usize);

const NAME: Field = (0, 100);
const MODE: Field = (100, 8);
const UID: Field = (108, 8);
const GID: Field = (116, 8);
const SIZE: Field = (124, 12);
const MODIFIED: Field = (136, 12);
const CHECKSUM: Field = (148, 8);
const TYPE: usize = 156;
const LINK: Field = (157, 100);
const MAGIC: Field = (257, 8);
const MAJOR: Field = (329, 8);
const MINOR: Field = (337, 8);
const PREFIX: Field = (345, 155);

/// The longest name and link a header holds by itself.
pub(super) const LONGEST_NAME: usize = NAME.1;
/// The greatest size a header holds in octal.
pub(super) const GREATEST_SIZE: u64 = 0o777_7777_7777;
/// The greatest owner and group a header holds in octal.
pub(super) const GREATEST_OWNER: u64 = 0o777_7777;

/// One header, as bytes.
#[derive(Clone)]
pub(super) struct Header(pub(super) [u8; BLOCK]);

impl Header {
    pub(super) const fn empty() -> Self {
        Self([0; BLOCK])
    }

    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[TYPE]
    }

    /// Whether the sum of all bytes is the one written in it. Some old programs
    /// added up signed bytes.
    pub(super) fn check(&self) -> Result<(), ArchiveError> {
        let written = self.number(CHECKSUM)?;
        let counted = |index: usize| !(CHECKSUM.0..CHECKSUM.0 + CHECKSUM.1).contains(&index);
        let bytes = || {
            let blank = |(index, byte): (usize, &u8)| if counted(index) { *byte } else { b' ' };
            self.0.iter().enumerate().map(blank)
        };
        let unsigned: i64 = bytes().map(i64::from).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        if [unsigned, signed].contains(&written) {
            Ok(())
        } else {
            Err(ArchiveError::Header("checksum is wrong"))
        }
    }

    pub(super) fn path(&self) -> Vec<u8> {
        let name = self.text(NAME);
        let prefix = if self.field(MAGIC) == b"ustar\x0000" { self.text(PREFIX) } else { b"" };
        if prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    pub(super) fn link(&self) -> Vec<u8> {
        self.text(LINK).to_vec()
    }

    pub(super) fn size(&self) -> Result<u64, ArchiveError> {
        self.natural(SIZE, "size is not a number")
    }

    pub(super) fn uid(&self) -> Result<u64, ArchiveError> {
        self.natural(UID, "owner is not a number")
    }

    pub(super) fn gid(&self) -> Result<u64, ArchiveError> {
        self.natural(GID, "group is not a number")
    }

    pub(super) fn mode(&self) -> Result<u32, ArchiveError> {
        let mode = self.natural(MODE, "mode is not a number")? & 0o7777;
        u32::try_from(mode).map_err(|_| ArchiveError::Header("mode is not a number"))
    }

    pub(super) fn modified(&self) -> Result<i64, ArchiveError> {
        self.number(MODIFIED)
    }

    pub(super) fn device(&self) -> Result<super::Device, ArchiveError> {
        let number = |field| {
            u32::try_from(self.number(field)?)
                .map_err(|_| ArchiveError::Header("device number is out of range"))
        };
        Ok(super::Device { major: number(MAJOR)?, minor: number(MINOR)? })
    }

    fn field(&self, (start, length): Field) -> &[u8] {
        &self.0[start..start + length]
    }

    fn text(&self, field: Field) -> &[u8] {
        let bytes = self.field(field);
        bytes.split(|byte| *byte == 0).next().unwrap_or(bytes)
    }

    fn natural(&self, field: Field, wrong: &'static str) -> Result<u64, ArchiveError> {
        u64::try_from(self.number(field)?).map_err(|_| ArchiveError::Header(wrong))
    }

    /// A number in octal, or in base 256 when its first bit is set.
    fn number(&self, field: Field) -> Result<i64, ArchiveError> {
        let bytes = self.field(field);
        match bytes.first() {
            Some(first) if first & 0x80 != 0 => base_256(bytes),
            _ => octal(bytes),
        }
        .ok_or(ArchiveError::Header("numbers cannot be read"))
    }

    pub(super) fn set_kind(&mut self, kind: u8) {
        self.0[TYPE] = kind;
    }

    pub(super) fn set_path(&mut self, path: &[u8]) {
        self.set_text(NAME, path);
    }

    pub(super) fn set_link(&mut self, link: &[u8]) {
        self.set_text(LINK, link);
    }

    pub(super) fn set_mode(&mut self, mode: u32) {
        self.set_octal(MODE, u64::from(mode));
    }

    pub(super) fn set_uid(&mut self, uid: u64) {
        self.set_octal(UID, uid);
    }

    pub(super) fn set_gid(&mut self, gid: u64) {
        self.set_octal(GID, gid);
    }

    pub(super) fn set_size(&mut self, size: u64) {
        self.set_octal(SIZE, size);
    }

    pub(super) fn set_modified(&mut self, modified: u64) {
        self.set_octal(MODIFIED, modified);
    }

    pub(super) fn set_device(&mut self, device: super::Device) {
        self.set_octal(MAJOR, u64::from(device.major));
        self.set_octal(MINOR, u64::from(device.minor));
    }

    /// Writes what every header has, the checksum last.
    pub(super) fn seal(&mut self) {
        self.set_text(MAGIC, b"ustar\x0000");
        self.set_text(CHECKSUM, b"        ");
        let sum: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        self.set_text(CHECKSUM, format!("{sum:06o}\0 ").as_bytes());
    }

    fn set_text(&mut self, (start, length): Field, text: &[u8]) {
        for (place, byte) in self.0.iter_mut().skip(start).take(length).zip(text) {
            *place = *byte;
        }
    }

    /// The caller has checked that the number fits; what does not fit is carried by
    /// an extended header and written here as zero.
    fn set_octal(&mut self, field: Field, number: u64) {
        let digits = field.1 - 1;
        let text = format!("{number:0digits$o}");
        let text = if text.len() > digits { "0".repeat(digits) } else { text };
        self.set_text(field, text.as_bytes());
    }
}

fn octal(bytes: &[u8]) -> Option<i64> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = bytes.iter().position(|byte| !is_blank(byte)).unwrap_or(bytes.len());
    let digits = bytes.get(start..)?;
    let end = digits.iter().position(is_blank).unwrap_or(digits.len());
    if !digits.get(end..)?.iter().all(is_blank) {
        return None;
    }
    digits.get(..end)?.iter().try_fold(0_i64, |number, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
        number.checked_mul(8)?.checked_add(i64::from(digit))
    })
}

/// Two's complement, with the first bit only saying that it is base 256.
fn base_256(bytes: &[u8]) -> Option<i64> {
    let (first, rest) = bytes.split_first()?;
    let is_negative = first & 0x40 != 0;
    let first = if is_negative { *first } else { first & 0x7f };
    let start = i64::from(first.cast_signed());
    rest.iter()
        .try_fold(start, |number, byte| number.checked_mul(256)?.checked_add(i64::from(*byte)))
}

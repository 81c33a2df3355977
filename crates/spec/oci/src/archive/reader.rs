//! Reading an archive from front to back.

use std::io::{self, Read};

use super::header::Header;
use super::pax::Records;
use super::{ArchiveError, BLOCK, Entry, Kind, LARGEST_HEADER, padding, shown};

/// An archive being read. After [`Reader::next_entry`] the reader itself yields the
/// content of the entry returned.
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    /// Content of the current entry not read yet.
    left: u64,
    /// Zeros between that content and the next header.
    padding: u64,
    is_done: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the archive that `inner` yields.
    pub const fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0, is_done: false }
    }

    /// What is beneath, wherever reading has come to.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry, or `None` at the archive's end. Content of the entry before
    /// that was not read is skipped.
    ///
    /// # Errors
    ///
    /// When the archive is broken, truncated, or has something not supported.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ArchiveError> {
        let mut long = Records::default();
        loop {
            self.skip_content()?;
            let Some(header) = self.next_header()? else {
                return if long.is_empty() { Ok(None) } else { Err(ArchiveError::Truncated) };
            };
            match header.kind() {
                b'L' => long.path = Some(self.long_text(&header)?),
                b'K' => long.link = Some(self.long_text(&header)?),
                b'x' => {
                    let records = Records::parse(&self.extended(&header)?)?;
                    long = Records {
                        path: records.path.or(long.path),
                        link: records.link.or(long.link),
                        ..records
                    };
                }
                b'g' => self.check_global(&header)?,
                _ => return self.entry(&header, long).map(Some),
            }
        }
    }

    fn next_header(&mut self) -> Result<Option<Header>, ArchiveError> {
        if self.is_done {
            return Ok(None);
        }
        let mut header = Header::empty();
        let found = read_whole(&mut self.inner, &mut header.0)?;
        if found == 0 || (found == BLOCK && header.is_zero()) {
            self.is_done = true;
            return Ok(None);
        }
        if found < BLOCK {
            return Err(ArchiveError::Truncated);
        }
        header.check()?;
        Ok(Some(header))
    }

    fn entry(&mut self, header: &Header, long: Records) -> Result<Entry, ArchiveError> {
        let path = long.path.unwrap_or_else(|| header.path());
        let link = long.link.unwrap_or_else(|| header.link());
        if path.is_empty() || path.contains(&0) || link.contains(&0) {
            return Err(ArchiveError::Header("path is empty or has a zero byte"));
        }
        let kind = kind(header, &path, link)?;
        let size = match kind {
            Kind::File => long.size.map_or_else(|| header.size(), Ok)?,
            _ => 0,
        };
        self.expect_content(size);
        Ok(Entry {
            path,
            kind,
            mode: header.mode()?,
            uid: long.uid.map_or_else(|| header.uid(), Ok)?,
            gid: long.gid.map_or_else(|| header.gid(), Ok)?,
            size,
            modified: long.modified.map_or_else(|| header.modified(), Ok)?,
            attributes: long.attributes,
        })
    }

    /// A header for the whole archive may hold remarks. One that changes every
    /// entry is refused: other readers disagree about what it means.
    fn check_global(&mut self, header: &Header) -> Result<(), ArchiveError> {
        if Records::parse(&self.extended(header)?)?.is_empty() {
            Ok(())
        } else {
            Err(ArchiveError::Header("records change every entry, which is not supported"))
        }
    }

    fn long_text(&mut self, header: &Header) -> Result<Vec<u8>, ArchiveError> {
        let mut text = self.extended(header)?;
        if text.last() == Some(&0) {
            text.pop();
        }
        Ok(text)
    }

    fn extended(&mut self, header: &Header) -> Result<Vec<u8>, ArchiveError> {
        let size = header.size()?;
        if size > LARGEST_HEADER {
            return Err(ArchiveError::HeaderTooLarge(size));
        }
        self.expect_content(size);
        let mut content = Vec::new();
        self.read_to_end(&mut content)?;
        if self.left > 0 {
            return Err(ArchiveError::Truncated);
        }
        Ok(content)
    }

    fn expect_content(&mut self, size: u64) {
        self.left = size;
        self.padding = padding(size);
    }

    fn skip_content(&mut self) -> Result<(), ArchiveError> {
        let rest = self
            .left
            .checked_add(self.padding)
            .ok_or(ArchiveError::Header("size is out of range"))?;
        let skipped = io::copy(&mut self.inner.by_ref().take(rest), &mut io::sink())?;
        // The last entry's padding may be missing; its content may not.
        if skipped < self.left {
            return Err(ArchiveError::Truncated);
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }
}

/// The content of the current entry.
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let count = self.inner.by_ref().take(self.left).read(buffer)?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, ArchiveError::Truncated));
        }
        self.left = self.left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }
}

fn kind(header: &Header, path: &[u8], link: Vec<u8>) -> Result<Kind, ArchiveError> {
    Ok(match header.kind() {
        // Before there was a kind for directories, a slash at the end made one.
        0 | b'0' | b'7' if path.ends_with(b"/") => Kind::Directory,
        0 | b'0' | b'7' => Kind::File,
        b'1' => Kind::HardLink(link),
        b'2' => Kind::Symlink(link),
        b'3' => Kind::Character(header.device()?),
        b'4' => Kind::Block(header.device()?),
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => {
            let what = match other {
                b'S' => "a sparse file".to_owned(),
                _ => format!("an entry of kind `{}`", char::from(other).escape_default()),
            };
            return Err(ArchiveError::Unsupported { path: shown(path), what });
        }
    })
}

/// Fills `buffer` as far as `inner` goes and says how far that was.
fn read_whole(inner: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut found = 0;
    while let Some(rest) = buffer.get_mut(found..).filter(|rest| !rest.is_empty()) {
        match inner.read(rest) {
            Ok(0) => break,
            Ok(count) => found += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

//! Writing an archive, the same bytes each time.

use std::io::{self, Read, Write};

use super::header::{GREATEST_OWNER, GREATEST_SIZE, Header, LONGEST_NAME};
use super::pax::Records;
use super::{ArchiveError, BLOCK, Device, Entry, Kind, padding, shown};

/// An archive being written. It is whole only after [`Writer::finish`].
#[derive(Debug)]
pub struct Writer<W> {
    inner: W,
}

impl<W: Write> Writer<W> {
    /// Writes an archive to `inner`.
    pub const fn new(inner: W) -> Self {
        Self { inner }
    }

    /// Adds an entry. `content` must yield exactly `entry.size` bytes.
    ///
    /// # Errors
    ///
    /// When it yields less or more, or the stream beneath fails. Nothing sensible
    /// can be written afterwards.
    pub fn append(&mut self, entry: &Entry, content: impl Read) -> Result<(), ArchiveError> {
        let records = records(entry);
        if !records.is_empty() {
            self.append_records(&records)?;
        }
        self.inner.write_all(&header(entry).0)?;
        self.append_content(entry, content)
    }

    /// Adds an entry without content.
    ///
    /// # Errors
    ///
    /// As [`Writer::append`].
    pub fn append_empty(&mut self, entry: &Entry) -> Result<(), ArchiveError> {
        self.append(entry, io::empty())
    }

    /// Adds a file owned by root, changed in 1970.
    ///
    /// # Errors
    ///
    /// As [`Writer::append`].
    pub fn append_bytes(&mut self, path: &str, bytes: &[u8]) -> Result<(), ArchiveError> {
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.append(&Entry::file(path, 0o644, size), bytes)
    }

    /// Writes the archive's end and gives back what is beneath.
    ///
    /// # Errors
    ///
    /// When the stream beneath fails.
    pub fn finish(mut self) -> Result<W, ArchiveError> {
        self.inner.write_all(&[0; BLOCK * 2])?;
        self.inner.flush()?;
        Ok(self.inner)
    }

    fn append_records(&mut self, records: &Records) -> Result<(), ArchiveError> {
        let bytes = records.to_bytes();
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let mut header = Header::empty();
        header.set_kind(b'x');
        header.set_path(b"././@PaxHeader");
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_modified(0);
        header.set_size(size);
        header.seal();
        self.inner.write_all(&header.0)?;
        self.inner.write_all(&bytes)?;
        self.pad(size)
    }

    fn append_content(&mut self, entry: &Entry, content: impl Read) -> Result<(), ArchiveError> {
        let mut content = content.take(entry.size.saturating_add(1));
        let found = io::copy(&mut content.by_ref().take(entry.size), &mut self.inner)?;
        let beyond = io::copy(&mut content, &mut io::sink())?;
        if found != entry.size || beyond > 0 {
            return Err(ArchiveError::Content {
                path: shown(&entry.path),
                expected: entry.size,
                found: found.saturating_add(beyond),
            });
        }
        self.pad(entry.size)
    }

    fn pad(&mut self, size: u64) -> Result<(), ArchiveError> {
        let zeros = io::repeat(0).take(padding(size));
        io::copy(&mut { zeros }, &mut self.inner)?;
        Ok(())
    }
}

fn header(entry: &Entry) -> Header {
    let mut header = Header::empty();
    header.set_path(&entry.path);
    header.set_mode(entry.mode & 0o7777);
    header.set_uid(entry.uid);
    header.set_gid(entry.gid);
    header.set_size(entry.size);
    header.set_modified(u64::try_from(entry.modified).unwrap_or_default());
    header.set_device(Device { major: 0, minor: 0 });
    header.set_kind(match &entry.kind {
        Kind::File => b'0',
        Kind::HardLink(_) => b'1',
        Kind::Symlink(_) => b'2',
        Kind::Character(_) => b'3',
        Kind::Block(_) => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    });
    match &entry.kind {
        Kind::HardLink(link) | Kind::Symlink(link) => header.set_link(link),
        Kind::Character(device) | Kind::Block(device) => header.set_device(*device),
        Kind::File | Kind::Directory | Kind::Fifo => {}
    }
    header.seal();
    header
}

/// What of `entry` its header cannot hold.
fn records(entry: &Entry) -> Records {
    let long = |text: &[u8]| text.len() > LONGEST_NAME || !text.is_ascii();
    let link = match &entry.kind {
        Kind::HardLink(link) | Kind::Symlink(link) => Some(link.clone()),
        _ => None,
    };
    let time_fits = u64::try_from(entry.modified).is_ok_and(|time| time <= GREATEST_SIZE);
    Records {
        path: Some(entry.path.clone()).filter(|path| long(path)),
        link: link.filter(|link| long(link)),
        size: Some(entry.size).filter(|size| *size > GREATEST_SIZE),
        uid: Some(entry.uid).filter(|uid| *uid > GREATEST_OWNER),
        gid: Some(entry.gid).filter(|gid| *gid > GREATEST_OWNER),
        modified: Some(entry.modified).filter(|_| !time_fits),
        attributes: entry.attributes.clone(),
    }
}

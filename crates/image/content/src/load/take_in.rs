//! Reading an archive once, from front to back: files into the store, documents
//! into memory.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};
use std::rc::Rc;

use carrack_oci::archive::{ArchiveError, Entry, Kind, Reader, shown};
use carrack_oci::{Algorithm, Compression, Digest, LARGEST_DOCUMENT};
use carrack_store::{BlobError, BlobStore as _};
use flate2::bufread::MultiGzDecoder;

use super::{LoadError, LoadLimits};
use crate::images::{ImageError, Images};

/// What an archive may unpack to however small it is.
const FREE: u64 = 1 << 30;
/// How many links may lead from one name to the next.
const MOST_LINKS: usize = 8;
/// Compressions that archives come in and we do not undo, by their magic numbers.
const FOREIGN: [(&[u8], &str); 2] = [(b"\xfd7zX", "xz"), (b"BZh", "bzip2")];
/// What of an archive is read into memory and interpreted.
const DOCUMENTS: [&str; 4] = ["oci-layout", "index.json", "manifest.json", "repositories"];

/// What an archive had in it.
#[derive(Debug, Default)]
pub(super) struct Contents {
    documents: BTreeMap<String, Vec<u8>>,
    files: BTreeMap<String, Stored>,
    links: BTreeMap<String, String>,
}

/// A file of the archive, as the store has it.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) compression: Compression,
}

impl Contents {
    pub(super) fn document(&self, path: &str) -> Option<&[u8]> {
        self.documents.get(path).map(Vec::as_slice)
    }

    /// The file at `path`, by way of links within the archive.
    pub(super) fn file(&self, path: &str) -> Result<&Stored, LoadError> {
        let missing = || LoadError::Missing { path: path.escape_debug().to_string() };
        let mut place = resolve("", path).ok_or_else(missing)?;
        for _ in 0..MOST_LINKS {
            if let Some(file) = self.files.get(&place) {
                return Ok(file);
            }
            place = self.links.get(&place).ok_or_else(missing)?.clone();
        }
        Err(missing())
    }
}

pub(super) fn take_in(
    images: &Images,
    input: impl Read,
    limits: &LoadLimits,
    fresh: &mut Vec<Digest>,
) -> Result<Contents, LoadError> {
    let mut archive = Reader::new(unpacked(input, limits)?);
    let mut contents = Contents::default();
    let (mut entries, mut bytes) = (0_u64, 0_u64);
    while let Some(entry) = archive.next_entry().map_err(|error| unreadable(error, entries))? {
        entries += 1;
        bytes = bytes.saturating_add(entry.size);
        if entries > limits.entries {
            return Err(LoadError::TooMuch { what: "entries", limit: limits.entries });
        }
        if bytes > limits.bytes {
            return Err(LoadError::TooMuch { what: "bytes", limit: limits.bytes });
        }
        take_in_entry(images, &entry, &mut archive, &mut contents, fresh)?;
    }
    Ok(contents)
}

/// A first header that is none makes it something other than an archive; a later one
/// makes it a broken archive.
fn unreadable(error: ArchiveError, entries: u64) -> LoadError {
    match error {
        ArchiveError::Header(_) | ArchiveError::Truncated if entries == 0 => {
            LoadError::NotAnImageArchive
        }
        other => LoadError::Archive(other),
    }
}

fn take_in_entry(
    images: &Images,
    entry: &Entry,
    content: &mut impl Read,
    contents: &mut Contents,
    fresh: &mut Vec<Digest>,
) -> Result<(), LoadError> {
    let refused = |why| LoadError::Entry { path: shown(&entry.path), why };
    let text = std::str::from_utf8(&entry.path).map_err(|_| refused("is not in UTF-8"))?;
    let path = resolve("", text).ok_or_else(|| refused("has `..` in its path"))?;
    let link = |from: &str, target: &[u8]| {
        let target = std::str::from_utf8(target).ok();
        target
            .and_then(|target| resolve(from, target))
            .ok_or_else(|| refused("is a link out of the archive"))
    };
    match &entry.kind {
        Kind::Directory => {}
        Kind::File => take_in_file(images, entry, path, content, contents, fresh)?,
        Kind::HardLink(target) => {
            let target = link("", target)?;
            contents.links.insert(path, target);
        }
        Kind::Symlink(target) => {
            let from = path.rsplit_once('/').map_or("", |(directory, _)| directory);
            let target = link(from, target)?;
            contents.links.insert(path, target);
        }
        Kind::Character(_) | Kind::Block(_) | Kind::Fifo => {
            return Err(refused("is a device or a pipe"));
        }
    }
    Ok(())
}

fn take_in_file(
    images: &Images,
    entry: &Entry,
    path: String,
    content: &mut impl Read,
    contents: &mut Contents,
    fresh: &mut Vec<Digest>,
) -> Result<(), LoadError> {
    let refused = |why| LoadError::Entry { path: shown(&entry.path), why };
    if DOCUMENTS.contains(&path.as_str()) {
        if entry.size > LARGEST_DOCUMENT {
            return Err(refused("is larger than 4 MiB"));
        }
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).map_err(LoadError::Read)?;
        // Two readers that pick different ones would see different images.
        return match contents.documents.insert(path, bytes) {
            None => Ok(()),
            Some(_) => Err(refused("is there twice")),
        };
    }
    let stored = store(images, &path, content, fresh)?;
    match contents.files.insert(path, stored.clone()) {
        Some(earlier) if earlier.digest != stored.digest => Err(refused("is there twice")),
        _ => Ok(()),
    }
}

fn store(
    images: &Images,
    path: &str,
    content: &mut impl Read,
    fresh: &mut Vec<Digest>,
) -> Result<Stored, LoadError> {
    let expected = announced(path);
    let algorithm = expected.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
    let mut ingest = images.blobs.ingest_with(algorithm).map_err(ImageError::from)?;
    let mut start = Vec::new();
    let magic = u64::try_from(Compression::MAGIC).unwrap_or_default();
    content.by_ref().take(magic).read_to_end(&mut start).map_err(LoadError::Read)?;
    io::copy(&mut start.as_slice().chain(content), &mut ingest).map_err(LoadError::Read)?;
    let found = ingest.digest();
    let is_new = images.blobs.stat(&found).map_err(ImageError::from)?.is_none();
    let (digest, size) = ingest.commit(expected.as_ref()).map_err(|error| match error {
        BlobError::Mismatch { .. } => LoadError::Mismatch {
            path: path.escape_debug().to_string(),
            source: Box::new(error.into()),
        },
        other => LoadError::Image(other.into()),
    })?;
    if is_new {
        fresh.push(digest.clone());
    }
    Ok(Stored { digest, size, compression: Compression::sniff(&start) })
}

/// The digest a path in an image archive promises.
fn announced(path: &str) -> Option<Digest> {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["blobs", algorithm, hex] => Digest::new(Algorithm::named(algorithm)?, hex).ok(),
        // The configuration, as older versions of `docker save` and skopeo call it.
        [name] => Digest::new(Algorithm::Sha256, name.strip_suffix(".json")?).ok(),
        _ => None,
    }
}

/// `path` seen from the directory `from`, within the archive.
fn resolve(from: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> =
        if path.starts_with('/') { Vec::new() } else { from.split('/').collect() };
    parts.retain(|part| !part.is_empty());
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// Undoes the archive's own compression, if it has any, and watches its ratio.
fn unpacked<'a>(input: impl Read + 'a, limits: &LoadLimits) -> Result<Watched<'a>, LoadError> {
    let consumed = Rc::new(Cell::new(0));
    let mut input = Counted { inner: input, count: Rc::clone(&consumed) };
    let mut start = Vec::new();
    let magic = u64::try_from(Compression::MAGIC).unwrap_or_default();
    input.by_ref().take(magic).read_to_end(&mut start).map_err(LoadError::Read)?;
    if let Some((_, name)) = FOREIGN.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Err(LoadError::Compression(name));
    }
    let compression = Compression::sniff(&start);
    let whole = BufReader::with_capacity(64 * 1024, io::Cursor::new(start).chain(input));
    let inner: Box<dyn Read + 'a> = match compression {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(MultiGzDecoder::new(whole)),
        Compression::Zstd => Box::new(zstd::Decoder::with_buffer(whole).map_err(LoadError::Read)?),
    };
    Ok(Watched { inner, consumed, yielded: 0, ratio: limits.ratio })
}

/// Counts what is read of the archive as it is packed.
struct Counted<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let more = u64::try_from(count).unwrap_or(u64::MAX);
        self.count.set(self.count.get().saturating_add(more));
        Ok(count)
    }
}

/// Stops when much more comes out than went in.
struct Watched<'a> {
    inner: Box<dyn Read + 'a>,
    consumed: Rc<Cell<u64>>,
    yielded: u64,
    ratio: u64,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.yielded = self.yielded.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        let fair = FREE.saturating_add(self.consumed.get().saturating_mul(self.ratio));
        if self.yielded > fair {
            let message = format!(
                "it unpacks to more than {} times its size, which looks like a bomb",
                self.ratio
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(count)
    }
}

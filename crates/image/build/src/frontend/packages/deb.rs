//! A `.deb` file: an `ar` archive of two compressed tar archives.
//!
//! ```text
//! ar ─▶ debian-binary  control.tar.*  data.tar.*
//!                      control, md5sums, conffiles
//!                                     every file of the package, one after another
//! ```
//!
//! The digest of a package file is checked before it gets here, yet everything is
//! read within limits: a signed archive may still hold a bomb.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};
use std::ops::Range;

use carrack_oci::archive::{ArchiveError, Entry, Kind, Reader};

const MAGIC: &[u8; 8] = b"!<arch>\n";
const HEADER: usize = 60;
/// The control files we keep are far smaller.
const MAXIMUM_CONTROL_FILE: u64 = 16 * 1024 * 1024;
const MAXIMUM_CONTROL: u64 = 64 * 1024 * 1024;
/// What the content of one package may come to.
const MAXIMUM_DATA: u64 = 4 * 1024 * 1024 * 1024;
const MAXIMUM_ENTRIES: usize = 1_000_000;
/// Memory that decompression may take. Debian compresses with windows of 64 MiB at most.
const MAXIMUM_XZ_MEMORY: u64 = 256 * 1024 * 1024;
const MAXIMUM_ZSTD_WINDOW: u32 = 27;

/// The files of a package's control archive that are kept.
pub(crate) type Control = BTreeMap<String, Vec<u8>>;

const KEPT: [&str; 3] = ["control", "md5sums", "conffiles"];

/// Why a package file cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DebError {
    /// It does not have the form of a package file.
    #[error("it is not a Debian package: {0}")]
    Form(&'static str),
    /// A member is compressed in a way not known.
    #[error("its member `{0}` is neither plain nor compressed with gzip, xz or zstd")]
    Compression(String),
    /// Reading or decompressing failed.
    #[error("reading it")]
    Read(#[from] io::Error),
    /// A tar archive in it is broken.
    #[error("reading an archive in it")]
    Archive(#[from] ArchiveError),
    /// It unpacks to more than is allowed.
    #[error("it unpacks to more than {0} bytes or {MAXIMUM_ENTRIES} files")]
    TooLarge(u64),
}

/// Reads a package's control files, then hands every entry of its content to `take`.
///
/// # Errors
///
/// Whatever `take` fails with, or [`DebError`].
pub(crate) fn read<E: From<DebError>>(
    deb: impl Read,
    mut take: impl FnMut(&Entry, &mut dyn Read) -> Result<(), E>,
) -> Result<Control, E> {
    let mut deb = BufReader::new(deb);
    let mut magic = [0; MAGIC.len()];
    deb.read_exact(&mut magic).map_err(DebError::from)?;
    if &magic != MAGIC {
        return Err(DebError::Form("it does not begin like one").into());
    }
    let mut control = None;
    while let Some((name, size)) = member(&mut deb)? {
        let mut content = (&mut deb).take(size);
        match name.as_str() {
            "debian-binary" => check_version(&mut content)?,
            _ if name.starts_with("control.tar") && control.is_none() => {
                control = Some(read_control(&name, &mut content)?);
            }
            _ if name.starts_with("data.tar") => {
                let control = control.ok_or(DebError::Form("its data comes before its control"))?;
                read_data(&name, &mut content, &mut take)?;
                return Ok(control);
            }
            _ => {}
        }
        skip(&mut content)?;
        if size % 2 == 1 {
            skip(&mut (&mut deb).take(1))?;
        }
    }
    Err(DebError::Form("it has no data").into())
}

/// The next member's name and size.
fn member(deb: &mut impl Read) -> Result<Option<(String, u64)>, DebError> {
    let mut header = [0; HEADER];
    match deb.read(&mut header[..1])? {
        0 => return Ok(None),
        _ => deb.read_exact(&mut header[1..])?,
    }
    let text = std::str::from_utf8(&header).map_err(|_| DebError::Form("a header is not text"))?;
    let field = |range: Range<usize>| text.get(range).unwrap_or_default().trim_ascii();
    if field(58..60) != "`" {
        return Err(DebError::Form("a header does not end as it should"));
    }
    let size = field(48..58).parse().map_err(|_| DebError::Form("a size is not a number"))?;
    Ok(Some((field(0..16).trim_end_matches('/').to_owned(), size)))
}

fn check_version(content: &mut impl Read) -> Result<(), DebError> {
    let mut version = String::new();
    content.take(16).read_to_string(&mut version)?;
    if version.starts_with("2.") {
        return Ok(());
    }
    Err(DebError::Form("its version is not 2"))
}

fn read_control(name: &str, content: &mut impl Read) -> Result<Control, DebError> {
    let content = decompress(name, "control.tar", content)?;
    let mut archive = Reader::new(Limited { inner: content, left: MAXIMUM_CONTROL });
    let mut control = Control::new();
    while let Some(entry) = archive.next_entry()? {
        let path = String::from_utf8_lossy(&entry.path);
        let path = path.trim_start_matches("./").to_owned();
        if entry.kind != Kind::File || !KEPT.contains(&path.as_str()) {
            continue;
        }
        if entry.size > MAXIMUM_CONTROL_FILE {
            return Err(DebError::TooLarge(MAXIMUM_CONTROL_FILE));
        }
        let mut bytes = Vec::new();
        archive.read_to_end(&mut bytes)?;
        control.insert(path, bytes);
    }
    if control.contains_key("control") {
        return Ok(control);
    }
    Err(DebError::Form("its control archive has no `control`"))
}

fn read_data<E: From<DebError>>(
    name: &str,
    content: &mut impl Read,
    take: &mut impl FnMut(&Entry, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let content = decompress(name, "data.tar", content)?;
    let mut archive = Reader::new(Limited { inner: content, left: MAXIMUM_DATA });
    let mut entries = 0;
    while let Some(entry) = archive.next_entry().map_err(DebError::from)? {
        entries += 1;
        if entries > MAXIMUM_ENTRIES {
            return Err(DebError::TooLarge(MAXIMUM_DATA).into());
        }
        take(&entry, &mut archive)?;
    }
    Ok(())
}

fn decompress<'a>(
    name: &str,
    stem: &str,
    content: &'a mut impl Read,
) -> Result<Box<dyn Read + 'a>, DebError> {
    let unknown = || DebError::Compression(name.to_owned());
    match name.strip_prefix(stem).ok_or_else(unknown)? {
        "" => Ok(Box::new(content)),
        ".gz" => Ok(Box::new(flate2::read::MultiGzDecoder::new(content))),
        ".xz" => Ok(Box::new(xz(content)?)),
        ".zst" => Ok(Box::new(zstd(content)?)),
        _ => Err(unknown()),
    }
}

/// Decompresses xz within a memory limit.
pub(crate) fn xz<R: Read>(content: R) -> io::Result<impl Read> {
    let flags = liblzma::stream::CONCATENATED;
    let stream = liblzma::stream::Stream::new_stream_decoder(MAXIMUM_XZ_MEMORY, flags)
        .map_err(io::Error::other)?;
    Ok(liblzma::read::XzDecoder::new_stream(content, stream))
}

/// Decompresses zstd within a window limit.
fn zstd<R: Read>(content: R) -> io::Result<impl Read> {
    let mut decoder = zstd::stream::read::Decoder::new(content)?;
    decoder.window_log_max(MAXIMUM_ZSTD_WINDOW)?;
    Ok(decoder)
}

fn skip(content: &mut impl Read) -> Result<(), DebError> {
    io::copy(content, &mut io::sink())?;
    Ok(())
}

/// Fails, rather than ending, when more than so many bytes are read.
struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let read = u64::try_from(count).unwrap_or(u64::MAX);
        self.left = self
            .left
            .checked_sub(read)
            .ok_or_else(|| io::Error::other("the archive unpacks to more than is allowed"))?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8]) -> String {
        let error = read::<DebError>(bytes, |_, _| Ok(())).unwrap_err();
        error.to_string()
    }

    fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for (name, content) in members {
            let size = content.len();
            bytes.extend_from_slice(
                format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 0).as_bytes(),
            );
            bytes.extend_from_slice(content);
            bytes.extend(std::iter::repeat_n(b'\n', size % 2));
        }
        bytes
    }

    #[test]
    fn what_is_no_package_is_refused_by_what_it_lacks() {
        assert!(refused(b"not an archive").contains("does not begin like one"));
        assert!(refused(&ar(&[])).contains("has no data"));
        assert!(refused(&ar(&[("debian-binary", b"3.0\n")])).contains("version is not 2"));
        assert!(refused(&ar(&[("data.tar", b"")])).contains("data comes before its control"));
        let control = ar(&[("debian-binary", b"2.0\n"), ("control.tar", &[0; 1024])]);
        assert!(refused(&control).contains("no `control`"));
        let bzip2 = ar(&[("debian-binary", b"2.0\n"), ("control.tar.bz2", b"x")]);
        assert!(refused(&bzip2).contains("`control.tar.bz2` is neither plain nor"));
        let mut header = ar(&[("debian-binary", b"2.0\n")]);
        header[8 + 48] = b'x';
        assert!(refused(&header).contains("size is not a number"));
    }

    #[test]
    fn more_than_is_allowed_is_an_error_and_not_an_end() {
        let mut bytes = Vec::new();
        let mut limited = Limited { inner: io::repeat(0), left: 1000 };
        let error = limited.read_to_end(&mut bytes).unwrap_err();
        assert!(error.to_string().contains("more than is allowed"), "{error}");
        let mut limited = Limited { inner: &[0_u8; 1000][..], left: 1000 };
        assert_eq!(limited.read_to_end(&mut Vec::new()).unwrap(), 1000);
    }
}

//! Undoing what a layer was packed with.

use std::fmt;
use std::io::{self, BufReader, Read};

use carrack_oci::Compression;
use flate2::bufread::MultiGzDecoder;

/// A stream with its compression undone.
pub struct Decompressed<R: Read>(Kind<R>);

enum Kind<R: Read> {
    None(BufReader<R>),
    Gzip(Box<MultiGzDecoder<BufReader<R>>>),
    Zstd(zstd::Decoder<'static, BufReader<R>>),
}

impl<R: Read> Decompressed<R> {
    /// Undoes `compression` of what `inner` yields.
    ///
    /// # Errors
    ///
    /// When there is no memory for it.
    pub fn new(inner: R, compression: Compression) -> io::Result<Self> {
        let inner = BufReader::with_capacity(64 * 1024, inner);
        Ok(Self(match compression {
            Compression::None => Kind::None(inner),
            Compression::Gzip => Kind::Gzip(Box::new(MultiGzDecoder::new(inner))),
            Compression::Zstd => Kind::Zstd(zstd::Decoder::with_buffer(inner)?),
        }))
    }

    /// What is beneath. Some of it has been read ahead.
    pub fn into_inner(self) -> R {
        match self.0 {
            Kind::None(inner) => inner,
            Kind::Gzip(decoder) => decoder.into_inner(),
            Kind::Zstd(decoder) => decoder.finish(),
        }
        .into_inner()
    }
}

impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::None(inner) => inner.read(buffer),
            Kind::Gzip(decoder) => decoder.read(buffer),
            Kind::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

impl<R: Read> fmt::Debug for Decompressed<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Decompressed").finish_non_exhaustive()
    }
}

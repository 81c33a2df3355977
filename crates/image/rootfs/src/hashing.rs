//! A reader that knows what it has read.

use std::io::{self, Read};

use carrack_oci::{Algorithm, Digest, Hasher};

/// Passes bytes on and hashes them.
#[derive(Debug)]
pub(crate) struct Hashing<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Hashing<R> {
    pub(crate) fn new(inner: R, algorithm: Algorithm) -> Self {
        Self { inner, hasher: Hasher::new(algorithm) }
    }

    /// Reads to the end and says what all of it hashes to.
    pub(crate) fn finish(mut self) -> io::Result<Digest> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(self.hasher.finish())
    }

    /// As [`Hashing::finish`], refusing more than `limit` bytes.
    pub(crate) fn finish_within(mut self, limit: u64) -> io::Result<Digest> {
        let read = io::copy(&mut (&mut self).take(limit.saturating_add(1)), &mut io::sink())?;
        if read > limit {
            let message = format!("more than {limit} bytes follow the archive's end");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(self.hasher.finish())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or(buffer));
        Ok(count)
    }
}

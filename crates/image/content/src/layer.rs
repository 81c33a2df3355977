//! Writing a layer into the store.

use std::fmt;
use std::io::{self, Write};

use carrack_oci::{Algorithm, Compression, Descriptor, Digest, Hasher, MediaType};
use carrack_store::{BlobError, BlobStore as _, Ingest};
use flate2::write::GzEncoder;

use crate::images::{ImageError, Images};

/// A layer in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its blob.
    pub descriptor: Descriptor,
    /// The digest of its archive before it was packed.
    pub diff_id: Digest,
}

/// A layer on its way into the store: the tar archive is written to it. Dropping it
/// discards what was written.
pub struct LayerWriter {
    diff_id: Hasher,
    compression: Compression,
    packing: Packing,
}

enum Packing {
    None(Ingest),
    Gzip(Box<GzEncoder<Ingest>>),
    Zstd(zstd::Encoder<'static, Ingest>),
}

impl Images {
    /// Starts writing a layer, packed with `compression`.
    ///
    /// # Errors
    ///
    /// When there is no place to write to.
    pub fn layer(&self, compression: Compression) -> Result<LayerWriter, ImageError> {
        let ingest = self.blobs.ingest()?;
        let packing = match compression {
            Compression::None => Packing::None(ingest),
            Compression::Gzip => {
                Packing::Gzip(Box::new(GzEncoder::new(ingest, flate2::Compression::default())))
            }
            Compression::Zstd => Packing::Zstd(
                zstd::Encoder::new(ingest, zstd::DEFAULT_COMPRESSION_LEVEL)
                    .map_err(BlobError::Write)?,
            ),
        };
        Ok(LayerWriter { diff_id: Hasher::new(Algorithm::Sha256), compression, packing })
    }
}

impl LayerWriter {
    /// Keeps the layer, once all of its archive is written.
    ///
    /// # Errors
    ///
    /// When it cannot be made to last.
    pub fn finish(self) -> Result<Layer, ImageError> {
        let ingest = match self.packing {
            Packing::None(ingest) => ingest,
            Packing::Gzip(encoder) => encoder.finish().map_err(BlobError::Write)?,
            Packing::Zstd(encoder) => encoder.finish().map_err(BlobError::Write)?,
        };
        let (digest, size) = ingest.commit(None)?;
        let descriptor = Descriptor::new(MediaType::of_layer(self.compression), digest, size);
        Ok(Layer { descriptor, diff_id: self.diff_id.finish() })
    }
}

impl Write for LayerWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = match &mut self.packing {
            Packing::None(ingest) => ingest.write(bytes),
            Packing::Gzip(encoder) => encoder.write(bytes),
            Packing::Zstd(encoder) => encoder.write(bytes),
        }?;
        self.diff_id.update(bytes.get(..count).unwrap_or(bytes));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.packing {
            Packing::None(ingest) => ingest.flush(),
            // Flushing a compressor would change its output.
            Packing::Gzip(_) | Packing::Zstd(_) => Ok(()),
        }
    }
}

impl fmt::Debug for LayerWriter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("LayerWriter")
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}

//! The OCI image, runtime and distribution words.
//!
//! ```text
//! Reference ─names─▶ Descriptor ─points at─▶ Index ─▶ Manifest ─▶ ImageConfig, layers
//! ```
//!
//! Strict about what it reads: a digest, a reference or a document that exists is
//! well formed. What it does not know it keeps, so that a document passes through
//! unharmed. What it writes is canonical: equal values become equal bytes.
//!
//! Fetching, storing and unpacking are not here: see `image/content` and
//! `image/rootfs`.

pub mod archive;
mod config;
mod descriptor;
mod digest;
mod document;
mod index;
mod manifest;
mod media_type;
mod platform;
mod reference;
pub mod runtime;

pub use config::{ExecutionConfig, Healthcheck, History, ImageConfig, RootFs};
pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use document::{Annotations, DocumentError, Extra, LARGEST_DOCUMENT, annotation};
pub use index::{Index, Layout};
pub use manifest::Manifest;
pub use media_type::{Compression, MediaType, MediaTypeError};
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError};

//! Images by name: resolve, keep, save, load.
//!
//! ```text
//! archive ─load─▶ blobs, names ─resolve─▶ Image { manifest, config } ─save─▶ archive
//!  build ─put…──▶     └──────collect──▶ what no name and no one else needs is removed
//! ```
//!
//! An image a name leads to is whole: all its blobs were there when it was named,
//! and collecting keeps what names lead to. Names mean exactly what they say, see
//! [`carrack_oci::Reference`].
//!
//! Unpacking is not here: an image is blobs only. See `image/rootfs`.

mod collect;
mod images;
mod layer;
mod load;
mod save;

pub use collect::{CollectError, Collected, Lease};
pub use images::{Image, ImageError, Images, Named};
pub use layer::{Layer, LayerWriter};
pub use load::{LoadError, LoadLimits, Loaded};
pub use save::{SaveError, Saved};

//! Layers to root filesystem and back.
//!
//! ```text
//! blob ─Layers::unpacked─▶ directory ┐
//! blob ─Layers::unpacked─▶ directory ┼─Rootfs::prepare─▶ overlay mount ─▶ a container
//! blob ─Layers::unpacked─▶ directory ┘                        │ writes
//!                               tar ◀─diff─ upper directory ◀──┘
//! ```
//!
//! An unpacked layer exists under its diff id only when every byte of it matched
//! and is on the disk. Unpacking never leaves its directory: every path is resolved
//! by the kernel beneath a descriptor, and what would need a link or a `..` to get
//! anywhere is refused.
//!
//! Blobs and image names are not here: see `image/content`.

mod apply;
mod attributes;
mod containers;
mod decompress;
mod diff;
mod hashing;
mod layers;
mod path;

pub use apply::{
    Applied, ApplyError, ApplyOptions, Devices, Limits, Links, Refusal, Whiteouts, apply,
};
pub use containers::{Rootfs, RootfsError};
pub use decompress::Decompressed;
pub use diff::{DiffError, DiffOptions, Written, diff};
pub use layers::{LayerError, Layers};

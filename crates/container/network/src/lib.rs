//! Interfaces, addresses, ports and names for a container.
//!
//! ```text
//!            host                                one container
//!  gateway ─ bridge ─ host interface ══ veth ══ eth0 in its namespace ─▶ capture rules
//!     └─ dns::serve                                                        └─▶ the node proxy
//! ```
//!
//! Every function here takes the whole of what is wanted and makes it so; asked twice
//! it does nothing the second time. None of them remembers anything: which addresses
//! are taken is for the caller to know, and for [`address`] to choose from.
//!
//! Listening on published ports is not here: the node proxy does that, so that no
//! plaintext crosses a bridge.

pub mod address;
mod bridge;
mod capture;
pub mod dns;
mod error;
mod namespace;

pub use bridge::{Attachment, Network, attach, detach, ensure, hardware_address, remove, routed};
pub use capture::{Capture, capture};
pub use error::NetworkError;
pub use namespace::{create_namespace, remove_namespace};

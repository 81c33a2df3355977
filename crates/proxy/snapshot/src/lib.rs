//! Resources to an immutable [`Snapshot`], or reasons why not.
//!
//! ```text
//! Resources ──compile──▶ Arc<Snapshot>        every reference resolved, every word checked
//!                    └─▶ Vec<Problem>         each naming a resource and a path in it
//! ```
//!
//! Pure: same resources, same answer. A snapshot never changes; a request holds the one it began
//! with. What changes by itself (connections, certificates, health) is not in it.

mod compile;
mod snapshot;

pub use compile::compile;
pub use snapshot::{Ingress, Service, Snapshot, Target, Workload};

//! Names for the containers of a network.
//!
//! ```text
//! query ──▶ Zone (an immutable table) ──▶ answer
//!              │ not ours
//!              └──▶ the host's name servers, bytes passed as they are ──▶ answer
//! ```
//!
//! The sockets are bound once. A change is a new [`Zone`] swapped in whole, so no
//! query is ever lost or half answered while containers come and go.

mod answer;
mod forward;
mod server;
mod zone;

pub use server::{Sockets, serve};
pub use zone::{Lookup, Zone};

//! Sockets, TLS, HTTP over local sockets, original destinations.
//!
//! | To | see |
//! |---|---|
//! | open a socket in another network namespace | [`namespace`] |
//! | learn where a redirected connection was going | [`original`] |
//! | prove who one is over TLS, and check the other | [`tls`] |
//! | put bytes back that were read to see what they are | [`prefixed`] |
//! | ask a server on a Unix socket something | [`unix`] |
//! | answer over HTTP on a Unix socket or on loopback | [`serve`] |
//!
//! Making namespaces, interfaces and redirects is not here; see `container/network`.

pub mod namespace;
pub mod original;
pub mod prefixed;
pub mod serve;
pub mod tls;
pub mod unix;

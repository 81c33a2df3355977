//! What is done to a request underway: authorize it, give it a trace, tidy its headers.
//!
//! Each is a pure step over a request's head, tested without a network. The order they run in is
//! the data plane's. Nothing here waits: a filter that has to ask somebody first, or that a route
//! can choose, brings the trait for it along.

pub mod authorize;
pub mod headers;

//! HTTP underway: serving it to a caller, passing each request on, keeping connections for the
//! next.

mod attempt;
mod body;
mod forward;
mod nudge;
mod serve;
mod upstream;

pub(crate) use forward::{Forward, Way};
pub(crate) use serve::serve;
pub(crate) use upstream::{Upstreams, Wire};

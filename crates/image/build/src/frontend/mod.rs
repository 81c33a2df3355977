//! What people write, read into something the solver can act on.
//!
//! [`dockerfile`] reads a Dockerfile into a list of checked stages; [`packages`]
//! reads a recipe of Debian packages and makes a base image of it.

pub mod dockerfile;
pub mod packages;

//! The runtime specification: `config.json` and the container's state.

pub use oci_spec::runtime::*;

pub mod defaults;
pub mod seccomp;

//! The OCI image, runtime and distribution words.

pub mod runtime;

//! The OCI runtime, shim and init as one small static program.

fn main() {}

//! OCI seccomp profiles compiled to BPF and loaded.

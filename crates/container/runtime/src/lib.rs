//! One bundle, one container: the OCI lifecycle, blocking, single-threaded.

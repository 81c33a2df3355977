//! Sockets, TLS, HTTP, original destinations, draining.

//! A Dockerfile, read and checked.

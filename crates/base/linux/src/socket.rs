//! Socket options and descriptor passing that rustix does not wrap.

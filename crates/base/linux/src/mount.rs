//! The descriptor-based mount interface.

//! Layers to root filesystem and back.

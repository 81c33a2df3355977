//! Dockerfile or recipe to graph, graph to image.

pub mod frontend;
pub mod graph;

//! Dockerfile or recipe to graph, graph to image.

//! Fakes, namespaces and images for tests; only ever a dev-dependency.

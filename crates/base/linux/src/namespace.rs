//! Namespaces: opening, entering, unsharing.

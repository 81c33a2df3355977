//! What people write: Compose applications and traffic policy.

//! Compose applications: what is in the file, checked and resolved.
//!
//! ```text
//! compose.yaml ──parse──▶ Application ──with_env_files──▶ Application
//! ```
//!
//! An [`Application`] has nothing left to resolve but its `env_file`s: variables
//! are interpolated, anchors and merges expanded, short forms written out,
//! relative host paths joined to the project's directory, defaults filled in.
//! Every field of the Compose specification is known by name; one that is not
//! acted on is refused, unless it means nothing here.

mod application;

pub use application::{
    AdditionalContext, Application, Build, Condition, Dependency, EnvFile, Environment, HealthTest,
    Healthcheck, Mount, MountKind, PidsLimit, Port, Restart, SeccompMode, SecurityOptions, Service,
    Volume,
};

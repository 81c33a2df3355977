//! A Dockerfile and its arguments, made into steps with nothing left to choose.
//!
//! ```text
//! Dockerfile, arguments ──outline──▶ the images it needs
//! outline, their configs ───plan───▶ Graph: stages of steps, and each stage's config
//! ```
//!
//! Both are pure. Between them the caller resolves names to images, because a
//! base image's environment takes part in expanding what follows it. Stages
//! that the target does not need are left out and never expanded.

mod changes;
mod outline;
mod plan;
mod scope;

use std::collections::BTreeMap;

use carrack_oci::{ExecutionConfig, Platform, Reference};

pub use outline::{Outline, outline};
pub use plan::plan;

use crate::frontend::dockerfile::Position;

/// What the person asks of a Dockerfile.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// Build arguments by name.
    pub arguments: &'a BTreeMap<String, String>,
    /// The stage to build, by name or number; the last when absent.
    pub target: Option<&'a str>,
    /// What the image is built on and for.
    pub platform: &'a Platform,
    /// Names that stand for another context, and whether each can be started from.
    pub contexts: &'a BTreeMap<String, ContextKind>,
}

/// What a named context can be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextKind {
    /// An image: `FROM` and `COPY --from`.
    Image,
    /// A directory: `COPY --from` only.
    Directory,
}

/// Where a stage's root filesystem or a copied file comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nothing at all.
    Scratch,
    /// An earlier stage, by its place in the Dockerfile.
    Stage(usize),
    /// A named context.
    Context(String),
    /// An image by name.
    Image(Reference),
    /// The build context.
    BuildContext,
}

/// What to do, in order.
#[derive(Clone, Debug)]
pub struct Graph {
    /// The stages needed, each after those it needs. The last is the target.
    pub stages: Vec<PlannedStage>,
    /// Build arguments that no `ARG` asked for.
    pub unused_arguments: Vec<String>,
}

/// One stage, expanded.
#[derive(Clone, Debug)]
pub struct PlannedStage {
    /// Its place in the Dockerfile; what [`Origin::Stage`] refers to.
    pub index: usize,
    /// Its name, or `stage-N`.
    pub name: String,
    /// What it starts from.
    pub origin: Origin,
    /// What happens in it.
    pub steps: Vec<Step>,
    /// The configuration it ends with.
    pub config: ExecutionConfig,
}

/// One instruction.
#[derive(Clone, Debug)]
pub struct Step {
    /// As progress shows it, such as `COPY app.py /srv/`.
    pub name: String,
    /// As the image's history shows it.
    pub created_by: String,
    /// Where it stands.
    pub position: Position,
    /// What it does to the root filesystem.
    pub action: Action,
}

/// What a step does to the root filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: it only changes the configuration.
    Configure,
    /// Runs a command in a container.
    Run(RunStep),
    /// Brings files in.
    Copy(CopyStep),
    /// Makes a directory unless it is there, owned by the user set at that point.
    MakeDirectory {
        /// Absolute.
        path: String,
        /// `USER[:GROUP]`, or empty for root.
        user: String,
    },
}

/// A command to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunStep {
    /// The program and its arguments, the shell included.
    pub args: Vec<String>,
    /// Whether they are a shell's, and the command its line.
    pub has_shell: bool,
    /// `NAME=value`, build arguments included.
    pub env: Vec<String>,
    /// Proxy settings: given to the command, no part of what the step is.
    pub proxies: Vec<String>,
    /// `USER[:GROUP]`, or empty for root.
    pub user: String,
    /// Absolute.
    pub cwd: String,
}

/// Files to bring in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyStep {
    /// Where from.
    pub from: Origin,
    /// Paths in it, wildcards not resolved.
    pub sources: Vec<String>,
    /// Files whose content stood in the Dockerfile: name and content.
    pub documents: Vec<(String, String)>,
    /// Absolute; ends with a slash when it has to be a directory.
    pub destination: String,
    /// `USER[:GROUP]`.
    pub chown: Option<String>,
    /// Mode for everything brought in.
    pub chmod: Option<u32>,
    /// Whether tar archives are unpacked.
    pub unpack: bool,
}

#[cfg(test)]
mod tests;

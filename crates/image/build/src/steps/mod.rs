//! Steps done for real, each on a root filesystem of its own.
//!
//! ```text
//! layers below ──overlay──▶ Workspace ──run, copy, make──▶ upper ──diff──▶ layer in the store
//! ```
//!
//! Nothing here decides whether a step has to be done. A step that is
//! interrupted, however rudely, leaves a workspace that the next build sweeps
//! away, and no layer.

mod interrupt;
mod network;
mod run;
mod stubs;
mod workspace;

use std::io;
use std::path::{Path, PathBuf};

use carrack_linux::cgroup::CgroupError;
use carrack_linux::rooted::RootedDir;
use carrack_network::NetworkError;
use carrack_shim::ShimError;

pub use interrupt::Interrupter;
pub use network::RunNetwork;
pub(crate) use run::{Command, Machine};
pub(crate) use workspace::{Finished, Workspace, Workspaces};

use crate::files::accounts::Accounts;
use crate::files::{FilesError, Placement, Tree, Writer};
use crate::graph::CopyStep;

/// Why a step could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The command ran and was not content.
    #[error("the command ended with exit code {code}{}", if *oom { "; the kernel killed part of it for want of memory" } else { "" })]
    Command {
        /// Its exit code, or 128 plus the signal that ended it.
        code: i32,
        /// Whether the kernel killed something for want of memory.
        oom: bool,
    },
    /// Somebody stopped the build.
    #[error("the build was interrupted")]
    Interrupted,
    /// Files could not be brought in.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// There is no such program in the image.
    #[error("the image has no program `{program}`; copy or install it first{}", if *is_shell { ", or write RUN as a JSON array, which needs no shell" } else { "" })]
    NoProgram {
        /// Its name.
        program: String,
        /// Whether it is the shell that the command was written for.
        is_shell: bool,
    },
    /// The container of a `RUN` could not be had.
    #[error("running the command in a container")]
    Container(#[source] ShimError),
    /// The network of a `RUN` could not be had.
    #[error("giving the command a network; build with the network `none` if it needs none")]
    Network(#[source] NetworkError),
    /// No addresses are left for the network of a `RUN`.
    #[error("every subnet for builds is taken; end other builds, or use the network `host`")]
    NoSubnet,
    /// The control group of a `RUN` that was interrupted could not be cleared.
    #[error("clearing the control group of an interrupted build")]
    Cgroup(#[source] CgroupError),
    /// The place a step is done in.
    #[error("{attempt} `{}`", path.display())]
    Workspace {
        /// What was being done.
        attempt: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl StepError {
    fn workspace(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Workspace { attempt, path, source }
    }
}

/// Brings files into the workspace. `picks` are what the step's sources name in `tree`.
pub(crate) fn copy(
    workspace: &Workspace,
    step: &CopyStep,
    picks: &[crate::files::Pick],
    tree: &Tree,
    epoch: i64,
) -> Result<(), StepError> {
    let root = workspace.root()?;
    let owner = step.chown.as_deref().map(|words| owner(&root, words)).transpose()?;
    let destination = step.destination.clone();
    let placement = Placement { destination, owner, mode: step.chmod, epoch };
    let writer = Writer { root: &root, placement: &placement };
    if step.unpack {
        writer.unpack(picks, tree)?;
    } else {
        writer.place(picks, tree)?;
    }
    for (name, content) in &step.documents {
        writer.place_document(name, content.as_bytes())?;
    }
    Ok(())
}

/// Makes a directory unless it is there, owned by `user`.
pub(crate) fn make_directory(
    workspace: &Workspace,
    path: &str,
    user: &str,
    epoch: i64,
) -> Result<(), StepError> {
    let root = workspace.root()?;
    let owner = if user.is_empty() { None } else { Some(owner(&root, user)?) };
    let placement = Placement { destination: path.to_owned(), owner, mode: None, epoch };
    let writer = Writer { root: &root, placement: &placement };
    Ok(writer.directory(Path::new(path))?)
}

fn owner(root: &RootedDir, words: &str) -> Result<(u32, u32), StepError> {
    let clone = root.try_clone().map_err(StepError::workspace("holding", Path::new("/")))?;
    let tree = Tree::image(clone, "the image");
    Ok(Accounts::read(&tree)?.owner(words)?)
}

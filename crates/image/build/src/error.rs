//! Why a build stopped.

use std::io;
use std::path::PathBuf;

use carrack_content::ImageError;
use carrack_oci::Reference;
use carrack_rootfs::{DiffError, LayerError};
use carrack_store::BlobError;

use crate::frontend::dockerfile::{Position, Problem};
use crate::frontend::packages::{PackagesError, RecipeError};
use crate::steps::StepError;

/// Why a build stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A file that the build is made of cannot be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The Dockerfile asks for what cannot be done.
    #[error("{}", listed(.0))]
    Dockerfile(Vec<Problem>),
    /// An image to start or copy from is not in the store.
    #[error(
        "the build needs the image `{name}`, which is not in the store; build or load it first"
    )]
    NoImage {
        /// Its name.
        name: Reference,
    },
    /// An image to start from that this builder cannot start from.
    #[error("the image `{name}` {why}")]
    Base {
        /// Its name.
        name: String,
        /// What is the matter.
        why: String,
    },
    /// A recipe of packages that asks for what cannot be done.
    #[error(transparent)]
    Recipe(RecipeError),
    /// A recipe whose packages could not be had.
    #[error("building the recipe {}", path.display())]
    Packages {
        /// The recipe.
        path: PathBuf,
        /// Why.
        source: Box<PackagesError>,
    },
    /// A step.
    #[error("{file}:{position}: {step}")]
    Step {
        /// The Dockerfile.
        file: String,
        /// Where in it.
        position: Position,
        /// The instruction.
        step: String,
        /// Why.
        source: Box<StepError>,
    },
    /// The places a build works in.
    #[error("preparing to build")]
    Prepare(#[source] StepError),
    /// The record of what was done.
    #[error("keeping a record of the build in {}", path.display())]
    Cache {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The images in the store.
    #[error("using the images in the store")]
    Images(#[source] ImageError),
    /// A layer to build on.
    #[error("unpacking a layer to build on")]
    Unpack(#[source] LayerError),
    /// A layer that was made.
    #[error("writing a layer")]
    Diff(#[source] DiffError),
    /// The store.
    #[error("storing a layer")]
    Store(#[source] BlobError),
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

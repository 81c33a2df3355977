//! What a build is asked for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use carrack_oci::{Digest, Reference};

pub use crate::steps::RunNetwork;

/// One build.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// The directory that `COPY` and `ADD` take from.
    pub context: PathBuf,
    /// What to build.
    pub dockerfile: DockerfileSource,
    /// Build arguments by name.
    pub args: BTreeMap<String, String>,
    /// The stage to build, by name or number; the last when absent.
    pub target: Option<String>,
    /// What the image will be called.
    pub tags: Vec<Reference>,
    /// Labels it has besides those of the Dockerfile, which they go before.
    pub labels: BTreeMap<String, String>,
    /// Other things that `FROM` and `--from` can name.
    pub named_contexts: BTreeMap<String, NamedContext>,
    /// What network commands have.
    pub network: RunNetwork,
    /// Do every step, whatever was done before.
    pub no_cache: bool,
    /// The latest time anything in the image has, in seconds since 1970, and the
    /// time the image says it was made. 0 when absent, so that the same inputs
    /// make the same image on any day.
    pub source_date_epoch: Option<i64>,
}

impl BuildRequest {
    /// The Dockerfile of a directory, with nothing else asked.
    #[must_use]
    pub fn new(context: impl Into<PathBuf>) -> Self {
        Self {
            context: context.into(),
            dockerfile: DockerfileSource::Path(PathBuf::from("Dockerfile")),
            args: BTreeMap::new(),
            target: None,
            tags: Vec::new(),
            labels: BTreeMap::new(),
            named_contexts: BTreeMap::new(),
            network: RunNetwork::Default,
            no_cache: false,
            source_date_epoch: None,
        }
    }
}

/// Where the Dockerfile is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DockerfileSource {
    /// In a file; a relative path starts at the context.
    Path(PathBuf),
    /// Here.
    Text(String),
}

/// Something that `FROM` and `--from` can name besides stages and images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedContext {
    /// An image in the store.
    Image(Reference),
    /// A recipe of packages, built when it is needed.
    Recipe(PathBuf),
    /// A directory, to copy from.
    Directory(PathBuf),
}

/// What a build made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The image's manifest.
    pub digest: Digest,
    /// Its first name, if it was given one.
    pub reference: Option<Reference>,
    /// Steps that were done.
    pub steps_run: usize,
    /// Steps that an earlier build had done.
    pub steps_cached: usize,
}

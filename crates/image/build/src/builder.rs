//! From a request to an image.
//!
//! ```text
//! request ─▶ Dockerfile ─▶ Outline ─▶ bases at hand ─▶ Graph ─▶ solve ─▶ export ─▶ Built
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use carrack_content::{Image, Images};
use carrack_oci::{Platform, Reference};
use carrack_rootfs::Layers;

use crate::bases::Bases;
use crate::cache::Cache;
use crate::error::BuildError;
use crate::export;
use crate::frontend::dockerfile;
use crate::frontend::packages::{self, PackagesEnvironment, Recipe};
use crate::graph::{self, ContextKind, Inputs, Origin};
use crate::progress::{BuildEvent, Progress};
use crate::request::{BuildRequest, Built, DockerfileSource, NamedContext};
use crate::solve::Solver;
use crate::steps::{Interrupter, Machine, Workspaces};

/// A Dockerfile or recipe larger than this is a mistake.
const LARGEST_TEXT: u64 = 4 * 1024 * 1024;

/// What a builder works with.
#[derive(Debug)]
pub struct BuilderConfig {
    /// Where it keeps its cache and works; survives a restart of the machine.
    pub directory: PathBuf,
    /// Where its containers have their sockets; a short path.
    pub run_directory: PathBuf,
    /// Where the runtime keeps the state of containers.
    pub runtime_root: PathBuf,
    /// The program `carrack-runtime`.
    pub runtime_program: PathBuf,
    /// Where this machine's name servers are written down, such as `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// Where packages of recipes come from.
    pub packages: PackagesEnvironment,
}

/// Builds images.
///
/// Several may work in the same directories at once, in one process or in
/// many, and share what they have done.
#[derive(Debug)]
pub struct Builder {
    config: BuilderConfig,
    images: Arc<Images>,
    layers: Layers,
    cache: Cache,
    workspaces: Workspaces,
    interrupter: Interrupter,
}

impl Builder {
    /// A builder on these stores. Whatever builds that were killed have left
    /// behind is taken down first: containers, networks, mounts, files.
    ///
    /// # Errors
    ///
    /// When the directories cannot be used, or what was left behind does not go.
    pub fn open(
        config: BuilderConfig,
        images: Arc<Images>,
        layers: Layers,
    ) -> Result<Self, BuildError> {
        let steps = config.directory.join("steps");
        let workspaces =
            Workspaces::open(steps, config.run_directory.clone()).map_err(BuildError::Prepare)?;
        let path = config.directory.join("cache");
        let cache =
            Cache::open(path.clone()).map_err(|source| BuildError::Cache { path, source })?;
        Ok(Self { config, images, layers, cache, workspaces, interrupter: Interrupter::default() })
    }

    /// Builds what is asked for and gives it its names. Blocks until it is done.
    ///
    /// The image is in the store, whole, when this returns. Until then no name
    /// has changed, whatever happens.
    ///
    /// # Errors
    ///
    /// [`BuildError::Dockerfile`] with every problem of the Dockerfile at once,
    /// before anything is done; the first failure afterwards.
    pub fn build(
        &self,
        request: &BuildRequest,
        progress: &dyn Progress,
    ) -> Result<Built, BuildError> {
        let platform = Platform::host();
        // Nothing names what we make until the end.
        let _lease = self.images.lease().map_err(BuildError::Images)?;
        let (file, path, text) = read_dockerfile(request)?;
        let dockerfile = dockerfile::parse(&text, &file).map_err(BuildError::Dockerfile)?;
        let contexts = kinds(&request.named_contexts);
        let inputs = Inputs {
            arguments: &request.args,
            target: request.target.as_deref(),
            platform: &platform,
            contexts: &contexts,
        };
        let outline = graph::outline(&dockerfile, &inputs).map_err(BuildError::Dockerfile)?;
        let mut bases = Bases::default();
        for origin in outline.origins() {
            self.resolve(origin, request, &platform, &mut bases, progress)?;
        }
        let graph = graph::plan(&outline, &bases.configs()).map_err(BuildError::Dockerfile)?;
        for argument in &graph.unused_arguments {
            let message = format!("the build argument `{argument}` is declared by no ARG");
            progress.event(BuildEvent::Message(message));
        }
        let solver = Solver {
            request,
            file: &file,
            ignore_beside: path.map(beside),
            layers: &self.layers,
            images: &self.images,
            cache: &self.cache,
            workspaces: &self.workspaces,
            machine: self.machine(),
            bases: &bases,
            epoch: request.source_date_epoch.unwrap_or(0),
            progress,
        };
        let solved = solver.solve(&graph)?;
        export::export(&self.images, request, &platform, &bases, &graph, solved)
    }

    fn machine(&self) -> Machine {
        Machine {
            program: self.config.runtime_program.clone(),
            runtime_root: self.config.runtime_root.clone(),
            subnet_lock: self.config.directory.join("subnet.lock"),
            resolv_conf: self.config.resolv_conf.clone(),
            interrupter: self.interrupter.clone(),
        }
    }

    /// What stops this builder's builds, from another thread.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        self.interrupter.clone()
    }

    fn resolve(
        &self,
        origin: &Origin,
        request: &BuildRequest,
        platform: &Platform,
        bases: &mut Bases,
        progress: &dyn Progress,
    ) -> Result<(), BuildError> {
        let (name, image) = match origin {
            Origin::Image(reference) => (reference.to_string(), self.image(reference)?),
            Origin::Context(name) => match request.named_contexts.get(name) {
                Some(NamedContext::Image(reference)) => (name.clone(), self.image(reference)?),
                Some(NamedContext::Recipe(path)) => {
                    (name.clone(), self.recipe(path, request, progress)?)
                }
                Some(NamedContext::Directory(_)) | None => return Ok(()),
            },
            Origin::Scratch | Origin::Stage(_) | Origin::BuildContext => return Ok(()),
        };
        bases.insert(origin.clone(), &name, image, platform)
    }

    fn image(&self, reference: &Reference) -> Result<Image, BuildError> {
        let found = self.images.resolve(reference).map_err(BuildError::Images)?;
        found.ok_or_else(|| BuildError::NoImage { name: reference.clone() })
    }

    fn recipe(
        &self,
        path: &Path,
        request: &BuildRequest,
        progress: &dyn Progress,
    ) -> Result<Image, BuildError> {
        let text = read_text(path)?;
        let recipe = Recipe::parse(&text, path).map_err(BuildError::Recipe)?;
        let epoch = request.source_date_epoch;
        let environment = &self.config.packages;
        let digest = packages::build_recipe(&recipe, environment, &self.images, epoch, progress)
            .map_err(|source| {
                let (path, source) = (path.to_owned(), Box::new(source));
                BuildError::Packages { path, source }
            })?;
        self.images.get(&digest).map_err(BuildError::Images)
    }
}

fn kinds(contexts: &BTreeMap<String, NamedContext>) -> BTreeMap<String, ContextKind> {
    let kind = |context: &NamedContext| match context {
        NamedContext::Image(_) | NamedContext::Recipe(_) => ContextKind::Image,
        NamedContext::Directory(_) => ContextKind::Directory,
    };
    contexts.iter().map(|(name, context)| (name.clone(), kind(context))).collect()
}

/// The Dockerfile's name for people, its path, and what it says.
fn read_dockerfile(
    request: &BuildRequest,
) -> Result<(String, Option<PathBuf>, String), BuildError> {
    match &request.dockerfile {
        DockerfileSource::Text(text) => Ok(("Dockerfile".to_owned(), None, text.clone())),
        DockerfileSource::Path(path) => {
            let whole = request.context.join(path);
            let text = read_text(&whole)?;
            Ok((path.display().to_string(), Some(whole), text))
        }
    }
}

fn read_text(path: &Path) -> Result<String, BuildError> {
    let failed = |source| BuildError::Read { path: path.to_owned(), source };
    let bytes = carrack_linux::fs::read_bounded(path, LARGEST_TEXT).map_err(failed)?;
    String::from_utf8(bytes).map_err(|_| failed(std::io::Error::other("is not UTF-8 text")))
}

/// The ignore file that belongs to one Dockerfile.
fn beside(dockerfile: PathBuf) -> PathBuf {
    let mut name = dockerfile.into_os_string();
    name.push(".dockerignore");
    PathBuf::from(name)
}

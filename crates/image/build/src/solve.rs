//! The graph walked through: what was done before is taken over, the rest is done.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use carrack_content::{Images, Layer};
use carrack_oci::{Compression, Digest};
use carrack_rootfs::{DiffOptions, Layers};
use carrack_store::BlobStore as _;

use crate::bases::Bases;
use crate::cache::{Cache, Effect, Key};
use crate::error::BuildError;
use crate::files::{Pick, Tree, pick_digest};
use crate::graph::{Action, CopyStep, Graph, Origin, PlannedStage, RunStep, Step};
use crate::progress::{BuildEvent, Progress};
use crate::request::{BuildRequest, NamedContext};
use crate::steps::{self, Command, Machine, RunNetwork, StepError, Workspaces};

/// What solving needs.
pub(crate) struct Solver<'a> {
    pub(crate) request: &'a BuildRequest,
    pub(crate) file: &'a str,
    /// The ignore file that belongs to the Dockerfile alone.
    pub(crate) ignore_beside: Option<PathBuf>,
    pub(crate) layers: &'a Layers,
    pub(crate) images: &'a Images,
    pub(crate) cache: &'a Cache,
    pub(crate) workspaces: &'a Workspaces,
    pub(crate) machine: Machine,
    pub(crate) bases: &'a Bases,
    pub(crate) epoch: i64,
    pub(crate) progress: &'a dyn Progress,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Solved {
    pub(crate) stages: BTreeMap<usize, SolvedStage>,
    pub(crate) run: usize,
    pub(crate) cached: usize,
}

/// A stage's root filesystem, and which of its steps made a layer.
#[derive(Clone, Debug, Default)]
pub(crate) struct SolvedStage {
    pub(crate) layers: Vec<Layer>,
    pub(crate) made_layer: Vec<bool>,
}

/// A step with all its inputs known.
enum Ready<'a> {
    Run(&'a RunStep),
    Copy { step: &'a CopyStep, tree: Option<Tree>, picks: Vec<Pick> },
    MakeDirectory { path: &'a str, user: &'a str },
}

impl Solver<'_> {
    pub(crate) fn solve(&self, graph: &Graph) -> Result<Solved, BuildError> {
        let changes_files = |step: &&Step| step.action != Action::Configure;
        let steps = graph.stages.iter().flat_map(|stage| &stage.steps);
        let total = steps.filter(changes_files).count();
        let mut solved = Solved::default();
        for stage in &graph.stages {
            self.stage(stage, total, &mut solved)?;
        }
        Ok(solved)
    }

    fn stage(
        &self,
        stage: &PlannedStage,
        total: usize,
        solved: &mut Solved,
    ) -> Result<(), BuildError> {
        let mut layers = self.layers_of(&stage.origin, solved);
        let mut made_layer = Vec::with_capacity(stage.steps.len());
        for step in &stage.steps {
            let before = layers.len();
            if step.action != Action::Configure {
                let number = solved.run + solved.cached + 1;
                let name = format!("[{} {number}/{total}] {}", stage.name, step.name);
                self.progress.event(BuildEvent::StepStarted { number, total, name });
                let started = Instant::now();
                let (effect, cached) = self.step(step, number, &layers, solved)?;
                if let Effect::Layer(layer) = effect {
                    layers.push(*layer);
                }
                let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                self.progress.event(BuildEvent::StepDone { number, cached, millis });
                *(if cached { &mut solved.cached } else { &mut solved.run }) += 1;
            }
            made_layer.push(layers.len() > before);
        }
        solved.stages.insert(stage.index, SolvedStage { layers, made_layer });
        Ok(())
    }

    fn layers_of(&self, origin: &Origin, solved: &Solved) -> Vec<Layer> {
        match origin {
            Origin::Stage(index) => {
                solved.stages.get(index).map(|stage| stage.layers.clone()).unwrap_or_default()
            }
            origin => self.bases.layers(origin).to_vec(),
        }
    }

    /// What the step does, and whether it was done already.
    fn step(
        &self,
        step: &Step,
        number: usize,
        below: &[Layer],
        solved: &Solved,
    ) -> Result<(Effect, bool), BuildError> {
        let failed = |source: StepError| BuildError::Step {
            file: self.file.to_owned(),
            position: step.position,
            step: step.name.clone(),
            source: Box::new(source),
        };
        self.machine.interrupter.check().map_err(failed)?;
        let mut key = Key::new(below, self.epoch);
        let ready = self.ready(&step.action, solved, &mut key).map_err(failed)?;
        let Some(ready) = ready else { return Ok((Effect::Nothing, true)) };
        let key = key.finish();
        if let Some(effect) = self.known(&key)? {
            return Ok((effect, true));
        }
        let lower = self.unpacked(below)?;
        let from = match &ready {
            Ready::Copy { step, tree: None, .. } => {
                self.unpacked(&self.layers_of(&step.from, solved))?
            }
            _ => Vec::new(),
        };
        let finished = self.perform(ready, number, &lower, &from).map_err(failed)?;
        let effect = self.keep(&finished)?;
        drop(finished);
        self.cache
            .put(&key, &effect)
            .map_err(|source| BuildError::Cache { path: PathBuf::from(key.hex()), source })?;
        Ok((effect, false))
    }

    /// Takes in everything that decides what the step makes. `None`: it makes nothing.
    fn ready<'s>(
        &self,
        action: &'s Action,
        solved: &Solved,
        key: &mut Key,
    ) -> Result<Option<Ready<'s>>, StepError> {
        Ok(match action {
            Action::Configure => None,
            Action::Run(step) => {
                key.text("run");
                key.list(&step.args);
                key.list(&step.env);
                key.text(&step.user);
                key.text(&step.cwd);
                key.text(match self.request.network {
                    RunNetwork::Default => "network",
                    RunNetwork::None => "no network",
                    RunNetwork::Host => "host network",
                });
                Some(Ready::Run(step))
            }
            Action::MakeDirectory { path, user } => {
                key.text("directory");
                key.text(path);
                key.text(user);
                Some(Ready::MakeDirectory { path, user })
            }
            Action::Copy(step) => Some(self.ready_copy(step, solved, key)?),
        })
    }

    fn ready_copy<'s>(
        &self,
        step: &'s CopyStep,
        solved: &Solved,
        key: &mut Key,
    ) -> Result<Ready<'s>, StepError> {
        key.text(if step.unpack { "add" } else { "copy" });
        key.text(&step.destination);
        key.optional(step.chown.as_deref());
        key.optional(step.chmod.map(|mode| mode.to_string()).as_deref());
        key.list(step.documents.iter().flat_map(|(name, content)| [name, content]));
        let tree = if step.sources.is_empty() { None } else { self.directory(&step.from)? };
        let picks = match &tree {
            // What they name now, with the digest of all of it.
            Some(tree) => {
                let picks = tree.pick(&step.sources)?;
                key.text(&pick_digest(&picks).to_string());
                picks
            }
            // What they name is decided by the layers they are looked for in.
            None => {
                key.list(&step.sources);
                let layers = self.layers_of(&step.from, solved);
                key.list(layers.iter().map(|layer| layer.diff_id.to_string()));
                Vec::new()
            }
        };
        Ok(Ready::Copy { step, tree, picks })
    }

    /// The directory that an origin is, if it is one.
    fn directory(&self, origin: &Origin) -> Result<Option<Tree>, StepError> {
        Ok(match origin {
            Origin::BuildContext => {
                let beside = self.ignore_beside.as_deref();
                Some(Tree::context(&self.request.context, beside, "the build context")?)
            }
            Origin::Context(name) => match self.request.named_contexts.get(name) {
                Some(NamedContext::Directory(path)) => {
                    Some(Tree::context(path, None, &format!("the context `{name}`"))?)
                }
                _ => None,
            },
            _ => None,
        })
    }

    /// What is kept under `key`, if its layer still is in the store.
    fn known(&self, key: &Digest) -> Result<Option<Effect>, BuildError> {
        if self.request.no_cache {
            return Ok(None);
        }
        let kept = self.cache.get(key);
        if let Some(Effect::Layer(layer)) = &kept {
            let found = self.images.blobs().stat(&layer.descriptor.digest);
            if found.map_err(BuildError::Store)? != Some(layer.descriptor.size) {
                return Ok(None);
            }
        }
        Ok(kept)
    }

    fn unpacked(&self, layers: &[Layer]) -> Result<Vec<PathBuf>, BuildError> {
        let unpack = |layer: &Layer| self.layers.unpacked(&layer.descriptor, &layer.diff_id);
        layers.iter().map(unpack).collect::<Result<_, _>>().map_err(BuildError::Unpack)
    }

    fn perform(
        &self,
        ready: Ready<'_>,
        number: usize,
        lower: &[PathBuf],
        from: &[PathBuf],
    ) -> Result<steps::Finished, StepError> {
        let workspace = self.workspaces.create(lower)?;
        match ready {
            Ready::Run(step) => {
                let command =
                    Command { machine: &self.machine, step, network: self.request.network };
                let output = |bytes| self.progress.event(BuildEvent::StepOutput { number, bytes });
                return command.run(workspace, &output);
            }
            Ready::MakeDirectory { path, user } => {
                steps::make_directory(&workspace, path, user, self.epoch)?;
            }
            Ready::Copy { step, tree: Some(tree), picks } => {
                steps::copy(&workspace, step, &picks, &tree, self.epoch)?;
            }
            Ready::Copy { step, tree: None, .. } => {
                let tree = Tree::image(self.workspaces.view(from)?, &shown(&step.from));
                let picks = tree.pick(&step.sources)?;
                steps::copy(&workspace, step, &picks, &tree, self.epoch)?;
            }
        }
        Ok(workspace.finish())
    }

    /// Writes what changed into the store.
    ///
    /// A layer is an uncompressed archive. Its digest then depends on its content
    /// alone, and not on which version of which compressor wrote it.
    fn keep(&self, finished: &steps::Finished) -> Result<Effect, BuildError> {
        let mut writer = self.images.layer(Compression::None).map_err(BuildError::Images)?;
        let options = DiffOptions { source_date_epoch: self.epoch };
        let written = carrack_rootfs::diff(&finished.upper(), &mut writer, &options)
            .map_err(BuildError::Diff)?;
        if written.entries == 0 {
            return Ok(Effect::Nothing);
        }
        let layer = writer.finish().map_err(BuildError::Images)?;
        Ok(Effect::Layer(Box::new(layer)))
    }
}

fn shown(origin: &Origin) -> String {
    match origin {
        Origin::Stage(index) => format!("stage {index}"),
        Origin::Image(name) => format!("the image `{name}`"),
        Origin::Context(name) => format!("the context `{name}`"),
        Origin::Scratch | Origin::BuildContext => "the build context".to_owned(),
    }
}

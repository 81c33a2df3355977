//! A recipe of Debian packages, made into a base image.
//!
//! ```text
//! apt configuration ─▶ sources ─▶ InRelease ──signature──▶ indexes ──digest──▶ packages
//! recipe ──────────────────────────────────────────────────▶ resolve ──digest──▶ .deb files
//!                                                                ─▶ one layer ─▶ image
//! ```
//!
//! Every byte of an image is vouched for: a key the host (or the recipe) trusts signs
//! the Release file, that names the digest of each index, and that the digest of each
//! package. No maintainer script runs, nothing is unpacked onto this machine, and the
//! same packages make the same image, bit for bit, wherever and whenever.
//!
//! | here | what it knows |
//! |---|---|
//! | `recipe` | what people write |
//! | `sources`, `settings`, `suite`, `release`, `keyring` | whom to believe |
//! | `index`, `relation`, `resolve` | which packages |
//! | `fetch`, `cache` | how they get here |
//! | `deb`, `tree`, `accounts`, `dpkg`, `assemble` | how they become a file system |

mod accounts;
mod assemble;
mod cache;
mod deb;
mod deb822;
mod dpkg;
mod error;
mod fetch;
mod index;
mod keyring;
mod recipe;
mod relation;
mod release;
mod resolve;
mod settings;
mod sources;
mod suite;
mod tree;
pub mod untrusted;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use carrack_content::Images;
use carrack_oci::{Compression, Descriptor, Digest, History, ImageConfig, Manifest, Platform};
use carrack_store::BlobStore as _;
use jiff::Timestamp;

pub use accounts::AccountsError;
pub use assemble::UnpackError;
pub use deb::DebError;
pub use deb822::Malformed;
pub use dpkg::ControlError;
pub use error::{PackagesError, ReadRecipeError};
pub use fetch::FetchError;
pub use index::IndexError;
pub use keyring::SignatureError;
pub use recipe::{Recipe, RecipeError};
pub use relation::RelationError;
pub use release::ReleaseError;
pub use resolve::ResolveError;
pub use tree::TreeError;

use crate::progress::{BuildEvent, Progress};
use assemble::Assembled;
use cache::Cache;
use fetch::{Fetcher, Wanted};
use index::{Package, Universe};
use recipe::Architecture;
use settings::Settings;
use sources::{SignedBy, Sources};
use suite::{Archive, Asked, Suite};

/// Part of every cache key: changes when the same packages would make another image.
const FORMAT: &str = "carrack package image 2";
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How often, in bytes, the arrival of a file is told.
const TOLD_EVERY: u64 = 1024 * 1024;

/// Where packages come from, and where what was fetched is kept.
#[derive(Clone, Debug)]
pub struct PackagesEnvironment {
    /// Indexes and packages are kept here, by digest; several processes may share it.
    pub cache_dir: PathBuf,
    /// The host's apt configuration, for recipes that name no repositories.
    pub apt_dir: PathBuf,
    /// A PEM file of certificate authorities to trust for https beside the system's.
    pub extra_roots: Option<PathBuf>,
    /// Indexes fetched less long ago than this are not asked for again.
    pub maximum_age: Duration,
    /// What time it is: signatures and Release files are judged by it.
    pub now: Timestamp,
}

impl PackagesEnvironment {
    /// How long indexes are taken as they are, where nobody says otherwise.
    pub const DEFAULT_MAXIMUM_AGE: Duration = Duration::from_hours(1);

    /// An environment at this moment, with nothing unusual.
    pub fn new(cache_dir: impl Into<PathBuf>, apt_dir: impl Into<PathBuf>) -> Self {
        Self {
            cache_dir: cache_dir.into(),
            apt_dir: apt_dir.into(),
            extra_roots: None,
            maximum_age: Self::DEFAULT_MAXIMUM_AGE,
            now: Timestamp::now(),
        }
    }
}

/// Makes the image a recipe describes and says what its manifest's digest is.
///
/// Blocks. What was fetched before is not fetched again, and where recipe, packages
/// and `epoch` are those of an image that is still there, that image is the answer.
/// Without an `epoch` the image is dated by the newest file of its packages, so that
/// a new index alone makes no new image.
///
/// # Errors
///
/// [`PackagesError`]. A source that does not answer is only told as a message, unless
/// something is missing then; one that answers with a false signature, an expired
/// Release file or bytes that are not what was signed is refused.
pub fn build_recipe(
    recipe: &Recipe,
    environment: &PackagesEnvironment,
    images: &Images,
    epoch: Option<i64>,
    progress: &dyn Progress,
) -> Result<Digest, PackagesError> {
    let architecture = match recipe.architecture {
        Some(architecture) => architecture,
        None => Architecture::host().ok_or(PackagesError::Architecture)?,
    };
    // Nothing that is kept along the way may be collected before the end.
    let lease = images.lease().map_err(|source| PackagesError::Keep {
        recipe: recipe.file.clone(),
        source: Box::new(source),
    })?;
    let cache = Cache::open(&environment.cache_dir).map_err(PackagesError::cache)?;
    let fetcher = Fetcher::new(environment.extra_roots.as_deref());
    let build = Build {
        recipe,
        architecture,
        epoch,
        images,
        progress,
        archive: Archive {
            cache: &cache,
            fetcher: &fetcher,
            apt_directory: &environment.apt_dir,
            now: environment.now,
            maximum_age: environment.maximum_age,
        },
        silent: RefCell::default(),
    };
    let manifest = build.run();
    drop(lease);
    manifest
}

/// One recipe on its way to an image.
struct Build<'a> {
    recipe: &'a Recipe,
    architecture: Architecture,
    epoch: Option<i64>,
    images: &'a Images,
    progress: &'a dyn Progress,
    archive: Archive<'a>,
    /// Sources that did not answer, and why.
    silent: RefCell<Vec<String>>,
}

impl Build<'_> {
    fn run(&self) -> Result<Digest, PackagesError> {
        let suites = self.suites()?;
        let by_indexes = self.key(suites.iter().map(|suite| suite.digest.to_string()));
        if let Some(manifest) = self.earlier(&by_indexes)? {
            return Ok(manifest);
        }
        let packages = self.choose(&suites)?;
        let by_packages = self.key(packages.values().map(|package| package.digest.to_string()));
        let manifest = match self.earlier(&by_packages)? {
            Some(manifest) => manifest,
            None => self.make(&suites, &packages)?,
        };
        for key in [&by_packages, &by_indexes] {
            self.archive.cache.keep_result(key, &manifest).map_err(PackagesError::cache)?;
        }
        Ok(manifest)
    }

    /// Everything that decides an image, as one digest.
    fn key(&self, parts: impl Iterator<Item = String>) -> Digest {
        let mut text = format!(
            "{FORMAT}\n{}\n{:?}\n{}\n",
            self.architecture.name(),
            self.epoch,
            Digest::of(&self.recipe.text)
        );
        for part in parts {
            text.push_str(&part);
            text.push('\n');
        }
        Digest::of(text)
    }

    /// The image an earlier build came to, when it is still there.
    fn earlier(&self, key: &Digest) -> Result<Option<Digest>, PackagesError> {
        let manifest = self.archive.cache.result(key).map_err(PackagesError::cache)?;
        Ok(manifest.filter(|manifest| self.is_whole(manifest)))
    }

    fn is_whole(&self, manifest: &Digest) -> bool {
        let Ok(image) = self.images.get(manifest) else { return false };
        let here = |layer: &Descriptor| matches!(self.images.blobs().stat(&layer.digest), Ok(Some(size)) if size == layer.size);
        image.manifest.layers.iter().all(here)
    }

    fn suites(&self) -> Result<Vec<Suite>, PackagesError> {
        let mut suites = Vec::new();
        for source in self.sources()?.used {
            match self.archive.ask(&source)? {
                Asked::Known(suite, message) => {
                    if let Some(message) = message {
                        self.tell(message);
                    }
                    suites.push(*suite);
                }
                Asked::Silent(reason) => {
                    self.tell(format!("a package source is left out: {reason}"));
                    self.silent.borrow_mut().push(reason);
                }
            }
        }
        if suites.is_empty() {
            return Err(PackagesError::Unanswered { reasons: self.silent.take() });
        }
        Ok(suites)
    }

    /// The sources of the recipe, or else of the host.
    fn sources(&self) -> Result<Sources, PackagesError> {
        let architecture = self.architecture.name();
        let recipe = self.recipe;
        let place = if recipe.repositories.is_empty() {
            self.archive.apt_directory.to_owned()
        } else {
            recipe.file.clone()
        };
        let mut sources = Sources::default();
        if recipe.repositories.is_empty() {
            sources = self.host_sources(architecture)?;
        }
        for (line, place) in &recipe.repositories {
            sources.add_line(line, place, architecture);
        }
        for left_out in &sources.left_out {
            if !recipe.repositories.is_empty() {
                let (place, reason) = (left_out.place.clone(), left_out.reason.clone());
                return Err(PackagesError::Repository { place, reason });
            }
            self.tell(format!(
                "{}: this package source is left out: {}",
                left_out.place, left_out.reason
            ));
        }
        if !recipe.keyring.is_empty() {
            for source in &mut sources.used {
                if source.signed_by == SignedBy::Host {
                    source.signed_by = SignedBy::Files(recipe.keyring.clone());
                }
            }
        }
        if sources.used.is_empty() {
            return Err(PackagesError::NoSources { place, architecture });
        }
        Ok(sources)
    }

    /// The sources of the host, with what else its apt configuration says about them.
    fn host_sources(&self, architecture: &str) -> Result<Sources, PackagesError> {
        let failed = |(path, source)| PackagesError::Configuration { path, source };
        let directory = self.archive.apt_directory;
        let settings = Settings::of_host(directory).map_err(failed)?;
        let mut sources = Sources::of_host(directory, architecture).map_err(failed)?;
        for source in &mut sources.used {
            source.check_valid_until &= settings.check_valid_until;
        }
        if let Some(proxy) = settings.proxy {
            self.tell(format!("apt's proxy `{proxy}` is not used; sources are asked directly"));
        }
        Ok(sources)
    }

    /// Fetches the indexes and chooses packages from them.
    fn choose(&self, suites: &[Suite]) -> Result<BTreeMap<String, Rc<Package>>, PackagesError> {
        let architecture = self.architecture.name();
        let mut universe = Universe::new(architecture);
        let indexes: Vec<Vec<_>> = suites.iter().map(|suite| suite.indexes(architecture)).collect();
        self.fetch(indexes.iter().flatten().map(|index| index.wanted.clone()).collect())?;
        for (number, indexes) in indexes.iter().enumerate() {
            for index in indexes {
                universe.add(number, &index.name, self.archive.read(index)?);
            }
        }
        resolve::resolve(&universe, &self.recipe.packages).map_err(|source| {
            let silent = self.silent.borrow().clone();
            let (recipe, source) = (self.recipe.file.clone(), Box::new(source));
            PackagesError::Resolve { recipe, silent, source }
        })
    }

    /// Downloads what is not here yet, and tells how it goes.
    fn fetch(&self, wanted: Vec<Wanted>) -> Result<(), PackagesError> {
        let mut missing = Vec::new();
        for file in wanted {
            let kept = self.archive.cache.blob(&file.digest).map_err(PackagesError::cache)?;
            if kept.is_none() {
                missing.push(file);
            }
        }
        let files: Vec<_> = missing.iter().map(|file| (file.name.clone(), file.size)).collect();
        let mut told = vec![0; files.len()];
        self.archive.fetcher.download(missing, self.archive.cache, |index, done| {
            let (Some((name, total)), Some(told)) = (files.get(index), told.get_mut(index)) else {
                return;
            };
            if done == *total || done >= *told + TOLD_EVERY {
                *told = done;
                let (name, total) = (name.clone(), *total);
                self.progress.event(BuildEvent::Download { name, done, total });
            }
        })?;
        Ok(())
    }

    fn make(
        &self,
        suites: &[Suite],
        packages: &BTreeMap<String, Rc<Package>>,
    ) -> Result<Digest, PackagesError> {
        let wanted = packages.values().filter_map(|package| {
            let source = &suites.get(package.source)?.source;
            Some(Wanted {
                name: format!("{} {}", package.name, package.version),
                addresses: vec![source.package_file(&package.file)],
                digest: package.digest.clone(),
                size: package.size,
            })
        });
        self.fetch(wanted.collect())?;
        let cache = self.archive.cache;
        let assembled =
            assemble::assemble(self.recipe, packages, cache, self.architecture, self.epoch)?;
        self.keep(&assembled, packages.len())
    }

    fn keep(&self, assembled: &Assembled, count: usize) -> Result<Digest, PackagesError> {
        let Assembled { tree, epoch } = assembled;
        let recipe = || self.recipe.file.clone();
        let failed = |source| PackagesError::Keep { recipe: recipe(), source: Box::new(source) };
        let created =
            Timestamp::from_second(*epoch).map_err(|_| PackagesError::Epoch(*epoch))?.to_string();
        // Not compressed: a digest should not depend on a compressor's version.
        let writer = self.images.layer(Compression::None).map_err(failed)?;
        let writer = tree
            .write(writer, *epoch)
            .map_err(|source| PackagesError::Write { recipe: recipe(), source })?;
        let layer = writer.finish().map_err(failed)?;
        let mut config = self.config(&created, count);
        config.rootfs.diff_ids = vec![layer.diff_id];
        let config = self.images.put_config(&config).map_err(failed)?;
        let mut manifest = Manifest::new(config, vec![layer.descriptor]);
        manifest.annotations =
            self.recipe.annotations.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        Ok(self.images.put_manifest(&manifest).map_err(failed)?.digest)
    }

    fn config(&self, created: &str, count: usize) -> ImageConfig {
        let recipe = self.recipe;
        let platform = Platform {
            architecture: self.architecture.name().to_owned(),
            os: "linux".to_owned(),
            ..Platform::host()
        };
        let mut config = ImageConfig::new(&platform);
        config.created = Some(created.to_owned());
        let run = &mut config.config;
        run.set_variable("PATH", DEFAULT_PATH);
        for (name, value) in &recipe.environment {
            run.set_variable(name, value);
        }
        run.entrypoint.clone_from(&recipe.entrypoint);
        run.cmd.clone_from(&recipe.command);
        run.user = recipe.accounts.run_as.clone().unwrap_or_default();
        run.working_dir = recipe.working_directory.clone().unwrap_or_default();
        run.stop_signal.clone_from(&recipe.stop_signal);
        run.volumes = recipe.volumes.iter().cloned().collect();
        run.labels.clone_from(&recipe.annotations);
        config.history = vec![History {
            created: Some(created.to_owned()),
            created_by: Some(format!("{count} packages of a recipe")),
            ..History::default()
        }];
        config
    }

    fn tell(&self, message: String) {
        self.progress.event(BuildEvent::Message(message));
    }
}

/// Reads and checks the recipe in a file.
///
/// # Errors
///
/// [`ReadRecipeError`] when it cannot be read, or says something wrong.
pub fn read_recipe(file: &Path) -> Result<Recipe, ReadRecipeError> {
    let text = std::fs::read_to_string(file)
        .map_err(|source| ReadRecipeError::Read { file: file.to_owned(), source })?;
    Ok(Recipe::parse(&text, file)?)
}

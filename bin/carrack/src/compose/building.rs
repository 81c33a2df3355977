//! Building images inside a command: one image from a command line, or all of
//! an application's in the order they need each other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use carrack_build::frontend::packages::{PackagesEnvironment, Recipe, build_recipe};
use carrack_build::{
    BuildError, BuildEvent, BuildRequest, Builder, BuilderConfig, DockerfileSource, Interrupter,
    NamedContext, Progress, RunNetwork,
};
use carrack_content::Images;
use carrack_objects::compose::{AdditionalContext, Application, Build};
use carrack_oci::{Digest, Reference};
use carrack_rootfs::Layers;

use crate::cli::images::reference;
use crate::exit;
use crate::output::progress::Display;
use crate::settings::Settings;

/// What a build is made from.
pub(crate) enum Source {
    /// A Dockerfile and its context.
    Dockerfile(Box<BuildRequest>),
    /// A recipe of packages.
    Recipe { file: PathBuf, tags: Vec<Reference> },
}

/// What a build made.
pub(crate) struct Outcome {
    pub(crate) digest: Digest,
    pub(crate) names: Vec<String>,
    pub(crate) steps_run: usize,
    pub(crate) steps_cached: usize,
}

/// The builder of these settings.
pub(crate) struct Builds {
    builder: Builder,
    images: Arc<Images>,
    packages: PackagesEnvironment,
    /// Whether a signal stops the build rather than the command.
    building: Arc<AtomicBool>,
}

impl Drop for Builds {
    fn drop(&mut self) {
        self.building.store(false, Ordering::Relaxed);
    }
}

impl Builds {
    /// Opens the store and the builder. `pull` looks for newer packages at once.
    pub(crate) fn open(settings: &Settings, pull: bool) -> anyhow::Result<Self> {
        let images = Arc::new(crate::cli::images::open(settings)?);
        let layers = Layers::open(settings.root.join("rootfs/layers"), Arc::clone(images.blobs()))?;
        let mut packages = PackagesEnvironment::new(settings.root.join("packages"), "/etc/apt");
        packages.extra_roots = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        if pull {
            packages.maximum_age = std::time::Duration::ZERO;
        }
        let config = BuilderConfig {
            directory: settings.root.join("build"),
            run_directory: settings.run.join("build"),
            runtime_root: settings.run.join("runtime"),
            runtime_program: settings.runtime_program.clone(),
            resolv_conf: "/etc/resolv.conf".into(),
            packages: packages.clone(),
        };
        let builder = Builder::open(config, Arc::clone(&images), layers)?;
        let building = Arc::new(AtomicBool::new(true));
        let (interrupter, watched) = (builder.interrupter(), Arc::clone(&building));
        std::thread::spawn(move || interrupt_on_signal(&interrupter, &watched));
        Ok(Self { builder, images, packages, building })
    }

    /// Builds one image.
    pub(crate) fn run(&self, source: &Source, display: &Display) -> anyhow::Result<Outcome> {
        match source {
            Source::Dockerfile(request) => {
                let task = request.tags.first().map_or("build".to_owned(), ToString::to_string);
                self.dockerfile(request, &Shown::new(display, &task))
            }
            Source::Recipe { file, tags } => self.recipe(file, tags, display),
        }
    }

    fn dockerfile(&self, request: &BuildRequest, shown: &Shown<'_>) -> anyhow::Result<Outcome> {
        let built = self.builder.build(request, shown).map_err(refusal)?;
        Ok(Outcome {
            digest: built.digest,
            names: request.tags.iter().map(ToString::to_string).collect(),
            steps_run: built.steps_run,
            steps_cached: built.steps_cached,
        })
    }

    fn recipe(
        &self,
        file: &Path,
        tags: &[Reference],
        display: &Display,
    ) -> anyhow::Result<Outcome> {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("reading the recipe {}", file.display()))?;
        let recipe = Recipe::parse(&text, file).map_err(|error| exit::usage(error.to_string()))?;
        let task =
            file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let shown = Shown::new(display, &task);
        let _lease = self.images.lease()?;
        let digest = build_recipe(&recipe, &self.packages, &self.images, None, &shown)?;
        for tag in tags {
            self.images.tag(tag, &digest)?;
        }
        let names = tags.iter().map(ToString::to_string).collect();
        display.done(&task, "built");
        Ok(Outcome { digest, names, steps_run: 0, steps_cached: 0 })
    }

    /// Builds every service of the application that says how, those first that others
    /// are built from, and answers the image of each.
    pub(crate) fn application(
        &self,
        application: &Application,
        only: &[String],
        display: &Display,
    ) -> anyhow::Result<BTreeMap<String, Digest>> {
        let mut built = BTreeMap::new();
        for name in order(application, only)? {
            let Some(service) = application.services.get(&name) else { continue };
            let Some(build) = &service.build else { continue };
            let tag = image_name(application, &name);
            let request = self.request(application, build, &tag)?;
            let shown = Shown::new(display, &tag);
            let outcome = self
                .dockerfile(&request, &shown)
                .with_context(|| format!("building the image of service `{name}`"))?;
            let all = outcome.steps_run + outcome.steps_cached;
            let word = if outcome.steps_run == 0 {
                format!("unchanged, {all} steps")
            } else {
                format!("built, {} of {all} steps run", outcome.steps_run)
            };
            display.done(&tag, &word);
            built.insert(name, outcome.digest);
        }
        Ok(built)
    }

    fn request(
        &self,
        application: &Application,
        build: &Build,
        tag: &str,
    ) -> anyhow::Result<BuildRequest> {
        let mut request = BuildRequest::new(&build.context);
        request.dockerfile = match &build.dockerfile_inline {
            Some(text) => DockerfileSource::Text(text.clone()),
            None => DockerfileSource::Path(build.dockerfile.clone()),
        };
        request.args = build.args.clone().into_iter().collect();
        request.target.clone_from(&build.target);
        request.tags.push(reference(tag)?);
        for tag in &build.tags {
            request.tags.push(reference(tag)?);
        }
        request.labels = build.labels.clone().into_iter().collect();
        request.no_cache = build.no_cache;
        for (name, context) in &build.additional_contexts {
            let context = match context {
                AdditionalContext::Recipe(file) => NamedContext::Recipe(file.clone()),
                AdditionalContext::Image(name) => NamedContext::Image(reference(name)?),
                AdditionalContext::Directory(path) => NamedContext::Directory(path.clone()),
                AdditionalContext::Service(service) => {
                    NamedContext::Image(reference(&image_name(application, service))?)
                }
            };
            request.named_contexts.insert(name.clone(), context);
        }
        Ok(request)
    }
}

impl Source {
    /// Understands the arguments of `carrack build`.
    #[expect(clippy::too_many_arguments, reason = "each is one flag of the command")]
    pub(crate) fn from_command_line(
        context: &Path,
        file: Option<&Path>,
        tags: &[String],
        arguments: &[String],
        contexts: &[String],
        target: Option<&str>,
        network: &str,
        no_cache: bool,
    ) -> anyhow::Result<Self> {
        let tags = tags.iter().map(|tag| reference(tag)).collect::<Result<Vec<_>, _>>()?;
        let is_recipe =
            context.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if is_recipe && context.is_file() {
            return Ok(Self::Recipe { file: context.to_path_buf(), tags });
        }
        let mut request = BuildRequest::new(std::path::absolute(context)?);
        if let Some(file) = file {
            request.dockerfile = DockerfileSource::Path(std::path::absolute(file)?);
        }
        request.tags = tags;
        request.args = crate::cli::run::variables(arguments).into_iter().collect();
        request.target = target.map(str::to_owned);
        request.no_cache = no_cache;
        request.network = match network {
            "default" => RunNetwork::Default,
            "none" => RunNetwork::None,
            "host" => RunNetwork::Host,
            other => {
                return Err(exit::usage(format!(
                    "`--network {other}` is none of default, none, host"
                )));
            }
        };
        for text in contexts {
            let (name, value) = text.split_once('=').ok_or_else(|| {
                exit::usage(format!("`--build-context {text}` is not understood; write NAME=VALUE"))
            })?;
            request.named_contexts.insert(name.to_owned(), named_context(value)?);
        }
        Ok(Self::Dockerfile(Box::new(request)))
    }
}

fn named_context(value: &str) -> anyhow::Result<NamedContext> {
    if let Some(file) = value.strip_prefix("recipe://") {
        return Ok(NamedContext::Recipe(std::path::absolute(file)?));
    }
    if let Some(name) = value.strip_prefix("docker-image://") {
        return Ok(NamedContext::Image(reference(name)?));
    }
    if value.contains("://") {
        return Err(exit::usage(format!(
            "the context `{value}` is not supported; use recipe://FILE, docker-image://NAME or a directory"
        )));
    }
    Ok(NamedContext::Directory(std::path::absolute(value)?))
}

/// Stops the build's container when the person stops the command; asked again, or when
/// nothing is built any more, ends the command at once.
fn interrupt_on_signal(interrupter: &Interrupter, building: &AtomicBool) {
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(executor) = executor else { return };
    for asked in 1..=2 {
        if executor.block_on(super::asked_to_end()).is_err() {
            return;
        }
        if asked == 2 || !building.load(Ordering::Relaxed) {
            break;
        }
        crate::output::message("stopping the build; interrupt again to end at once");
        interrupter.interrupt();
    }
    #[expect(clippy::exit, reason = "as asked; the next build takes down what is left over")]
    std::process::exit(i32::from(exit::INTERRUPTED));
}

/// What the image of a service is called: as its `image` says, or, when it is built and
/// nothing is said, after the project and the service.
pub(crate) fn image_name(application: &Application, service: &str) -> String {
    let named = application.services.get(service).and_then(|service| service.image.clone());
    named.unwrap_or_else(|| format!("{}-{service}", application.name))
}

/// The services to build, each after those it is built from.
fn order(application: &Application, only: &[String]) -> anyhow::Result<Vec<String>> {
    let mut ordered = Vec::new();
    let mut pending = Vec::new();
    for name in application.services.keys() {
        if only.is_empty() || is_wanted(application, only, name) {
            visit(application, name, &mut pending, &mut ordered)?;
        }
    }
    Ok(ordered)
}

/// Whether `name` is asked for, or something asked for depends on it.
fn is_wanted(application: &Application, only: &[String], name: &str) -> bool {
    let mut reached: Vec<&str> = only.iter().map(String::as_str).collect();
    let mut next = 0;
    while let Some(&current) = reached.get(next) {
        next += 1;
        let Some(service) = application.services.get(current) else { continue };
        for dependency in service.depends_on.keys() {
            if !reached.contains(&dependency.as_str()) {
                reached.push(dependency);
            }
        }
    }
    reached.contains(&name)
}

fn visit(
    application: &Application,
    name: &str,
    pending: &mut Vec<String>,
    ordered: &mut Vec<String>,
) -> anyhow::Result<()> {
    if ordered.iter().any(|done| done == name) {
        return Ok(());
    }
    if pending.iter().any(|waiting| waiting == name) {
        return Err(exit::usage(format!("the builds of {} need each other", pending.join(", "))));
    }
    pending.push(name.to_owned());
    let build = application.services.get(name).and_then(|service| service.build.as_ref());
    for context in build.iter().flat_map(|build| build.additional_contexts.values()) {
        if let AdditionalContext::Service(needed) = context {
            visit(application, needed, pending, ordered)?;
        }
    }
    pending.pop();
    ordered.push(name.to_owned());
    Ok(())
}

/// A build's events as one task on the display.
struct Shown<'a> {
    display: &'a Display,
    task: &'a str,
    /// The steps that were started, by number, for the line that says they were cached.
    names: Mutex<BTreeMap<usize, String>>,
    /// Bytes here and bytes in all of each file that is fetched, shown as one bar.
    fetched: Mutex<BTreeMap<String, (u64, u64)>>,
}

impl<'a> Shown<'a> {
    fn new(display: &'a Display, task: &'a str) -> Self {
        Self { display, task, names: Mutex::default(), fetched: Mutex::default() }
    }

    fn name(&self, number: usize) -> String {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.get(&number).cloned().unwrap_or_default()
    }
}

impl Shown<'_> {
    /// One bar for everything an image needs, and what is coming in now beside it.
    fn fetching(&self, name: String, done: u64, total: u64) {
        let shown = name.rsplit('/').next().unwrap_or(&name).to_owned();
        let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        fetched.insert(name, (done, total));
        let sum = |of: fn(&(u64, u64)) -> u64| fetched.values().map(of).sum();
        self.display.moved(self.task, &shown, sum(|file| file.0), sum(|file| file.1));
    }
}

impl Progress for Shown<'_> {
    fn event(&self, event: BuildEvent) {
        match event {
            BuildEvent::StepStarted { number, name, .. } => {
                let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
                if self.display.is_live() {
                    self.display.doing(self.task, &name);
                }
                names.insert(number, name);
            }
            BuildEvent::StepOutput { bytes, .. } if self.display.shows_output() => {
                crate::output::raw_stderr(&bytes).ok(); // A closed pipe: the build goes on.
            }
            BuildEvent::StepDone { number, cached: true, .. } => {
                self.display.doing(self.task, &format!("CACHED {}", self.name(number)));
            }
            BuildEvent::StepDone { number, millis, .. } => {
                self.display.doing(self.task, &format!("{} ({millis} ms)", self.name(number)));
            }
            BuildEvent::Download { name, done, total } => self.fetching(name, done, total),
            BuildEvent::Message(text) => self.display.say(&format!("{}: {text}", self.task)),
            _ => {}
        }
    }
}

/// A build's refusal: what is wrong with a Dockerfile is exit code 2, with each place.
fn refusal(error: BuildError) -> anyhow::Error {
    match error {
        BuildError::Dockerfile(problems) => {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            exit::usage(lines.join("\n"))
        }
        error => error.into(),
    }
}

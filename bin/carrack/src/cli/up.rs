//! `carrack up` and `carrack down`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use carrack_control::api::PolicyFile;
use carrack_engine::api::{DownRequest, Event, LogsRequest, Recreate, Stage, UpRequest};
use carrack_engine::client::{EngineClient, Lines};
use carrack_objects::compose::Application;
use carrack_objects::mesh::{AppProtocol, Published};
use carrack_oci::Digest;
use futures_util::StreamExt as _;

use super::application::Which;
use super::{daemon, policy, streams};
use crate::compose::building::{Builds, image_name};
use crate::output;
use crate::output::progress::{Display, Mode};
use crate::settings::Settings;

/// Build, start and connect the application in a directory
#[derive(Debug, clap::Args)]
#[command(after_help = "Policies in `policies/` beside the Compose file are put in force.\n\
    `up` returns when everything is started; --attach shows what it writes.")]
pub(crate) struct UpArgs {
    #[command(flatten)]
    which: Which,
    /// Return when everything is started (this is so anyway; Docker's spelling)
    #[arg(short, long, conflicts_with = "attach")]
    detach: bool,
    /// Show what the containers write until interrupted; they go on
    #[arg(short, long)]
    attach: bool,
    /// Build images again where their inputs changed (this is so anyway; Docker's spelling)
    #[arg(long, conflicts_with = "no_build")]
    build: bool,
    /// Use the images that are there
    #[arg(long)]
    no_build: bool,
    /// Look for newer packages even when the lists are young
    #[arg(long)]
    pull: bool,
    /// Return when everything runs and is healthy where it can tell
    #[arg(long)]
    wait: bool,
    /// Create, but do not start
    #[arg(long)]
    no_start: bool,
    /// Make every container anew
    #[arg(long, conflicts_with = "no_recreate")]
    force_recreate: bool,
    /// Leave containers as they are even when their settings changed
    #[arg(long)]
    no_recreate: bool,
    /// Remove containers of services the file no longer has
    #[arg(long)]
    remove_orphans: bool,
    /// So many containers of a service, in place of what the file says
    #[arg(long, value_name = "SERVICE=COUNT")]
    scale: Vec<String>,
    /// Only these services and what they depend on; may be given more than once
    #[arg(long = "service", value_name = "NAME")]
    services: Vec<String>,
    /// How progress is shown
    #[arg(long, value_enum, default_value = "auto")]
    progress: Mode,
}

impl UpArgs {
    /// Builds without an executor, because building blocks; then starts with one.
    pub(crate) fn execute(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let mut application = self.which.read()?;
        for name in application.services.keys().cloned().collect::<Vec<_>>() {
            let image = image_name(&application, &name);
            application.services[&name].image = Some(image);
        }
        let policies = policy::read_files(&self.which.policy_files()?)?;
        let display = Display::new(self.progress);
        let images = if self.no_build {
            BTreeMap::new()
        } else {
            let builds = Builds::open(settings, self.pull)?;
            builds.application(&application, &self.services, &display)?
        };
        super::block_on(self.start(settings, application, images, &policies, display))
    }

    async fn start(
        self,
        settings: &Settings,
        application: Application,
        images: BTreeMap<String, Digest>,
        policies: &[PolicyFile],
        display: Display,
    ) -> anyhow::Result<ExitCode> {
        let client = daemon::client(settings).await?;
        policy::replace(settings, &application.name, policies, &display).await?;
        let project = application.name.clone();
        let request = self.request(application, images)?;
        let events = client.up(&request).await.map_err(streams::refusal)?;
        let published = show(events, &display).await?;
        drop(display);
        print_places(settings, &published);
        if self.attach {
            follow(&client, &project).await?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn request(
        &self,
        application: Application,
        images: BTreeMap<String, Digest>,
    ) -> anyhow::Result<UpRequest> {
        let mut request = UpRequest::new(application, images);
        request.services.clone_from(&self.services);
        request.recreate = match (self.force_recreate, self.no_recreate) {
            (true, _) => Recreate::Always,
            (_, true) => Recreate::Never,
            _ => Recreate::Changed,
        };
        request.remove_orphans = self.remove_orphans;
        request.no_start = self.no_start;
        request.wait = self.wait;
        for text in &self.scale {
            let parsed =
                text.split_once('=').and_then(|(name, count)| Some((name, count.parse().ok()?)));
            let (name, count) = parsed.ok_or_else(|| {
                crate::exit::usage(format!(
                    "`--scale {text}` is not understood; write SERVICE=COUNT"
                ))
            })?;
            request.scale.insert(name.to_owned(), count);
        }
        Ok(request)
    }
}

/// Stop and remove an application
#[derive(Debug, clap::Args)]
pub(crate) struct DownArgs {
    #[command(flatten)]
    which: Which,
    /// Remove its named volumes too
    #[arg(short, long)]
    volumes: bool,
    /// Seconds a container may take to stop, in place of its own grace period
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// How progress is shown
    #[arg(long, value_enum, default_value = "auto")]
    progress: Mode,
}

impl DownArgs {
    pub(crate) async fn execute(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        // The name is enough: a Compose file that is broken or gone does not keep things running.
        let project = match &self.which.project {
            Some(project) => project.clone(),
            None => self.which.read()?.name,
        };
        let client = daemon::client(settings).await?;
        let request = DownRequest {
            volumes: self.volumes,
            stop_timeout: self.timeout.map(Duration::from_secs),
            services: Vec::new(),
        };
        let display = Display::new(self.progress);
        let events = client.down(&project, &request).await.map_err(streams::refusal)?;
        show(events, &display).await?;
        policy::replace(settings, &project, &[], &display).await?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Shows events until the last, and answers which host ports lead in.
async fn show(
    mut events: Lines<Event>,
    display: &Display,
) -> anyhow::Result<BTreeMap<String, Vec<Published>>> {
    while let Some(event) = events.next().await.map_err(streams::refusal)? {
        match event {
            Event::Container { name, stage, detail } => container(display, &name, stage, detail),
            Event::NetworkCreated { name } => display.done(&format!("network {name}"), "created"),
            Event::NetworkRemoved { name } => display.done(&format!("network {name}"), "removed"),
            Event::VolumeCreated { name } => display.done(&format!("volume {name}"), "created"),
            Event::VolumeRemoved { name } => display.done(&format!("volume {name}"), "removed"),
            Event::Warning { message } => display.say(&format!("warning: {message}")),
            Event::Done { published } => return Ok(published),
            Event::Planned { .. } | Event::Failed { .. } => {}
        }
    }
    anyhow::bail!("the engine's answer ended before it said that it is done")
}

fn container(display: &Display, name: &str, stage: Stage, detail: Option<String>) {
    let (word, is_last) = match stage {
        Stage::Kept => ("running already", true),
        Stage::Waiting => ("waiting", false),
        Stage::Creating => ("creating", false),
        Stage::Created => ("created", false),
        Stage::Starting => ("starting", false),
        Stage::Started => ("started", true),
        Stage::Healthy => ("healthy", true),
        Stage::Completed => ("completed", true),
        Stage::Stopping => ("stopping", false),
        Stage::Stopped => ("stopped", true),
        Stage::Removing => ("removing", false),
        Stage::Removed => ("removed", true),
    };
    let text = detail.map_or_else(|| word.to_owned(), |detail| format!("{word}: {detail}"));
    if is_last { display.done(name, &text) } else { display.doing(name, &text) }
}

fn print_places(settings: &Settings, published: &BTreeMap<String, Vec<Published>>) {
    for (service, ports) in published {
        for port in ports {
            let address = std::net::SocketAddr::new(port.host, port.host_port);
            match port.protocol {
                Some(AppProtocol::Http) => {
                    output::line(format_args!("{service}: http://{address}/"))
                }
                _ => output::line(format_args!("{service}: {address}")),
            }
        }
    }
    output::line(format_args!("page: http://127.0.0.1:{}/", settings.page_port));
}

/// Shows what the project's containers write until Ctrl-C.
async fn follow(client: &EngineClient, project: &str) -> anyhow::Result<()> {
    let containers = client.ps(false, Some(project)).await?;
    let request = LogsRequest { follow: true, tail: Some(0), ..LogsRequest::default() };
    let mut logs = futures_util::stream::SelectAll::new();
    for container in containers {
        let lines = client.logs(&container.id, &request).await?;
        logs.push(lines.map(move |line| (container.name.clone(), line)));
    }
    while let Some((name, line)) = logs.next().await {
        output::line(format_args!("{name} | {}", line?.text));
    }
    Ok(())
}

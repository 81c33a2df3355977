//! `carrack build`.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use crate::compose::building::{Builds, Source};
use crate::output::progress::{Display, Mode};
use crate::output::{self, Format};
use crate::settings::Settings;

/// Build an image from a Dockerfile or a package recipe
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    carrack build -t shop-api examples/shop/api --build-context python=recipe://examples/shop/images/python.yaml\n  \
    carrack build -t python examples/shop/images/python.yaml")]
pub(crate) struct BuildArgs {
    /// Name of the result; may be given more than once
    #[arg(short, long = "tag", value_name = "NAME")]
    tags: Vec<String>,
    /// Dockerfile [default: Dockerfile in the context]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Set a build argument; without a value, take it from here
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    build_args: Vec<String>,
    /// Name a context for FROM and COPY --from: recipe://FILE, docker-image://NAME or a directory
    #[arg(long = "build-context", value_name = "NAME=VALUE")]
    build_contexts: Vec<String>,
    /// Stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Run every step again
    #[arg(long)]
    no_cache: bool,
    /// Look for newer packages even when the lists are young
    #[arg(long)]
    pull: bool,
    /// Network of RUN steps: default, none or host
    #[arg(long, default_value = "default")]
    network: String,
    /// How progress is shown
    #[arg(long, value_enum, default_value = "auto")]
    progress: Mode,
    /// Print only the digest
    #[arg(short, long)]
    quiet: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Directory of files to copy from, or a package recipe (*.yaml)
    context: PathBuf,
}

impl BuildArgs {
    pub(crate) fn execute(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let mode = if self.quiet { Mode::Quiet } else { self.progress };
        let display = Display::new(mode);
        let builds = Builds::open(settings, self.pull)?;
        let built = builds.run(&self.source()?, &display)?;
        match self.format {
            Format::Json => output::json(&json!({
                "digest": built.digest.to_string(),
                "names": built.names,
                "steps_run": built.steps_run,
                "steps_cached": built.steps_cached,
            }))?,
            Format::Table => output::line(&built.digest),
        }
        Ok(ExitCode::SUCCESS)
    }

    fn source(&self) -> anyhow::Result<Source> {
        Source::from_command_line(
            &self.context,
            self.file.as_deref(),
            &self.tags,
            &self.build_args,
            &self.build_contexts,
            self.target.as_deref(),
            &self.network,
            self.no_cache,
        )
    }
}

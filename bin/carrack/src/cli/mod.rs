//! The command line: a file per command. Each turns arguments into one
//! request, makes one library call and renders one answer.

mod application;
mod build;
mod daemon;
mod doctor;
mod exec;
mod graph;
pub(crate) mod images;
mod inspect;
mod lifecycle;
mod logs;
mod policy;
mod ports;
mod ps;
#[cfg(test)]
mod reference;
pub(crate) mod run;
mod stats;
mod streams;
mod up;
mod why;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::compose;
use crate::settings::{self, Settings};

/// Builds, stores, runs and connects containers.
#[derive(Debug, Parser)]
#[command(
    name = "carrack",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = "Examples:\n  \
        carrack up examples/shop        build, start and connect an application\n  \
        carrack ps                      what runs\n  \
        carrack graph                   who calls whom\n  \
        carrack why 3f2a9c01b7d4e655    why a call was refused\n  \
        carrack down examples/shop      stop and remove it"
)]
struct Cli {
    #[command(flatten)]
    places: Places,
    #[command(subcommand)]
    verb: Verb,
}

/// Where Carrack keeps things; the same for every verb.
#[derive(Debug, clap::Args)]
struct Places {
    /// Directory for what outlives a reboot
    #[arg(
        long,
        global = true,
        env = "CARRACK_ROOT",
        default_value = "/var/lib/carrack",
        value_name = "DIR",
        hide_env_values = true
    )]
    root: PathBuf,
    /// Directory for sockets, mounts and bundles
    #[arg(
        long,
        global = true,
        env = "CARRACK_RUN",
        default_value = "/run/carrack",
        value_name = "DIR",
        hide_env_values = true
    )]
    run_dir: PathBuf,
    /// The static runtime [default: carrack-runtime beside this program]
    #[arg(
        long,
        global = true,
        env = "CARRACK_RUNTIME",
        value_name = "FILE",
        hide_env_values = true
    )]
    runtime_program: Option<PathBuf>,
    /// Loopback port of the page, the graph and the metrics
    #[arg(
        long,
        global = true,
        env = "CARRACK_PAGE_PORT",
        default_value_t = 4090,
        value_name = "PORT",
        hide_env_values = true
    )]
    page_port: u16,
    /// Trust domain of the identities issued here
    #[arg(
        long,
        global = true,
        env = "CARRACK_TRUST_DOMAIN",
        default_value = "carrack.internal",
        value_name = "NAME",
        hide_env_values = true
    )]
    trust_domain: String,
}

impl Places {
    fn resolve(self) -> anyhow::Result<Settings> {
        let runtime_program = match self.runtime_program {
            Some(program) => program,
            None => settings::find_runtime()?,
        };
        Ok(Settings {
            root: std::path::absolute(self.root)?,
            run: std::path::absolute(self.run_dir)?,
            runtime_program: std::path::absolute(runtime_program)?,
            page_port: self.page_port,
            trust_domain: self.trust_domain,
        })
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build, start and connect the application in a directory
    Up(up::UpArgs),
    /// Stop and remove an application
    Down(up::DownArgs),
    /// List containers
    Ps(ps::PsArgs),
    /// Show what containers wrote
    Logs(logs::LogsArgs),
    /// Run a command in a running container
    Exec(exec::ExecArgs),
    /// Run a command in a new container
    Run(Box<run::RunArgs>),
    /// Start stopped containers
    Start(lifecycle::NamesArgs),
    /// Stop containers: their stop signal, then SIGKILL when the grace is over
    Stop(lifecycle::StopArgs),
    /// Stop containers and start them again
    Restart(lifecycle::StopArgs),
    /// Send containers a signal
    Kill(lifecycle::KillArgs),
    /// Wait for containers to end, and print their exit codes
    Wait(lifecycle::NamesArgs),
    /// Remove containers
    Rm(lifecycle::RemoveArgs),
    /// Show what containers use, live
    Stats(stats::StatsArgs),
    /// Show who can reach which published port
    Port(ports::PortsArgs),
    /// Show who calls whom, how often, how fast and how well
    Graph(graph::GraphArgs),
    /// Explain a refused call by its id
    Why(why::WhyArgs),
    /// Put traffic policies in force
    Apply(policy::ApplyArgs),
    /// Withdraw traffic policies
    Delete(policy::DeleteArgs),
    /// List the traffic policies in force
    Get(policy::GetArgs),
    /// Build an image from a Dockerfile or a package recipe
    Build(build::BuildArgs),
    /// List images
    Images(images::ImagesArgs),
    /// Show everything known of an image or a container, as JSON
    Inspect(inspect::InspectArgs),
    /// Write images to an OCI archive
    Save(images::SaveArgs),
    /// Read images from an OCI or Docker archive
    Load(images::LoadArgs),
    /// Give an image another name
    Tag(images::TagArgs),
    /// Remove image names, and what nothing else uses
    Rmi(images::RemoveArgs),
    /// Say what this host lacks for containers, and what to do
    Doctor(doctor::DoctorArgs),
    /// Print the completion script of a shell
    Completion {
        /// The shell to complete for
        shell: clap_complete::Shell,
    },
    /// End the daemon and the node proxy; containers go on
    Shutdown(daemon::ShutdownArgs),
    /// Serve the engine, the identities, the policies and the page
    #[command(hide = true)]
    Daemon,
    /// Carry the connections of this node's containers
    #[command(hide = true)]
    Proxy,
    /// Keep the daemon and the node proxy running
    #[command(hide = true)]
    Keeper,
}

/// Reads the command line and does what it says.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    if let Verb::Completion { shell } = cli.verb {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "carrack", &mut script);
        crate::output::raw(&script).ok(); // A closed pipe ends `| head`.
        return Ok(ExitCode::SUCCESS);
    }
    // It looks at hosts on which nothing else works yet.
    if let Verb::Doctor(arguments) = cli.verb {
        return arguments.execute(&cli.places.root);
    }
    let settings = cli.places.resolve()?;
    match cli.verb {
        Verb::Daemon => compose::daemon::run(&settings),
        Verb::Proxy => compose::proxy::run(&settings),
        Verb::Keeper => compose::keeper::run(&settings).map(|()| ExitCode::SUCCESS),
        Verb::Up(arguments) => arguments.execute(&settings),
        Verb::Build(arguments) => arguments.execute(&settings),
        Verb::Images(arguments) => arguments.execute(&settings),
        Verb::Save(arguments) => arguments.execute(&settings),
        Verb::Load(arguments) => arguments.execute(&settings),
        Verb::Tag(arguments) => arguments.execute(&settings),
        Verb::Shutdown(arguments) => arguments.execute(&settings),
        verb => block_on(async_verb(verb, &settings)),
    }
}

async fn async_verb(verb: Verb, settings: &Settings) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Down(arguments) => arguments.execute(settings).await,
        Verb::Ps(arguments) => arguments.execute(settings).await,
        Verb::Logs(arguments) => arguments.execute(settings).await,
        Verb::Exec(arguments) => arguments.execute(settings).await,
        Verb::Run(arguments) => arguments.execute(settings).await,
        Verb::Start(arguments) => arguments.start(settings).await,
        Verb::Stop(arguments) => arguments.stop(settings).await,
        Verb::Restart(arguments) => arguments.restart(settings).await,
        Verb::Kill(arguments) => arguments.execute(settings).await,
        Verb::Wait(arguments) => arguments.wait(settings).await,
        Verb::Rm(arguments) => arguments.execute(settings).await,
        Verb::Stats(arguments) => arguments.execute(settings).await,
        Verb::Port(arguments) => arguments.execute(settings).await,
        Verb::Graph(arguments) => arguments.execute(settings).await,
        Verb::Why(arguments) => arguments.execute(settings).await,
        Verb::Apply(arguments) => arguments.execute(settings).await,
        Verb::Delete(arguments) => arguments.execute(settings).await,
        Verb::Get(arguments) => arguments.execute(settings).await,
        Verb::Inspect(arguments) => arguments.execute(settings).await,
        Verb::Rmi(arguments) => arguments.execute(settings).await,
        Verb::Up(_)
        | Verb::Shutdown(_)
        | Verb::Build(_)
        | Verb::Images(_)
        | Verb::Save(_)
        | Verb::Load(_)
        | Verb::Tag(_)
        | Verb::Doctor(_)
        | Verb::Completion { .. }
        | Verb::Daemon
        | Verb::Proxy
        | Verb::Keeper => Ok(ExitCode::SUCCESS), // Answered in `run`, without an executor.
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = executor.block_on(work);
    // A thread that still reads stdin must not hold up the end.
    executor.shutdown_background();
    outcome
}

//! `carrack ps`.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use carrack_engine::api::{ContainerSummary, Status};
use carrack_objects::mesh::Published;
use jiff::Timestamp;

use super::daemon;
use crate::output::table::Table;
use crate::output::{self, Format, units};
use crate::settings::Settings;

/// List containers
#[derive(Debug, clap::Args)]
pub(crate) struct PsArgs {
    /// Those that do not run, too
    #[arg(short, long)]
    all: bool,
    /// Ids only
    #[arg(short, long)]
    quiet: bool,
    /// Of this project only
    #[arg(short, long, value_name = "NAME")]
    project: Option<String>,
    /// Do not cut ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// How to print them
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

impl PsArgs {
    pub(crate) async fn execute(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let containers = match daemon::running_client(settings).await {
            Some(client) => client.ps(self.all, self.project.as_deref()).await?,
            // Records without a daemon still count: start it and ask.
            None if settings.root.join("engine").exists() => {
                let client = daemon::client(settings).await?;
                client.ps(self.all, self.project.as_deref()).await?
            }
            None => Vec::new(),
        };
        match (self.quiet, self.format) {
            (true, _) => containers.iter().for_each(|one| output::line(self.id(one))),
            (false, Format::Json) => output::json(&containers)?,
            (false, Format::Table) => self.table(&containers).print(),
        }
        Ok(ExitCode::SUCCESS)
    }

    fn table(&self, containers: &[ContainerSummary]) -> Table {
        let headings = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
        let mut table = Table::new(&headings);
        for container in containers {
            table.row([
                self.id(container),
                container.image.clone(),
                self.command(container),
                format!("{} ago", since(container.created)),
                status(container),
                ports(container),
                container.name.clone(),
            ]);
        }
        table
    }

    fn id(&self, container: &ContainerSummary) -> String {
        let length = if self.no_trunc { usize::MAX } else { 12 };
        container.id.chars().take(length).collect()
    }

    fn command(&self, container: &ContainerSummary) -> String {
        let whole = container.command.join(" ");
        if self.no_trunc || whole.chars().count() <= 20 {
            return format!("\"{whole}\"");
        }
        format!("\"{}…\"", whole.chars().take(19).collect::<String>())
    }
}

fn since(moment: Timestamp) -> String {
    let elapsed = Timestamp::now().duration_since(moment);
    units::age(Duration::try_from(elapsed).unwrap_or_default())
}

/// What Docker writes in its STATUS column.
fn status(container: &ContainerSummary) -> String {
    let health =
        container.health.map(|health| format!(" ({})", health.as_str())).unwrap_or_default();
    match (container.status, container.started, container.exit) {
        (Status::Running, Some(started), _) => format!("Up {}{health}", since(started)),
        (Status::Paused, Some(started), _) => format!("Up {} (Paused)", since(started)),
        (Status::Exited, _, Some(exit)) => format!("Exited ({}) {} ago", exit.code, since(exit.at)),
        (Status::Restarting, _, Some(exit)) => format!("Restarting ({})", exit.code),
        (status, _, _) => {
            let word = status.as_str();
            let mut letters = word.chars();
            let first = letters.next().map(|letter| letter.to_ascii_uppercase());
            first.into_iter().chain(letters).collect()
        }
    }
}

fn ports(container: &ContainerSummary) -> String {
    let published: BTreeSet<String> = container.published.iter().map(published).collect();
    let reached: BTreeSet<u16> =
        container.published.iter().map(|port| port.container_port).collect();
    let exposed = container.exposed.iter().filter(|port| !reached.contains(port));
    let exposed = exposed.map(|port| format!("{port}/tcp"));
    published.into_iter().chain(exposed).collect::<Vec<_>>().join(", ")
}

/// `127.0.0.1:8080->80/tcp`, as Docker writes it.
pub(crate) fn published(port: &Published) -> String {
    let host = std::net::SocketAddr::new(port.host, port.host_port);
    format!("{host}->{}/tcp", port.container_port)
}

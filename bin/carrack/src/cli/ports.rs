//! `carrack port`: what is published, and who can reach it.

use std::net::IpAddr;
use std::process::ExitCode;

use serde::Serialize;

use super::daemon;
use crate::output::table::Table;
use crate::output::{self, Format};
use crate::settings::Settings;

/// Show who can reach which published port
#[derive(Debug, clap::Args)]
pub(crate) struct PortsArgs {
    /// How to print them
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Name of a container [default: all]
    container: Option<String>,
}

#[derive(Debug, Serialize)]
struct Line {
    container: String,
    container_port: u16,
    address: IpAddr,
    port: u16,
    reachable_from: &'static str,
}

impl PortsArgs {
    pub(crate) async fn execute(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let client = daemon::client(settings).await?;
        let containers = client.ps(false, None).await?;
        let asked = containers
            .iter()
            .filter(|one| self.container.as_ref().is_none_or(|name| one.name == *name));
        let mut lines = Vec::new();
        for container in asked {
            for port in &container.published {
                lines.push(Line {
                    container: container.name.clone(),
                    container_port: port.container_port,
                    address: port.host,
                    port: port.host_port,
                    reachable_from: scope(port.host),
                });
            }
        }
        match self.format {
            Format::Json => output::json(&lines)?,
            Format::Table => table(&lines).print(),
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn table(lines: &[Line]) -> Table {
    let mut table = Table::new(&["CONTAINER", "PORT", "LISTENS ON", "REACHABLE FROM"]);
    for line in lines {
        table.row([
            line.container.clone(),
            format!("{}/tcp", line.container_port),
            std::net::SocketAddr::new(line.address, line.port).to_string(),
            line.reachable_from.to_owned(),
        ]);
    }
    table
}

/// Who can reach a listener on `address`, as far as the address says.
fn scope(address: IpAddr) -> &'static str {
    let is_private = match address {
        IpAddr::V4(address) => address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local(),
    };
    match address {
        _ if address.is_loopback() => "this machine",
        _ if address.is_unspecified() => "every network this machine is in",
        _ if is_private => "its local network",
        _ => "the internet",
    }
}

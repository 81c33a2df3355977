//! `carrack graph`: who calls whom, in the terminal.

use std::process::ExitCode;

use carrack_observe::client::ObserveClient;
use carrack_observe::{Edge, Place};

use super::daemon;
use crate::output::table::Table;
use crate::output::{self, Format, units};
use crate::settings::Settings;

/// Show who calls whom, how often, how fast and how well
#[derive(Debug, clap::Args)]
pub(crate) struct GraphArgs {
    /// Of this project only
    #[arg(short, long, value_name = "NAME")]
    project: Option<String>,
    /// How to print it
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

impl GraphArgs {
    pub(crate) async fn execute(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        daemon::client(settings).await?;
        let mut graph = ObserveClient::new(settings.observe_socket()).graph().await?;
        if let Some(project) = &self.project {
            let is_of = |place: &Place| place.namespace == *project;
            graph.nodes.retain(|node| is_of(&node.place));
            graph.edges.retain(|edge| is_of(&edge.source) || is_of(&edge.destination));
        }
        if self.format == Format::Json {
            output::json(&graph)?;
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(trouble) = graph.proxy.trouble.as_ref().filter(|_| !graph.proxy.answers) {
            output::message(format_args!(
                "what follows may be old: the node proxy does not answer: {trouble}"
            ));
        }
        table(&graph.edges).print();
        Ok(ExitCode::SUCCESS)
    }
}

fn table(edges: &[Edge]) -> Table {
    let headings = ["SOURCE", "DESTINATION", "PROTOCOL", "RATE", "ERRORS", "P50", "P99", "TOTAL"];
    let mut table = Table::new(&headings);
    for edge in edges {
        let time = |value: Option<f64>| value.map_or("-".to_owned(), units::millis);
        table.row([
            place(&edge.source),
            place(&edge.destination),
            edge.protocol.clone(),
            format!("{:.1}/s", edge.rate),
            format!("{:.1}%", edge.error_ratio * 100.0),
            time(edge.p50_ms),
            time(edge.p99_ms),
            edge.total.to_string(),
        ]);
    }
    table
}

fn place(place: &Place) -> String {
    match (place.namespace.as_str(), place.service.as_str()) {
        ("", "") => "outside".to_owned(),
        ("", service) => service.to_owned(),
        (namespace, service) => format!("{namespace}/{service}"),
    }
}

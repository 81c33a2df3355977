//! `carrack stats`.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use carrack_engine::api::{Stats, StatsRequest};

use super::daemon;
use crate::output::table::Table;
use crate::output::{self, Format, units};
use crate::settings::Settings;

/// Show what containers use, live
#[derive(Debug, clap::Args)]
pub(crate) struct StatsArgs {
    /// Print one reading and end
    #[arg(long)]
    no_stream: bool,
    /// Of this project only
    #[arg(short, long, value_name = "NAME")]
    project: Option<String>,
    /// `json` prints one list per reading
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Names or ids of containers [default: all that run]
    containers: Vec<String>,
}

impl StatsArgs {
    pub(crate) async fn execute(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let client = daemon::client(settings).await?;
        let request = StatsRequest {
            containers: self.containers,
            project: self.project,
            // One reading alone has no rate: take two and show the second.
            once: false,
        };
        let mut readings = client.stats(&request).await?;
        let mut count = 0;
        while let Some(reading) = readings.next().await? {
            count += 1;
            if self.no_stream && count < 2 && !reading.is_empty() {
                continue;
            }
            match self.format {
                Format::Json => output::line(serde_json::to_string(&reading)?),
                Format::Table => show(&reading, !self.no_stream),
            }
            if self.no_stream {
                break;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn show(reading: &[Stats], live: bool) {
    let mut table =
        Table::new(&["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "PIDS"]);
    for one in reading {
        let limit = one.memory_limit.map_or("-".to_owned(), units::memory);
        table.row([
            one.id.chars().take(12).collect(),
            one.name.clone(),
            one.cpu_percent.map_or("-".to_owned(), |percent| format!("{percent:.2}%")),
            format!("{} / {limit}", units::memory(one.memory_bytes)),
            one.memory_limit.map_or("-".to_owned(), |limit| percent(one.memory_bytes, limit)),
            one.pids.to_string(),
        ]);
    }
    if live && std::io::stdout().is_terminal() {
        output::raw(b"\x1b[2J\x1b[H").ok(); // A closed pipe ends the stream below.
    }
    table.print();
}

fn percent(part: u64, whole: u64) -> String {
    let hundredths = part.saturating_mul(10_000).checked_div(whole).unwrap_or(0);
    format!("{}.{:02}%", hundredths / 100, hundredths % 100)
}

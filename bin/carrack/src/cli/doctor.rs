//! `carrack doctor`.

use std::path::Path;
use std::process::ExitCode;

use carrack_linux::host::Host;

use crate::doctor::{self, Finding, Status};
use crate::exit;
use crate::output::table::Table;
use crate::output::{self, Format};

/// Say what this host lacks for containers, and what to do
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// `json` prints one list
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

impl DoctorArgs {
    /// Looks at the host. No other thread may run, as some things are tried in children.
    pub(crate) fn execute(self, root: &Path) -> anyhow::Result<ExitCode> {
        let findings = doctor::findings(&Host::observe(root));
        match self.format {
            Format::Json => output::json(&findings)?,
            Format::Table => show(&findings),
        }
        let missing = findings.iter().any(|finding| finding.status == Status::Missing);
        Ok(if missing { ExitCode::from(exit::PRECONDITION) } else { ExitCode::SUCCESS })
    }
}

/// What was looked at, and below, apart, what to do: sentences do not fit into columns.
fn show(findings: &[Finding]) {
    let mut table = Table::new(&["", "NAME", "FOUND", "NEEDED FOR"]);
    for finding in findings {
        let cells = [word(finding.status), &finding.name, &finding.found, &finding.needed_for];
        table.row(cells.map(ToOwned::to_owned));
    }
    table.print();
    let remedies = findings.iter().filter_map(|finding| {
        let remedy = finding.remedy.as_ref()?;
        Some((finding.status, &finding.name, remedy))
    });
    let mut remedies: Vec<_> = remedies.collect();
    // The worst first; a stable sort keeps the order within.
    remedies.sort_by_key(|remedy| std::cmp::Reverse(remedy.0));
    if remedies.is_empty() {
        output::line("\nNothing is missing.");
        return;
    }
    output::line("\nWhat to do:");
    for (status, name, remedy) in remedies {
        output::line(format!("  {} {name}: {remedy}", word(status)));
    }
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Warning => "warning",
        Status::Missing => "MISSING",
    }
}

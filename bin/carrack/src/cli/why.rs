//! `carrack why ID`: the policy, file and line, and the value that did or did
//! not match.

use std::process::ExitCode;

use anyhow::Context as _;
use carrack_observe::Explanation;
use carrack_observe::client::ObserveClient;
use carrack_telemetry::access::{Evidence, Outcome, Peer, Record};

use super::daemon;
use crate::output::{self, Format};
use crate::settings::Settings;

/// Explain a refused call by its id
#[derive(Debug, clap::Args)]
pub(crate) struct WhyArgs {
    /// How to print it
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// The id a refusal carries, or any id of the access log
    id: String,
}

impl WhyArgs {
    pub(crate) async fn execute(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        daemon::client(settings).await?;
        let client = ObserveClient::new(settings.observe_socket());
        let explanation = client.why(&self.id).await?.with_context(|| {
            format!("no record of {} is left; the access log keeps the newest 64 MiB", self.id)
        })?;
        match self.format {
            Format::Json => output::json(&explanation)?,
            Format::Table => output::raw(tell(&explanation).as_bytes())?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn tell(explanation: &Explanation) -> String {
    let record = explanation.deciding();
    let mut lines = vec![headline(record), format!("  at        {}", record.at)];
    lines.push(format!("  from      {}", peer(&record.source)));
    lines.push(format!("  to        {} port {}", peer(&record.destination), record.port));
    if let (Some(method), Some(path)) = (&record.method, &record.path) {
        lines.push(format!("  request   {method} {path}"));
    }
    if let Some(trace) = &record.trace_id {
        lines.push(format!("  trace     {trace}"));
    }
    if let (Some(reason), None) = (&record.reason, &record.decision) {
        lines.push(format!("  reason    {reason}"));
    }
    if let Some(decision) = &record.decision {
        lines.push(format!("  because   {}", decision.summary));
        if let (Some(policy), Some(place)) = (&decision.policy, &decision.place) {
            lines.push(format!("  policy    {policy}, {place}"));
        }
        lines.extend(decision.evidence.iter().map(evidence));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn headline(record: &Record) -> String {
    let word = match record.outcome {
        Outcome::Answered => "was answered",
        Outcome::Refused => "was refused",
        Outcome::Unreachable => "did not reach its destination",
        Outcome::Broken => "broke off",
    };
    match record.status {
        Some(status) => format!("{} {word} with {status}", record.id),
        None => format!("{} {word}", record.id),
    }
}

fn peer(peer: &Peer) -> String {
    let name = match (&*peer.namespace, &*peer.service) {
        ("", "") => "someone without an identity".to_owned(),
        (namespace, service) => format!("{namespace}/{service}"),
    };
    let address = peer.address.map(|address| format!(" at {address}")).unwrap_or_default();
    let workload =
        peer.workload.as_ref().map(|workload| format!(" ({workload})")).unwrap_or_default();
    format!("{name}{workload}{address}")
}

fn evidence(one: &Evidence) -> String {
    let word = if one.matched { "matches" } else { "does not match" };
    let value = if one.value.is_empty() { "nothing" } else { one.value.as_str() };
    format!("  {}  `{value}` {word} {} `{}` of {}", one.place, one.field, one.pattern, one.policy)
}

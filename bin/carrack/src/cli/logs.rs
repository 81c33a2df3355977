//! `carrack logs`.

use std::process::ExitCode;

use carrack_engine::api::{ContainerSummary, LogLine, LogStream, LogsRequest};
use carrack_engine::client::EngineClient;
use futures_util::StreamExt as _;
use futures_util::stream::SelectAll;
use jiff::{Span, Timestamp};

use super::daemon;
use crate::exit;
use crate::output::{self, Format};
use crate::settings::Settings;

/// Show what containers wrote
#[derive(Debug, clap::Args)]
pub(crate) struct LogsArgs {
    /// Go on as they write more
    #[arg(short, long)]
    follow: bool,
    /// Only so many lines from the end of each
    #[arg(short = 'n', long, value_name = "LINES")]
    tail: Option<String>,
    /// Only lines since: a time (2026-11-23T10:00:00Z) or an age (10m)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only lines until: a time or an age
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Put each line's time before it
    #[arg(short, long)]
    timestamps: bool,
    /// Of this project only
    #[arg(short, long, value_name = "NAME")]
    project: Option<String>,
    /// `json` prints one object per line
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Names or ids of containers, or names of services [default: all]
    #[arg(value_name = "CONTAINER|SERVICE")]
    names: Vec<String>,
}

impl LogsArgs {
    pub(crate) async fn execute(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let client = daemon::client(settings).await?;
        let containers = client.ps(true, self.project.as_deref()).await?;
        let chosen = choose(&containers, &self.names)?;
        let request = LogsRequest {
            follow: self.follow,
            tail: self.tail.as_deref().map(tail).transpose()?.flatten(),
            since: self.since.as_deref().map(moment).transpose()?,
            until: self.until.as_deref().map(moment).transpose()?,
        };
        self.show(&client, &chosen, &request).await?;
        Ok(ExitCode::SUCCESS)
    }

    async fn show(
        &self,
        client: &EngineClient,
        chosen: &[&ContainerSummary],
        request: &LogsRequest,
    ) -> anyhow::Result<()> {
        let width = chosen.iter().map(|one| one.name.len()).max().unwrap_or(0);
        let mut logs = SelectAll::new();
        let mut finished = Vec::new();
        for container in chosen {
            let lines = client.logs(&container.id, request).await?;
            let name = container.name.clone();
            logs.push(lines.map(move |line| (name.clone(), line)));
        }
        while let Some((name, line)) = logs.next().await {
            let line = line?;
            if self.follow || chosen.len() == 1 {
                self.print(&name, &line, (chosen.len() > 1).then_some(width))?;
            } else {
                finished.push((name, line));
            }
        }
        // Without --follow there is time to put several logs in order.
        finished.sort_by_key(|(_, line)| line.at);
        finished.iter().try_for_each(|(name, line)| self.print(name, line, Some(width)))
    }

    fn print(&self, name: &str, line: &LogLine, width: Option<usize>) -> anyhow::Result<()> {
        if self.format == Format::Json {
            let mut value = serde_json::to_value(line)?;
            if let Some(object) = value.as_object_mut() {
                object.insert("container".to_owned(), name.into());
            }
            output::line(value);
            return Ok(());
        }
        let prefix = width.map(|width| format!("{name:width$} | ")).unwrap_or_default();
        let time = if self.timestamps { format!("{} ", line.at) } else { String::new() };
        let end = if line.partial { "" } else { "\n" };
        let text = format!("{prefix}{time}{}{end}", line.text);
        match line.stream {
            LogStream::Stdout => output::raw(text.as_bytes())?,
            LogStream::Stderr => output::raw_stderr(text.as_bytes())?,
        }
        Ok(())
    }
}

/// The containers meant by `names`: by name, by id, or all of a service.
fn choose<'a>(
    containers: &'a [ContainerSummary],
    names: &[String],
) -> anyhow::Result<Vec<&'a ContainerSummary>> {
    if names.is_empty() {
        return Ok(containers.iter().collect());
    }
    let mut chosen: Vec<&ContainerSummary> = Vec::new();
    for name in names {
        let is_meant = |one: &&ContainerSummary| {
            one.name == *name
                || one.service == *name
                || (name.len() >= 4 && one.id.starts_with(name))
        };
        let meant: Vec<_> = containers.iter().filter(is_meant).collect();
        if meant.is_empty() {
            anyhow::bail!("there is no container or service `{name}`; `carrack ps -a` lists all");
        }
        chosen.extend(meant);
    }
    chosen.dedup_by_key(|one| &one.id);
    Ok(chosen)
}

fn tail(text: &str) -> anyhow::Result<Option<usize>> {
    if text == "all" {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| exit::usage(format!("`--tail {text}` is neither a count nor `all`")))
}

/// A moment written as a time or as an age before now.
fn moment(text: &str) -> anyhow::Result<Timestamp> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment);
    }
    let age = text.parse::<Span>().ok().and_then(|span| Timestamp::now().checked_sub(span).ok());
    age.ok_or_else(|| {
        exit::usage(format!(
            "`{text}` is neither a time (2026-11-23T10:00:00Z) nor an age (10m, 2h)"
        ))
    })
}

//! What containers use, read each second for whoever asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::api::{Stats, StatsRequest};
use crate::container::Container;
use crate::engine::{Engine, blocking};
use crate::error::EngineError;
use crate::record::Phase;

const EVERY: Duration = Duration::from_secs(1);

/// A reading of processor time, to compare the next one with.
type Reading = (Timestamp, u64);

impl Engine {
    /// Reads what containers use, each second or once, until nobody listens any more.
    pub(crate) async fn stats(
        self: &Arc<Self>,
        request: StatsRequest,
        send: mpsc::Sender<Vec<Stats>>,
    ) -> Result<(), EngineError> {
        for name in &request.containers {
            self.find(name)?;
        }
        let mut before: BTreeMap<String, Reading> = BTreeMap::new();
        // The first reading has no rate yet; asked once, there are two and the second is told.
        let mut tell = !request.once;
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            ticks.tick().await;
            let chosen = self.chosen(&request);
            let engine = Arc::clone(self);
            let readings = blocking(move || Ok(engine.measure(&chosen))).await?;
            let list: Vec<Stats> =
                readings.into_iter().map(|stats| with_rate(stats, &mut before)).collect();
            if tell && send.send(list).await.is_err() || send.is_closed() {
                return Ok(());
            }
            if tell && request.once {
                return Ok(());
            }
            tell = true;
        }
    }

    fn chosen(&self, request: &StatsRequest) -> Vec<Arc<Container>> {
        let mut list = self.containers();
        list.retain(|container| {
            let named = request.containers.is_empty()
                || request
                    .containers
                    .iter()
                    .any(|name| container.name == *name || container.id.starts_with(name.as_str()));
            let project = &container.definition.project;
            named
                && request.project.as_ref().is_none_or(|wanted| wanted == project)
                && container.phase() == Phase::Running
        });
        list
    }

    fn measure(&self, containers: &[Arc<Container>]) -> Vec<Stats> {
        let measured = containers.iter().filter_map(|container| {
            // One that ended meanwhile uses nothing.
            let stats = container.shim()?.stats().ok()?;
            Some(Stats {
                id: container.id.clone(),
                name: container.name.clone(),
                project: container.definition.project.clone(),
                service: container.definition.service.clone(),
                at: Timestamp::now(),
                cpu_percent: None,
                cpu_nanos: stats.cpu_ns,
                memory_bytes: stats.memory_bytes,
                memory_limit: stats.memory_limit_bytes,
                pids: stats.pids,
                pids_limit: stats.pids_limit,
                block_read_bytes: stats.block_read_bytes,
                block_written_bytes: stats.block_written_bytes,
            })
        });
        measured.collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate in percent")]
fn with_rate(mut stats: Stats, before: &mut BTreeMap<String, Reading>) -> Stats {
    let last = before.insert(stats.id.clone(), (stats.at, stats.cpu_nanos));
    stats.cpu_percent = last.and_then(|(at, nanos)| {
        let elapsed = stats.at.duration_since(at).as_nanos();
        // A container that was restarted counts from nothing again.
        let used = stats.cpu_nanos.checked_sub(nanos)?;
        (elapsed > 0).then(|| used as f64 * 100.0 / elapsed as f64)
    });
    stats
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(second: i64, cpu_nanos: u64) -> Stats {
        Stats {
            id: "a".to_owned(),
            name: String::new(),
            project: String::new(),
            service: String::new(),
            at: Timestamp::from_second(second).expect("a time"),
            cpu_percent: None,
            cpu_nanos,
            memory_bytes: 0,
            memory_limit: None,
            pids: 0,
            pids_limit: None,
            block_read_bytes: 0,
            block_written_bytes: 0,
        }
    }

    #[test]
    fn a_rate_is_what_was_used_since_the_reading_before() {
        let mut before = BTreeMap::new();
        assert_eq!(with_rate(stats(1, 0), &mut before).cpu_percent, None);
        assert_eq!(with_rate(stats(3, 1_000_000_000), &mut before).cpu_percent, Some(50.0));
        assert_eq!(with_rate(stats(4, 10), &mut before).cpu_percent, None, "it was restarted");
    }
}

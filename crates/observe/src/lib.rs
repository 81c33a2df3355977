//! What happened: the graph of who calls whom, the records, the page.
//!
//! ```text
//! node proxy /metrics ──every second──▶ Scrape ─▶ deltas of 10 s ─▶ Graph ─▶ page, `carrack graph`
//! access log ────────────follow───────▶ newest records, refusals ─▶ page
//!            ────────────search by id─▶ Explanation ──────────────▶ `carrack why`
//! ```
//!
//! The graph is maintained, not queried: each scrape adds one delta to a window
//! that is as long as the graph looks back. Counters that fell have started
//! anew with their proxy, so a proxy that was killed leaves no hole and no peak.
//!
//! Nothing here is told by the engine or the control plane: what is shown is what
//! the proxy saw. Writing records is `base/telemetry`, judging requests
//! `proxy/filters`.

pub mod client;
mod follow;
mod graph;
mod page;
mod scrape;
mod serve;
mod why;
mod window;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use carrack_net::unix;
use carrack_telemetry::access::{Reader, Record};
use carrack_telemetry::logging::chain;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval};

use follow::Follower;
pub use graph::{Edge, EdgeHistory, Graph, Node, Past, Place, ProxyState, State};
pub use why::{Explanation, WhyError};
use window::Window;

/// Where what happened is found, and how far back the graph looks.
#[derive(Clone, Debug)]
pub struct ObserveConfig {
    /// The proxy's admin socket.
    pub proxy: PathBuf,
    /// The newest file of the access log.
    pub access_log: PathBuf,
    /// Time between two looks.
    pub interval: Duration,
    /// How far back rates and percentiles look.
    pub window: Duration,
}

impl ObserveConfig {
    /// Looks every second and back over ten.
    pub fn new(proxy: impl Into<PathBuf>, access_log: impl Into<PathBuf>) -> Self {
        Self {
            proxy: proxy.into(),
            access_log: access_log.into(),
            interval: Duration::from_secs(1),
            window: Duration::from_secs(10),
        }
    }
}

/// The watcher of one node.
#[derive(Debug)]
pub struct Observe {
    config: ObserveConfig,
    reader: Reader,
    follower: Mutex<Follower>,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    window: Window,
    proxy: ProxyState,
    metrics: String,
}

impl Observe {
    /// Makes a watcher that has seen nothing yet.
    pub fn new(config: ObserveConfig) -> Arc<Self> {
        Arc::new(Self {
            reader: Reader::new(&config.access_log),
            follower: Mutex::new(Follower::new(&config.access_log)),
            seen: Mutex::new(Seen {
                window: Window::new(config.window),
                proxy: ProxyState { answers: false, trouble: Some("not asked yet".to_owned()) },
                metrics: String::new(),
            }),
            config,
        })
    }

    /// Looks again and again until `shutdown`.
    pub async fn run(self: &Arc<Self>, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let mut ticks = interval(self.config.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                _ = ticks.tick() => self.look().await,
            }
        }
    }

    /// Looks once: at the proxy's counters, and at what was added to the log.
    pub async fn look(self: &Arc<Self>) {
        let answer = unix::get(&self.config.proxy, "/metrics").await;
        let now = Instant::now();
        let scraped = match answer {
            Ok(answer) if answer.status.is_success() => {
                Ok(String::from_utf8_lossy(&answer.body).into_owned())
            }
            Ok(answer) => Err(format!("it answered {}", answer.status)),
            Err(error) => Err(chain(&error)),
        };
        self.take(scraped, now);
        let this = Arc::clone(self);
        let followed = tokio::task::spawn_blocking(move || this.follower.lock().look()).await;
        match followed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "following the access log"),
            Err(panic) => tracing::error!(%panic, "following the access log"),
        }
    }

    fn take(&self, scraped: Result<String, String>, now: Instant) {
        let mut seen = self.seen.lock();
        match scraped {
            Ok(text) => {
                seen.window.add(scrape::parse(&text), now);
                seen.metrics = text;
                seen.proxy = ProxyState { answers: true, trouble: None };
            }
            Err(trouble) => {
                if seen.proxy.answers {
                    tracing::warn!(%trouble, "the node proxy does not answer");
                }
                seen.proxy = ProxyState { answers: false, trouble: Some(trouble) };
            }
        }
    }

    /// Who calls whom, as of the last look.
    pub fn graph(&self) -> Graph {
        let seen = self.seen.lock();
        let (nodes, edges) = seen.window.graph(Instant::now());
        Graph {
            at: Timestamp::now(),
            window_ms: u64::try_from(self.config.window.as_millis()).unwrap_or(u64::MAX),
            proxy: seen.proxy.clone(),
            nodes,
            edges,
        }
    }

    /// The newest records, newest first; only those that were refused when `refused`.
    pub fn records(&self, limit: usize, refused: bool) -> Vec<Record> {
        let follower = self.follower.lock();
        if refused {
            follower.refusals().take(limit).cloned().collect()
        } else {
            follower.records().take(limit).cloned().collect()
        }
    }

    /// Everything the page shows, at one moment.
    pub fn state(&self, limit: usize) -> State {
        State {
            graph: self.graph(),
            refusals: self.records(limit, true),
            records: self.records(limit, false),
        }
    }

    /// How each edge of the graph has been over the last two minutes.
    pub fn history(&self) -> Vec<EdgeHistory> {
        self.seen.lock().window.history()
    }

    /// Explains the record or decision called `id`; `None` when no record is left of it.
    ///
    /// # Errors
    ///
    /// [`WhyError`] when `id` is no id, or the log cannot be read.
    pub fn why(&self, id: &str) -> Result<Option<Explanation>, WhyError> {
        why::explain(&self.reader, id)
    }

    /// The proxy's metrics as of the last look, as it wrote them.
    pub fn metrics(&self) -> String {
        self.seen.lock().metrics.clone()
    }
}

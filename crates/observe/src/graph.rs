//! The graph as it is handed out.

use std::collections::BTreeMap;

use carrack_telemetry::access::Record;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Who calls whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Graph {
    /// When it was made.
    pub at: Timestamp,
    /// How far back rates and percentiles look.
    pub window_ms: u64,
    /// Whether what it shows is fresh.
    pub proxy: ProxyState,
    /// Who was seen, by namespace and service.
    pub nodes: Vec<Node>,
    /// Who called whom, by source, destination and protocol.
    pub edges: Vec<Edge>,
}

/// Whether the proxy answered at the last look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyState {
    /// Whether it did.
    pub answers: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// One end of an edge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The namespace; empty for whoever has no identity.
    pub namespace: String,
    /// The service.
    pub service: String,
}

/// A service that calls or is called.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Who it is.
    #[serde(flatten)]
    pub place: Place,
    /// Requests and connections that arrive, per second.
    pub rate_in: f64,
    /// Requests and connections it makes, per second.
    pub rate_out: f64,
    /// The share of what arrives that it answers with an error.
    pub error_ratio: f64,
}

/// What flows from one service to another by one protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    /// Who calls.
    pub source: Place,
    /// Who is called.
    pub destination: Place,
    /// `http`, `http2` or `tcp`.
    pub protocol: String,
    /// Requests per second; connections for `tcp`.
    pub rate: f64,
    /// The share that failed: a status of 400 or more, or no answer.
    pub error_ratio: f64,
    /// Half were faster; absent for `tcp` and when nothing happened.
    pub p50_ms: Option<f64>,
    /// Nine in ten were faster.
    pub p90_ms: Option<f64>,
    /// All but one in a hundred were faster.
    pub p99_ms: Option<f64>,
    /// Bytes per second both ways, for `tcp`.
    pub bytes_per_second: Option<f64>,
    /// Connections open now, for `tcp`, where the proxy says.
    pub open: Option<u64>,
    /// Rates by status; `-` where there was none.
    pub codes: BTreeMap<String, f64>,
    /// Requests or connections since this watcher first saw them.
    pub total: u64,
    /// Time since something last happened.
    pub idle_ms: u64,
}

/// Everything the page shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Who calls whom.
    pub graph: Graph,
    /// What was refused, newest first.
    pub refusals: Vec<Record>,
    /// What happened at all, newest first.
    pub records: Vec<Record>,
}

/// How an edge has been over the last two minutes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EdgeHistory {
    /// Who calls.
    pub source: Place,
    /// Who is called.
    pub destination: Place,
    /// `http`, `http2` or `tcp`.
    pub protocol: String,
    /// What each look saw, oldest first.
    pub past: Vec<Past>,
}

/// An edge at one look.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Past {
    /// Requests or connections per second.
    pub rate: f64,
    /// All but one in a hundred were faster.
    pub p99_ms: Option<f64>,
}

//! Counters and histograms of traffic, made from access records.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::access::{Outcome, Protocol, Record, Reporter};

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the duration histogram, in seconds.
pub const DURATION_BUCKETS: [f64; 16] = [
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    source: Text,
    source_namespace: Text,
    destination: Text,
    destination_namespace: Text,
    protocol: Word,
    code: Code,
    reporter: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Text(Arc<str>);

impl EncodeLabelValue for Text {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        (&*self.0).encode(encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Word(&'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}

/// How it ended: an HTTP status, a word for what became of bytes, or nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Code {
    None,
    Status(u16),
    Failed(&'static str),
}

impl EncodeLabelValue for Code {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::None => "-".encode(encoder),
            Self::Status(status) => status.encode(encoder),
            Self::Failed(word) => word.encode(encoder),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Durations;

impl MetricConstructor<Histogram> for Durations {
    fn new_metric(&self) -> Histogram {
        Histogram::new(DURATION_BUCKETS)
    }
}

/// The traffic metrics of one process, and whatever else it registers beside them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    durations: Family<Labels, Histogram, Durations>,
    connections: Family<Labels, Counter>,
    bytes: Family<Labels, Counter>,
    open: Family<Labels, Gauge>,
}

/// A connection of bytes underway, counted among those that are open until it is dropped.
#[derive(Debug)]
pub struct Open {
    gauge: Gauge,
    bytes: Counter,
}

impl Open {
    /// Counts bytes that have passed, either way. [`Metrics::observe_rest`] must be told of them.
    pub fn passed(&self, bytes: u64) {
        self.bytes.inc_by(bytes);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl Metrics {
    /// Makes the traffic metrics; `also` may register more, named `carrack_…` as they are.
    pub fn new(also: impl FnOnce(&mut Registry)) -> Self {
        let mut registry = Registry::with_prefix("carrack");
        let requests = Family::default();
        let durations = Family::new_with_constructor(Durations);
        let connections = Family::default();
        let bytes = Family::default();
        let open = Family::default();
        registry.register("requests", "HTTP requests that ended", requests.clone());
        registry.register(
            "request_duration_seconds",
            "From a request's first byte to its response's last",
            durations.clone(),
        );
        registry.register(
            "tcp_connections",
            "Connections that carried something other than HTTP, and ended",
            connections.clone(),
        );
        registry.register("tcp_bytes", "Bytes of such connections, both ways", bytes.clone());
        registry.register("tcp_connections_open", "Such connections underway", open.clone());
        also(&mut registry);
        Self { registry, requests, durations, connections, bytes, open }
    }

    /// Counts a connection of bytes as open, described by the record it will leave.
    #[must_use]
    pub fn open(&self, record: &Record) -> Open {
        let labels = labels(record, Code::None);
        let gauge = self.open.get_or_create_owned(&labels);
        gauge.inc();
        Open { gauge, bytes: self.bytes.get_or_create_owned(&labels) }
    }

    /// Counts one record.
    pub fn observe(&self, record: &Record) {
        self.observe_rest(record, 0);
    }

    /// Counts one record, of whose bytes `counted` are counted already.
    pub fn observe_rest(&self, record: &Record, counted: u64) {
        let labels = labels(record, code(record));
        if record.protocol == Protocol::Tcp {
            self.connections.get_or_create(&labels).inc();
            let total = record.bytes_in.saturating_add(record.bytes_out);
            // Bytes are counted while nobody knows yet how it will end.
            let labels = Labels { code: Code::None, ..labels };
            self.bytes.get_or_create(&labels).inc_by(total.saturating_sub(counted));
        } else {
            self.requests.get_or_create(&labels).inc();
            let seconds = std::time::Duration::from_micros(record.duration_us).as_secs_f64();
            self.durations.get_or_create(&labels).observe(seconds);
        }
    }

    /// All metrics, in the text format Prometheus reads.
    ///
    /// # Errors
    ///
    /// [`fmt::Error`] when something registered beside the traffic metrics cannot be written.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn labels(record: &Record, code: Code) -> Labels {
    Labels {
        source: Text(Arc::clone(&record.source.service)),
        source_namespace: Text(Arc::clone(&record.source.namespace)),
        destination: Text(Arc::clone(&record.destination.service)),
        destination_namespace: Text(Arc::clone(&record.destination.namespace)),
        protocol: Word(protocol_word(record.protocol)),
        code,
        reporter: Word(reporter_word(record.reporter)),
    }
}

/// A connection of bytes has no status; a word says why it failed, if it did.
fn code(record: &Record) -> Code {
    match (record.status, record.protocol, record.outcome) {
        (Some(status), _, _) => Code::Status(status),
        (None, Protocol::Tcp, Outcome::Refused) => Code::Failed("refused"),
        (None, Protocol::Tcp, Outcome::Unreachable) => Code::Failed("unreachable"),
        (None, Protocol::Tcp, Outcome::Broken) => Code::Failed("broken"),
        (None, _, _) => Code::None,
    }
}

fn protocol_word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "http",
        Protocol::Http2 => "http2",
        Protocol::Tcp => "tcp",
    }
}

fn reporter_word(reporter: Reporter) -> &'static str {
    match reporter {
        Reporter::Source => "source",
        Reporter::Destination => "destination",
    }
}

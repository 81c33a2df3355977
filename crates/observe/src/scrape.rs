//! The proxy's metrics, read back from the text Prometheus reads.

use std::collections::HashMap;

use crate::graph::Place;

/// One look at the counters.
pub(crate) type Scrape = HashMap<Series, Counters>;

/// What one set of counters is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Series {
    pub(crate) source: Place,
    pub(crate) destination: Place,
    pub(crate) protocol: String,
    pub(crate) code: String,
    /// Whether the caller's end wrote it.
    pub(crate) by_source: bool,
}

/// Counters as they stood.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Counters {
    /// Requests, or connections that ended.
    pub(crate) count: u64,
    /// Bytes of connections.
    pub(crate) bytes: u64,
    /// Connections open now, where told.
    pub(crate) open: Option<u64>,
    /// How many took at most so many seconds, by rising bound.
    pub(crate) buckets: Vec<(f64, u64)>,
}

/// Reads what concerns traffic; everything else is passed over.
pub(crate) fn parse(text: &str) -> Scrape {
    let mut scrape = Scrape::new();
    for line in text.lines().filter(|line| line.starts_with("carrack_")) {
        if let Some((name, series, bound, value)) = sample(line) {
            take(scrape.entry(series).or_default(), name, bound, value);
        }
    }
    for counters in scrape.values_mut() {
        counters.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    scrape.retain(|_, counters| *counters != Counters::default());
    scrape
}

fn take(counters: &mut Counters, name: &str, bound: Option<f64>, value: u64) {
    match (name, bound) {
        ("carrack_requests_total" | "carrack_tcp_connections_total", _) => counters.count = value,
        ("carrack_tcp_bytes_total", _) => counters.bytes = value,
        ("carrack_tcp_connections_open", _) => counters.open = Some(value),
        ("carrack_request_duration_seconds_bucket", Some(bound)) => {
            counters.buckets.push((bound, value));
        }
        _ => {}
    }
}

/// `name{label="value",…} number`, as its parts.
fn sample(line: &str) -> Option<(&str, Series, Option<f64>, u64)> {
    let (name, rest) = line.split_once('{')?;
    let (labels, rest) = labels(rest)?;
    let value = whole(rest.split_whitespace().next()?)?;
    let get = |name: &str| labels.get(name).cloned().unwrap_or_default();
    let series = Series {
        source: Place { namespace: get("source_namespace"), service: get("source") },
        destination: Place { namespace: get("destination_namespace"), service: get("destination") },
        protocol: get("protocol"),
        code: get("code"),
        by_source: get("reporter") == "source",
    };
    let bound = match labels.get("le").map(String::as_str) {
        Some("+Inf") => Some(f64::INFINITY),
        Some(bound) => Some(bound.parse().ok()?),
        None => None,
    };
    let known = !series.protocol.is_empty() && !series.destination.service.is_empty();
    known.then_some((name, series, bound, value))
}

/// A counter's value; one that is written as `12.0` is still whole.
fn whole(text: &str) -> Option<u64> {
    let digits = text.strip_suffix(".0").unwrap_or(text);
    digits.parse().ok()
}

/// The labels up to the closing brace, and what follows it.
fn labels(text: &str) -> Option<(HashMap<&str, String>, &str)> {
    let mut labels = HashMap::new();
    let mut rest = text;
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = rest.split_once("=\"")?;
        let (value, after) = quoted(after)?;
        labels.insert(name, value);
        rest = after.strip_prefix(',').unwrap_or(after);
    }
}

/// Text up to the closing quote, its escapes undone, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.chars();
    loop {
        match characters.next()? {
            '"' => return Some((value, characters.as_str())),
            '\\' => match characters.next()? {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: &str = r#"source="web",source_namespace="shop",destination="api",destination_namespace="shop",protocol="http",code="200",reporter="source""#;

    #[test]
    fn counters_of_one_series_come_together() {
        let text = format!(
            "# TYPE carrack_requests counter\ncarrack_requests_total{{{LABELS}}} 7\n\
             carrack_request_duration_seconds_bucket{{le=\"+Inf\",{LABELS}}} 7\n\
             carrack_request_duration_seconds_bucket{{le=\"0.005\",{LABELS}}} 3\n\
             carrack_request_duration_seconds_sum{{{LABELS}}} 0.5\n\
             other_total{{{LABELS}}} 9\n# EOF\n"
        );
        let scrape = parse(&text);
        assert_eq!(scrape.len(), 1);
        let (series, counters) = scrape.iter().next().expect("one");
        assert_eq!(series.destination.service, "api");
        assert!(series.by_source);
        assert_eq!(counters.count, 7);
        assert_eq!(counters.buckets, [(0.005, 3), (f64::INFINITY, 7)]);
    }

    #[test]
    fn escapes_in_labels_are_undone() {
        let (labels, rest) = labels(r#"a="x\"y\\z\n",b="}"} 5"#).expect("parses");
        assert_eq!(labels["a"], "x\"y\\z\n");
        assert_eq!(labels["b"], "}");
        assert_eq!(rest, " 5");
    }

    #[test]
    fn lines_that_are_no_samples_are_passed_over() {
        assert!(parse("carrack_requests_total\ncarrack_x{a=\"b} 1\ncarrack_y{} z\n").is_empty());
    }

    #[test]
    fn what_telemetry_writes_is_understood() {
        use carrack_telemetry::metrics::Metrics;
        let text = Metrics::default().encode().expect("encodes");
        assert!(parse(&text).is_empty());
    }
}

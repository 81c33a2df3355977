//! Deltas of the last few seconds, and the graph they add up to.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::graph::{Edge, EdgeHistory, Node, Past, Place};
use crate::scrape::{Counters, Scrape, Series};

/// An edge on which nothing happened for so long is no longer shown.
const FORGET_AFTER: Duration = Duration::from_secs(300);

/// Looks further apart than this say nothing of the last few seconds.
const GAP_MAX: Duration = Duration::from_secs(60);

/// Looks an edge's history goes back.
const HISTORY: usize = 120;

/// Who calls whom by what.
type EdgeKey = (Place, Place, String);

#[derive(Debug)]
pub(crate) struct Window {
    length: Duration,
    last: Option<(Instant, Scrape)>,
    deltas: VecDeque<Delta>,
    edges: BTreeMap<EdgeKey, Known>,
}

/// What was added between two looks.
#[derive(Debug)]
struct Delta {
    until: Instant,
    took: Duration,
    added: Scrape,
}

/// What is remembered of an edge beyond the window.
#[derive(Debug)]
struct Known {
    total: u64,
    last: Instant,
    by_source: bool,
    past: VecDeque<Past>,
}

impl Known {
    fn new(now: Instant) -> Self {
        Self { total: 0, last: now, by_source: false, past: VecDeque::new() }
    }
}

impl Window {
    pub(crate) fn new(length: Duration) -> Self {
        Self { length, last: None, deltas: VecDeque::new(), edges: BTreeMap::new() }
    }

    /// Takes one look at the counters. The first tells where they start.
    pub(crate) fn add(&mut self, scrape: Scrape, now: Instant) {
        if let Some((then, before)) = self.last.take() {
            let took = now.saturating_duration_since(then);
            let added = added(&before, &scrape);
            self.remember(&added, now);
            if !took.is_zero() && took <= GAP_MAX {
                self.deltas.push_back(Delta { until: now, took, added });
            }
        }
        self.last = Some((now, scrape));
        self.expire(now);
        self.keep_history(now);
    }

    fn keep_history(&mut self, now: Instant) {
        let (_, edges) = self.graph(now);
        // The graph has one edge for each that is known, in the same order.
        for (known, edge) in self.edges.values_mut().zip(edges) {
            if known.past.len() == HISTORY {
                known.past.pop_front();
            }
            known.past.push_back(Past { rate: edge.rate, p99_ms: edge.p99_ms });
        }
    }

    /// How each edge has been.
    pub(crate) fn history(&self) -> Vec<EdgeHistory> {
        self.edges
            .iter()
            .map(|((source, destination, protocol), known)| EdgeHistory {
                source: source.clone(),
                destination: destination.clone(),
                protocol: protocol.clone(),
                past: known.past.iter().copied().collect(),
            })
            .collect()
    }

    fn expire(&mut self, now: Instant) {
        let old = |until: Instant, length| now.saturating_duration_since(until) >= length;
        while self.deltas.front().is_some_and(|delta| old(delta.until, self.length)) {
            self.deltas.pop_front();
        }
        self.edges.retain(|_, known| !old(known.last, FORGET_AFTER));
    }

    fn remember(&mut self, added: &Scrape, now: Instant) {
        for (series, counters) in added {
            if counters.count == 0 && counters.bytes == 0 && counters.open.unwrap_or(0) == 0 {
                continue;
            }
            let known = self.edges.entry(key(series)).or_insert_with(|| Known::new(now));
            // The caller's end sees what never arrives, so its word counts where there is one.
            if series.by_source && !known.by_source {
                known.by_source = true;
                known.total = 0;
            }
            known.last = now;
            if series.by_source == known.by_source {
                known.total = known.total.saturating_add(counters.count);
            }
        }
    }

    /// The graph of the window that ends `now`.
    pub(crate) fn graph(&self, now: Instant) -> (Vec<Node>, Vec<Edge>) {
        let fresh = |delta: &&Delta| now.saturating_duration_since(delta.until) < self.length;
        let deltas: Vec<_> = self.deltas.iter().filter(fresh).collect();
        let seconds: f64 = deltas.iter().map(|delta| delta.took.as_secs_f64()).sum();
        let mut sums: HashMap<EdgeKey, Sum> = HashMap::new();
        for (series, counters) in deltas.iter().flat_map(|delta| &delta.added) {
            let key = key(series);
            if self.edges.get(&key).is_some_and(|known| known.by_source == series.by_source) {
                sums.entry(key).or_default().add(series, counters);
            }
        }
        // How many are open is a state, so the newest look alone says it.
        for (series, counters) in self.last.iter().flat_map(|(_, scrape)| scrape) {
            if let (Some(open), Some(known)) = (counters.open, self.edges.get(&key(series)))
                && known.by_source == series.by_source
            {
                *sums.entry(key(series)).or_default().open.get_or_insert(0) += open;
            }
        }
        let edges: Vec<_> = self
            .edges
            .iter()
            .map(|(key, known)| {
                let sum = sums.remove(key).unwrap_or_default();
                sum.edge(key, known, seconds, now)
            })
            .collect();
        (nodes(&edges), edges)
    }
}

fn key(series: &Series) -> EdgeKey {
    (series.source.clone(), series.destination.clone(), series.protocol.clone())
}

/// What `after` has over `before`. A counter that fell has started anew.
fn added(before: &Scrape, after: &Scrape) -> Scrape {
    let zero = Counters::default();
    let mut added = Scrape::new();
    for (series, after) in after {
        let before = before.get(series).unwrap_or(&zero);
        let anew = after.count < before.count || after.bytes < before.bytes;
        let before = if anew { &zero } else { before };
        let bucket = |bound: f64| {
            let found = before.buckets.iter().find(|(other, _)| other.total_cmp(&bound).is_eq());
            found.map_or(0, |(_, count)| *count)
        };
        let counters = Counters {
            count: after.count.saturating_sub(before.count),
            bytes: after.bytes.saturating_sub(before.bytes),
            open: after.open,
            buckets: after
                .buckets
                .iter()
                .map(|&(bound, count)| (bound, count.saturating_sub(bucket(bound))))
                .collect(),
        };
        added.insert(series.clone(), counters);
    }
    added
}

/// One edge, summed over the window.
#[derive(Debug, Default)]
struct Sum {
    codes: BTreeMap<String, u64>,
    bytes: u64,
    open: Option<u64>,
    buckets: Vec<(f64, u64)>,
}

impl Sum {
    fn add(&mut self, series: &Series, counters: &Counters) {
        if counters.count > 0 {
            *self.codes.entry(series.code.clone()).or_default() += counters.count;
        }
        self.bytes += counters.bytes;
        for &(bound, count) in &counters.buckets {
            match self.buckets.iter_mut().find(|(other, _)| other.total_cmp(&bound).is_eq()) {
                Some((_, sum)) => *sum += count,
                None => self.buckets.push((bound, count)),
            }
        }
    }

    fn edge(mut self, key: &EdgeKey, known: &Known, seconds: f64, now: Instant) -> Edge {
        let (source, destination, protocol) = key.clone();
        self.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let tcp = protocol == "tcp";
        let count: u64 = self.codes.values().sum();
        let failed: u64 =
            self.codes.iter().filter(|(code, _)| failed(code, tcp)).map(|(_, n)| *n).sum();
        let per_second = |count: u64| if seconds > 0.0 { as_f64(count) / seconds } else { 0.0 };
        let millis = |share: f64| quantile(&self.buckets, share).map(|seconds| seconds * 1000.0);
        Edge {
            rate: per_second(count),
            error_ratio: ratio(failed, count),
            p50_ms: millis(0.5),
            p90_ms: millis(0.9),
            p99_ms: millis(0.99),
            bytes_per_second: tcp.then(|| per_second(self.bytes)),
            open: self.open,
            codes: self.codes.iter().map(|(code, n)| (code.clone(), per_second(*n))).collect(),
            total: known.total,
            idle_ms: u64::try_from(now.saturating_duration_since(known.last).as_millis())
                .unwrap_or(u64::MAX),
            source,
            destination,
            protocol,
        }
    }
}

/// Whether what ended with this code failed. Bytes have no code when all is well, and a word for
/// what went wrong when it is not.
fn failed(code: &str, tcp: bool) -> bool {
    match code.parse::<u16>() {
        Ok(status) => status >= 400,
        Err(_) => !tcp || code != "-",
    }
}

fn nodes(edges: &[Edge]) -> Vec<Node> {
    let mut nodes: BTreeMap<&Place, (f64, f64, f64)> = BTreeMap::new();
    for edge in edges {
        nodes.entry(&edge.source).or_default().1 += edge.rate;
        let (rate, _, errors) = nodes.entry(&edge.destination).or_default();
        *rate += edge.rate;
        *errors += edge.rate * edge.error_ratio;
    }
    nodes
        .into_iter()
        .map(|(place, (rate_in, rate_out, errors))| Node {
            place: place.clone(),
            rate_in,
            rate_out,
            error_ratio: if rate_in > 0.0 { errors / rate_in } else { 0.0 },
        })
        .collect()
}

/// The value below which `share` of what the cumulative `buckets` count lies,
/// a straight line drawn through the bucket it falls into.
fn quantile(buckets: &[(f64, u64)], share: f64) -> Option<f64> {
    let total = buckets.last().map(|(_, count)| *count).filter(|count| *count > 0)?;
    let rank = share * as_f64(total);
    let (mut below, mut bound_below) = (0, 0.0);
    for &(bound, count) in buckets {
        if as_f64(count) >= rank && count > below {
            // Beyond the last bound nothing is known but that it was passed.
            if bound.is_infinite() {
                return Some(bound_below);
            }
            let within = (rank - as_f64(below)) / as_f64(count - below);
            return Some(bound_below + (bound - bound_below) * within);
        }
        (below, bound_below) = (count, bound);
    }
    Some(bound_below)
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { as_f64(part) / as_f64(whole) }
}

/// Counts here stay far below what a float holds exactly.
fn as_f64(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
    let float = count as f64;
    float
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(service: &str) -> Place {
        Place { namespace: "shop".into(), service: service.into() }
    }

    fn series(code: &str, by_source: bool) -> Series {
        Series {
            source: place("web"),
            destination: place("api"),
            protocol: "http".into(),
            code: code.into(),
            by_source,
        }
    }

    fn counters(count: u64, buckets: &[(f64, u64)]) -> Counters {
        Counters { count, buckets: buckets.to_vec(), ..Counters::default() }
    }

    /// The only edge after looks one second apart.
    fn edge(looks: Vec<Scrape>) -> Edge {
        let start = Instant::now();
        let mut window = Window::new(Duration::from_secs(10));
        let mut now = start;
        for look in looks {
            window.add(look, now);
            now += Duration::from_secs(1);
        }
        let (_, mut edges) = window.graph(now - Duration::from_secs(1));
        assert_eq!(edges.len(), 1);
        edges.remove(0)
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9, "{a} is not {b}");
    }

    #[test]
    fn a_rate_is_what_was_added_over_the_time_it_took() {
        let look = |n| Scrape::from([(series("200", true), counters(n, &[]))]);
        let edge = edge(vec![look(100), look(110), look(130)]);
        close(edge.rate, 15.0);
        assert_eq!(edge.total, 30);
        assert_eq!(edge.idle_ms, 0);
    }

    #[test]
    fn a_counter_that_fell_has_started_anew() {
        let look = |n| Scrape::from([(series("200", true), counters(n, &[]))]);
        close(edge(vec![look(1000), look(1010), look(4)]).rate, 7.0);
    }

    #[test]
    fn the_callers_end_is_believed_where_both_tell() {
        let look = |n: u64| {
            Scrape::from([
                (series("200", true), counters(n, &[])),
                (series("503", true), counters(n, &[])),
                (series("200", false), counters(n, &[])),
            ])
        };
        let edge = edge(vec![look(0), look(10)]);
        close(edge.rate, 20.0);
        close(edge.error_ratio, 0.5);
        assert_eq!(edge.total, 20);
    }

    #[test]
    fn percentiles_come_from_what_was_added_to_the_buckets() {
        let old = [(0.01, 500), (0.1, 500), (f64::INFINITY, 500)];
        let new = [(0.01, 550), (0.1, 600), (f64::INFINITY, 600)];
        let look = |n, buckets: &[_]| Scrape::from([(series("200", true), counters(n, buckets))]);
        let edge = edge(vec![look(500, &old), look(600, &new)]);
        close(edge.p50_ms.expect("is there"), 10.0);
        close(edge.p99_ms.expect("is there"), 10.0 + 90.0 * 0.98);
    }

    #[test]
    fn a_quantile_beyond_the_last_bound_is_that_bound() {
        assert_eq!(quantile(&[(1.0, 1), (f64::INFINITY, 4)], 0.99), Some(1.0));
        assert_eq!(quantile(&[(1.0, 0), (f64::INFINITY, 0)], 0.5), None);
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn an_edge_stays_while_it_is_idle_and_goes_after_five_minutes() {
        let look = |n| Scrape::from([(series("200", true), counters(n, &[]))]);
        let start = Instant::now();
        let mut window = Window::new(Duration::from_secs(10));
        window.add(look(0), start);
        window.add(look(5), start + Duration::from_secs(1));
        let later = start + Duration::from_secs(31);
        window.add(look(5), later);
        let (nodes, edges) = window.graph(later);
        assert_eq!((nodes.len(), edges.len()), (2, 1));
        close(edges[0].rate, 0.0);
        let rates: Vec<_> = window.history()[0].past.iter().map(|past| past.rate).collect();
        assert_eq!(rates, [5.0, 0.0]);
        assert_eq!(edges[0].idle_ms, 30_000);
        window.add(look(5), start + FORGET_AFTER + Duration::from_secs(1));
        assert!(window.graph(start + FORGET_AFTER + Duration::from_secs(1)).1.is_empty());
    }

    #[test]
    fn bytes_without_a_code_are_no_failure_and_an_answer_without_one_is() {
        assert!(!failed("-", true));
        assert!(failed("-", false));
        assert!(failed("403", true));
        assert!(failed("refused", true));
        assert!(failed("unreachable", true));
        assert!(!failed("302", false));
    }
}

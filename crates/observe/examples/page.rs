//! Shows the page with made-up traffic of a made-up shop, for working on the page.
//!
//! `cargo run -p carrack-observe --example page -- 127.0.0.1:7070`

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use carrack_net::{serve, unix};
use carrack_observe::{Observe, ObserveConfig};
use carrack_telemetry::access::{
    Decision, DecisionId, Evidence, Log, LogConfig, Outcome, Peer, Place, PolicyAction, Protocol,
    Record, Reporter, Verdict,
};
use carrack_telemetry::metrics::{self, Metrics};
use http::StatusCode;

/// From, to, protocol, calls a second, typical milliseconds, one in so many fails.
const TRAFFIC: [(&str, &str, Protocol, u64, u64, u64); 8] = [
    ("carrack-ingress", "edge", Protocol::Http, 4, 6, 0),
    ("client", "edge", Protocol::Http, 10, 5, 0),
    ("edge", "api", Protocol::Http, 14, 4, 40),
    ("api", "store", Protocol::Tcp, 3, 900, 0),
    ("api", "payments", Protocol::Http2, 6, 30, 6),
    ("client", "payments", Protocol::Http, 2, 1, 1),
    ("payments", "external", Protocol::Tcp, 1, 80, 0),
    ("edge", "payments", Protocol::Http, 1, 9, 0),
];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7070".to_owned());
    let directory = std::env::temp_dir().join(format!("carrack-page-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let counters = Arc::new(Metrics::default());
    let log = Log::open(LogConfig::new(directory.join("access.log")))?;
    tokio::spawn(proxy(unix::bind(&directory.join("proxy.sock"))?, Arc::clone(&counters)));
    tokio::spawn(traffic(counters, log));
    let config = ObserveConfig::new(directory.join("proxy.sock"), directory.join("access.log"));
    let observe = Observe::new(config);
    let watching = Arc::clone(&observe);
    tokio::spawn(async move { watching.run(std::future::pending()).await });
    let listener = tokio::net::TcpListener::bind(address).await?;
    observe.serve(listener, std::future::pending()).await;
    Ok(())
}

async fn proxy(listener: tokio::net::UnixListener, counters: Arc<Metrics>) {
    let handler = move |_| {
        let text = counters.encode().unwrap_or_default();
        async move { serve::answer(StatusCode::OK, metrics::CONTENT_TYPE, text) }
    };
    serve::unix(listener, handler, std::future::pending()).await;
}

async fn traffic(counters: Arc<Metrics>, log: Log) {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    for tick in 0u64.. {
        ticks.tick().await;
        for (number, &(source, destination, protocol, rate, millis, fails)) in
            TRAFFIC.iter().enumerate()
        {
            let before = tick * rate / 10;
            for call in before..(tick + 1) * rate / 10 {
                let failed = fails > 0 && call % fails == 0;
                let jitter = (call * 7919 + u64::try_from(number).unwrap_or(0) * 31) % 100;
                let took =
                    millis * 1000 * (40 + jitter) / 80 + if jitter > 97 { 40_000 } else { 0 };
                let record = record(source, destination, protocol, failed, took);
                counters.observe(&record);
                log.write(&record);
                if let Some(id) = record.refused_by {
                    log.write(&refusal(&record, id));
                }
            }
        }
    }
}

fn peer(service: &str) -> Arc<Peer> {
    let namespace = if service == "external" { "" } else { "shop" };
    let address: Option<IpAddr> = None;
    Arc::new(Peer { namespace: namespace.into(), service: service.into(), workload: None, address })
}

fn record(source: &str, destination: &str, protocol: Protocol, failed: bool, took: u64) -> Record {
    let http = protocol != Protocol::Tcp;
    let refused = failed && source == "client";
    let status = match (http, failed, refused) {
        (false, ..) => None,
        (true, false, _) => Some(200),
        (true, true, true) => Some(403),
        (true, true, false) => Some(503),
    };
    Record {
        id: DecisionId::random(),
        at: jiff::Timestamp::now(),
        reporter: Reporter::Source,
        protocol,
        source: peer(source),
        destination: peer(destination),
        port: if http { 8080 } else { 6379 },
        method: http.then(|| "GET".to_owned()),
        path: http.then(|| match destination {
            "payments" => "/v1/payments/4711".to_owned(),
            _ => "/cart".to_owned(),
        }),
        status,
        outcome: if refused { Outcome::Refused } else { Outcome::Answered },
        reason: None,
        duration_us: took,
        bytes_in: 420,
        bytes_out: 5200,
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
        decision: None,
        refused_by: refused.then(DecisionId::random),
    }
}

/// The destination's record of the same refusal.
fn refusal(record: &Record, id: DecisionId) -> Record {
    let place = |line, column| Place { file: "policies/shop.yaml".to_owned(), line, column };
    let evidence = |field: &str, pattern: &str, value: &str, matched, line| Evidence {
        policy: "shop/payments-only-for-api".to_owned(),
        field: format!("rules[0].{field}"),
        pattern: pattern.to_owned(),
        value: value.to_owned(),
        matched,
        place: place(line, 13),
    };
    let decision = Decision {
        verdict: Verdict::Denied,
        summary: "no ALLOW policy of the workload matches".to_owned(),
        policy: Some("shop/payments-only-for-api".to_owned()),
        action: Some(PolicyAction::Allow),
        place: Some(place(33, 5)),
        evidence: vec![
            evidence(
                "from[0].principals",
                "*/ns/shop/sa/api",
                "carrack.local/ns/shop/sa/client",
                false,
                35,
            ),
            evidence("to[0].methods", "GET or POST", "GET", true, 38),
        ],
    };
    Record {
        id,
        reporter: Reporter::Destination,
        decision: Some(Arc::new(decision)),
        refused_by: None,
        ..record.clone()
    }
}

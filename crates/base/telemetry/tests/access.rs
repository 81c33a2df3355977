//! Records written are records read, across rotation, a torn line and a full metric page.

use std::fs;
use std::sync::Arc;

use carrack_telemetry::access::{
    Decision, DecisionId, Log, LogConfig, Outcome, Peer, Protocol, Reader, Record, Reporter,
    Verdict,
};
use carrack_telemetry::metrics::Metrics;

fn peer(service: &str) -> Arc<Peer> {
    Arc::new(Peer {
        namespace: "shop".into(),
        service: service.into(),
        workload: None,
        address: Some([10, 89, 0, 2].into()),
    })
}

fn record(path: &str) -> Record {
    Record {
        id: DecisionId::random(),
        at: "2026-01-02T03:04:05Z".parse().expect("time"),
        reporter: Reporter::Destination,
        protocol: Protocol::Http,
        source: peer("edge"),
        destination: peer("api"),
        port: 8080,
        method: Some("GET".into()),
        path: Some(path.into()),
        status: Some(200),
        outcome: Outcome::Answered,
        reason: None,
        duration_us: 1500,
        bytes_in: 10,
        bytes_out: 20,
        trace_id: None,
        decision: None,
        refused_by: None,
    }
}

#[test]
fn a_record_is_found_by_its_id_with_its_decision() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("access.log");
    let log = Log::open(LogConfig::new(&path)).expect("opens");
    let mut refused = record("/secret");
    refused.decision = Some(Arc::new(Decision {
        verdict: Verdict::Denied,
        summary: "policy shop/deny matched".into(),
        policy: Some("shop/deny".into()),
        action: None,
        place: None,
        evidence: Vec::new(),
    }));
    log.write(&record("/a"));
    log.write(&refused);
    log.write(&record("/b"));
    drop(log);
    let reader = Reader::new(&path);
    assert_eq!(reader.find(refused.id).expect("reads"), Some(refused));
    assert_eq!(reader.find(DecisionId::random()).expect("reads"), None);
    let paths: Vec<_> = reader.tail(2).expect("reads").into_iter().map(|r| r.path).collect();
    assert_eq!(paths, [Some("/b".to_owned()), Some("/secret".to_owned())]);
}

#[test]
fn files_are_rotated_and_the_oldest_goes() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("access.log");
    for number in 0..6 {
        let log =
            Log::open(LogConfig { path: path.clone(), max_bytes: 1, max_files: 3 }).expect("opens");
        log.write(&record("/filler"));
        log.write(&record(&format!("/{number}")));
        drop(log);
    }
    assert_eq!(fs::read_dir(directory.path()).expect("lists").count(), 3);
    let paths: Vec<_> =
        Reader::new(&path).tail(99).expect("reads").into_iter().filter_map(|r| r.path).collect();
    assert!(paths.contains(&"/5".to_owned()) && !paths.contains(&"/1".to_owned()), "{paths:?}");
}

#[test]
fn the_torn_line_of_a_killed_writer_spoils_no_other() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("access.log");
    fs::write(&path, "{\"id\":\"0000").expect("writes");
    let log = Log::open(LogConfig::new(&path)).expect("opens");
    log.write(&record("/after"));
    drop(log);
    assert_eq!(Reader::new(&path).tail(9).expect("reads").len(), 1);
}

#[test]
fn a_log_that_is_not_there_has_no_records() {
    let directory = tempfile::tempdir().expect("directory");
    let reader = Reader::new(directory.path().join("none.log"));
    assert_eq!(reader.tail(5).expect("reads"), []);
}

#[test]
fn a_refusal_can_be_read_before_the_log_closes() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("access.log");
    let log = Log::open(LogConfig::new(&path)).expect("opens");
    let mut refused = record("/secret");
    refused.outcome = Outcome::Refused;
    log.write(&refused);
    let reader = Reader::new(&path);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while reader.find(refused.id).expect("reads").is_none() {
        assert!(std::time::Instant::now() < deadline, "the record never came");
        std::thread::yield_now();
    }
}

#[test]
fn metrics_count_what_the_records_say() {
    let metrics = Metrics::default();
    metrics.observe(&record("/a"));
    metrics.observe(&record("/b"));
    let mut tcp = record("/");
    tcp.protocol = Protocol::Tcp;
    tcp.status = None;
    let open = metrics.open(&tcp);
    open.passed(12);
    assert!(metrics.encode().expect("encodes").contains("reporter=\"destination\"} 12\n"));
    drop(open);
    metrics.observe_rest(&tcp, 12);
    let text = metrics.encode().expect("encodes");
    let labels = |code, protocol| {
        format!(
            "{{source=\"edge\",source_namespace=\"shop\",destination=\"api\",\
             destination_namespace=\"shop\",protocol=\"{protocol}\",code=\"{code}\",reporter=\"destination\"}}"
        )
    };
    for line in [
        format!("carrack_requests_total{} 2\n", labels("200", "http")),
        format!("carrack_request_duration_seconds_count{} 2\n", labels("200", "http")),
        format!("carrack_tcp_connections_total{} 1\n", labels("-", "tcp")),
        format!("carrack_tcp_bytes_total{} 30\n", labels("-", "tcp")),
        format!("carrack_tcp_connections_open{} 0\n", labels("-", "tcp")),
    ] {
        assert!(text.contains(&line), "no {line} in {text}");
    }
}

//! The page in a browser without a screen, over a proxy whose counters are known.

use std::io;
use std::process::{Command, Output};
use std::sync::Arc;

use carrack_net::{serve, unix};
use carrack_observe::client::ObserveClient;
use carrack_observe::{Observe, ObserveConfig};
use carrack_telemetry::access::Record;
use carrack_telemetry::metrics::{self, Metrics};
use http::StatusCode;
use tokio::net::TcpListener;

/// A record as the proxy writes it.
fn line(id: u64, reporter: &str, destination: &str, more: &str) -> String {
    format!(
        "{{\"id\":\"{id:016x}\",\"at\":\"2026-01-02T03:04:05Z\",\"reporter\":\"{reporter}\",\"protocol\":\"http\",\"source\":{{\"namespace\":\"shop\",\"service\":\"web\"}},\"destination\":{{\"namespace\":\"shop\",\"service\":\"{destination}\"}},\"port\":80,\"method\":\"GET\",\"duration_us\":4000,\"bytes_in\":1,\"bytes_out\":2,{more}}}\n"
    )
}

const REFUSED: &str = r#""path":"/<img src=x onerror=alert(1)>","status":403,"outcome":"refused","decision":{"verdict":"denied","summary":"the DENY policy matches","policy":"shop/no-reading","action":"DENY","place":{"file":"policies/shop.yaml","line":7,"column":5},"evidence":[{"policy":"shop/no-reading","field":"rules[0].to[0].methods","pattern":"GET","value":"GET","matched":true,"place":{"file":"policies/shop.yaml","line":9,"column":20}}]}"#;
const ANSWERED: &str = r#""path":"/cart","status":200,"outcome":"answered""#;

/// A watcher that has seen thirty answered and ten refused requests.
async fn watcher(directory: &std::path::Path) -> Arc<Observe> {
    let counters = Arc::new(Metrics::default());
    let shown = Arc::clone(&counters);
    let handler = move |_| {
        let text = shown.encode().expect("encodes");
        async move { serve::answer(StatusCode::OK, metrics::CONTENT_TYPE, text) }
    };
    let socket = directory.join("proxy.sock");
    let listener = unix::bind(&socket).expect("binds");
    tokio::spawn(serve::unix(listener, handler, std::future::pending()));
    let log = directory.join("access.log");
    let observe = Observe::new(ObserveConfig::new(socket, &log));
    observe.look().await;
    let answered = line(1, "source", "api", ANSWERED);
    let refused = line(2, "destination", "vault", REFUSED);
    for (line, times) in [(&answered, 30), (&refused, 10)] {
        let record: Record = serde_json::from_str(line).expect("is a record");
        (0..times).for_each(|_| counters.observe(&record));
    }
    std::fs::write(&log, answered + &refused).expect("writes");
    observe.look().await;
    observe
}

#[tokio::test]
async fn the_graph_and_the_reason_of_a_refusal_are_told_over_the_socket() {
    let directory = tempfile::tempdir().expect("a directory");
    let observe = watcher(directory.path()).await;
    let socket = directory.path().join("observe.sock");
    let listener = unix::bind(&socket).expect("binds");
    tokio::spawn(observe.serve_unix(listener, std::future::pending()));
    let client = ObserveClient::new(socket);
    let graph = client.graph().await.expect("answers");
    assert!(graph.proxy.answers);
    let edges: Vec<_> =
        graph.edges.iter().map(|e| (e.destination.service.as_str(), e.total)).collect();
    assert_eq!(edges, [("api", 30), ("vault", 10)]);
    assert!(graph.edges[1].error_ratio > 0.99);
    let p50 = graph.edges[0].p50_ms.expect("is known");
    assert!((3.0..=5.0).contains(&p50), "{p50}");
    let explanation = client.why("0000000000000002").await.expect("answers").expect("is there");
    let decision = explanation.deciding().decision.as_ref().expect("was decided");
    assert_eq!(decision.policy.as_deref(), Some("shop/no-reading"));
    assert!(client.why("00000000000000ff").await.expect("answers").is_none());
    assert!(client.why("../graph").await.is_err());
    assert!(client.metrics().await.expect("answers").contains("carrack_requests_total"));
    assert_eq!(client.records(1, true).await.expect("answers").len(), 1);
}

#[tokio::test]
async fn a_watcher_whose_proxy_is_gone_says_so_and_keeps_what_it_saw() {
    let directory = tempfile::tempdir().expect("a directory");
    let observe = watcher(directory.path()).await;
    std::fs::remove_file(directory.path().join("proxy.sock")).expect("removes");
    observe.look().await;
    let graph = observe.graph();
    assert!(!graph.proxy.answers);
    assert!(graph.proxy.trouble.is_some());
    assert_eq!(graph.edges.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_the_graph_and_the_refusal_in_a_browser() {
    let directory = tempfile::tempdir().expect("a directory");
    let observe = watcher(directory.path()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("is bound");
    tokio::spawn(observe.serve(listener, std::future::pending()));
    let profile = directory.path().join("profile");
    let browsing = tokio::task::spawn_blocking(move || {
        browse(&profile, &format!("http://127.0.0.1:{}/", address.port()))
    });
    let output = match browsing.await.expect("ends") {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            println!("skipped: there is no chromium on this machine");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let page = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("CONSOLE"), "the browser complained: {said}");
    let graph = between(&page, "<svg id=\"graph\"", "</svg>");
    for shown in ["web", "api", "vault", "100 %", "p50 4.0 ms"] {
        assert!(graph.contains(shown), "`{shown}` is not in the graph: {graph}");
    }
    let refusals = between(&page, "<ol id=\"refusals\">", "</ol>");
    for shown in [
        "web → vault",
        "shop/no-reading",
        "policies/shop.yaml:7:5",
        "carrack why 0000000000000002",
        "&lt;img src=x onerror=alert(1)&gt;",
    ] {
        assert!(refusals.contains(shown), "`{shown}` is not among the refusals: {refusals}");
    }
    assert!(!page.contains("<img src=\"x\""), "a path became markup");
}

fn browse(profile: &std::path::Path, address: &str) -> io::Result<Output> {
    Command::new("chromium")
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic"])
        .args(["--no-first-run", "--disable-background-networking", "--disable-component-update"])
        .args(["--disable-sync", "--enable-logging=stderr", "--window-size=1500,1000"])
        .args(["--virtual-time-budget=3000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(address)
        .output()
}

fn between<'p>(page: &'p str, start: &str, end: &str) -> &'p str {
    let (_, rest) = page.split_once(start).unwrap_or_else(|| panic!("no {start} in {page}"));
    rest.split_once(end).map_or(rest, |(inside, _)| inside)
}

#[tokio::test]
async fn a_page_of_another_host_is_refused() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let directory = tempfile::tempdir().expect("a directory");
    let observe = watcher(directory.path()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("is bound");
    tokio::spawn(observe.serve(listener, std::future::pending()));
    for (host, expected) in [("evil.example", "HTTP/1.1 421"), ("localhost", "HTTP/1.1 200")] {
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
        let request =
            format!("GET /api/state HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("asks");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answers");
        assert!(answer.starts_with(expected), "{host}: {answer}");
        let guarded = answer.contains("content-security-policy: default-src 'none'");
        assert_eq!(guarded, host == "localhost", "{answer}");
    }
}

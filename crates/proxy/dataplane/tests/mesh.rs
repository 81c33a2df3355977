//! The node proxy between real network namespaces. Needs root.

#![expect(clippy::print_stderr, reason = "a test that skips says why")]

#[path = "mesh/application.rs"]
mod application;
#[path = "mesh/authority.rs"]
mod authority;
#[path = "mesh/harness.rs"]
mod harness;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carrack_net::tls;
use carrack_telemetry::access::{Outcome, Protocol as Spoken, Reporter};
use carrack_xds::{Action, Authorization, Match, Operation, Origin, Protocol, Rule, Source};
use harness::{Mesh, PATIENCE, exchange, ingress, possible, yields_nothing};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const GET: &str = "GET /items?secret=1 HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n";

fn at(line: u32) -> Origin {
    Origin { file: "policy.yaml".into(), line, column: 5 }
}

fn words(list: &[&str]) -> Vec<Match> {
    list.iter().map(|word| Match { pattern: (*word).into(), origin: at(7) }).collect()
}

fn policy(mesh: &Mesh, action: Action, to: &str, rule: Rule) -> Authorization {
    Authorization {
        name: "policy".into(),
        namespace: "shop".into(),
        action,
        workloads: vec![mesh.uid(to)],
        rules: vec![rule],
        origin: at(1),
    }
}

fn methods(list: &[&str]) -> Rule {
    let to = vec![Operation { methods: words(list), ..Operation::default() }];
    Rule { origin: at(5), to, ..Rule::default() }
}

fn from(principal: &str) -> Rule {
    let from = vec![Source { principals: words(&[principal]), ..Source::default() }];
    Rule { origin: at(5), from, ..Rule::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http_request_reaches_the_service_and_leaves_one_record_at_each_end() {
    if !possible() {
        return;
    }
    let mesh = Mesh::start(&["edge", "api"]).await;
    application::http("api", mesh.listen("api", 8080));
    let answer = mesh.http("edge", "api", 8080, GET).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("api GET /items host=api trace=00-"), "{answer}");
    assert!(!answer.contains("0123456789abcdef"), "an application spoke of decisions: {answer}");
    for reporter in [Reporter::Source, Reporter::Destination] {
        let record = mesh.record("a record", |one| one.reporter == reporter).await;
        assert_eq!((&*record.source.service, &*record.destination.service), ("edge", "api"));
        assert_eq!((record.path.as_deref(), record.status), (Some("/items"), Some(200)));
        assert_eq!(record.outcome, Outcome::Answered);
    }
    let records = mesh.records();
    assert_eq!(records.len(), 2, "{records:#?}");
    assert_eq!(records[0].trace_id, records[1].trace_id);
    let metrics = mesh.ask("/metrics").await.expect("metrics");
    let line = "carrack_requests_total{source=\"edge\",source_namespace=\"shop\",destination=\"api\",\
                destination_namespace=\"shop\",protocol=\"http\",code=\"200\",reporter=\"destination\"} 1";
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_on_one_connection_are_routed_each_for_itself() {
    if !possible() {
        return;
    }
    let mesh = Mesh::with(&["edge", "api", "spare"], Duration::from_secs(3600), |resources| {
        resources.services[1].endpoints = vec!["uid-api".into(), "uid-spare".into()];
    })
    .await;
    application::http("api", mesh.listen("api", 8080));
    application::http("spare", mesh.listen("spare", 8080));
    let mut stream = mesh.connect("edge", "api", 8080).await;
    let mut answered = Vec::new();
    for _ in 0..4 {
        stream
            .write_all(b"POST /x HTTP/1.1\r\nHost: api\r\nContent-Length: 2\r\n\r\nhi")
            .await
            .expect("writes");
        let answer = read_answer(&mut stream).await;
        assert!(answer.ends_with(" hi"), "{answer}");
        answered.push(answer.contains("\r\n\r\nspare"));
    }
    assert_eq!(answered.iter().filter(|spare| **spare).count(), 2, "{answered:?}");
}

/// One answer with a content length, from a connection that stays.
async fn read_answer(stream: &mut TcpStream) -> String {
    let reading = async {
        let mut answer = Vec::new();
        loop {
            let count = stream.read_buf(&mut answer).await.expect("reads");
            assert_ne!(count, 0, "closed after {}", String::from_utf8_lossy(&answer));
            let text = String::from_utf8_lossy(&answer).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head
                .lines()
                .find_map(|line| {
                    line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned)
                })
                .and_then(|length| length.parse::<usize>().ok());
            if length == Some(body.len()) {
                return text;
            }
        }
    };
    timeout(PATIENCE, reading).await.expect("an answer in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_passes_request_by_request() {
    if !possible() {
        return;
    }
    let mesh = Mesh::start(&["edge", "api"]).await;
    application::http2("api", mesh.listen("api", 8080));
    let stream = mesh.connect("edge", "api", 8080).await;
    let executor = hyper_util::rt::TokioExecutor::new();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, io).await.expect("handshake");
    tokio::spawn(connection);
    for path in ["/one", "/two"] {
        let request = hyper::Request::builder()
            .method("POST")
            .uri(format!("http://api:8080{path}"))
            .body(Full::new(Bytes::from_static(b"body")))
            .expect("a request");
        let response = timeout(PATIENCE, sender.send_request(request))
            .await
            .expect("in time")
            .expect("answers");
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.expect("body").to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        assert!(body.starts_with(&format!("api POST {path}")) && body.ends_with("body"), "{body}");
    }
    let is_ours = |one: &carrack_telemetry::access::Record| {
        one.protocol == Spoken::Http2 && one.path.as_deref() == Some("/two")
    };
    mesh.record("a record of the second request", is_ours).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_pass_unchanged_and_half_closed_connections_finish() {
    if !possible() {
        return;
    }
    let mesh = Mesh::start(&["edge", "store"]).await;
    application::bytes(mesh.listen("store", 6379));
    let mut stream = mesh.connect("edge", "store", 6379).await;
    let payload: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1] ^ 0xa5).collect();
    let (mut read, mut write) = stream.split();
    let mut echoed = Vec::new();
    let (written, received) = tokio::join!(
        async {
            write.write_all(&payload).await?;
            write.shutdown().await
        },
        timeout(PATIENCE, read.read_to_end(&mut echoed)),
    );
    written.expect("writes");
    received.expect("in time").expect("reads");
    assert!(echoed == payload, "{} of {} bytes", echoed.len(), payload.len());
    let ours = |one: &carrack_telemetry::access::Record| one.reporter == Reporter::Destination;
    let record = mesh.record("a record", ours).await;
    assert_eq!((record.protocol, record.outcome), (Spoken::Tcp, Outcome::Answered));
    assert_eq!((record.bytes_in, record.bytes_out), (3_000_000, 3_000_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_speaks_first_is_heard_at_once() {
    if !possible() {
        return;
    }
    let mesh = Mesh::start(&["edge", "mail"]).await;
    application::greeting(mesh.listen("mail", 25));
    let mut stream = mesh.connect("edge", "mail", 25).await;
    let mut greeting = [0; 11];
    timeout(PATIENCE, stream.read_exact(&mut greeting)).await.expect("in time").expect("reads");
    assert_eq!(&greeting, b"220 ready\r\n");
    assert_eq!(exchange(stream, "HELO me\r\n").await, "HELO me\r\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_passes() {
    if !possible() {
        return;
    }
    let mesh = Mesh::start(&["edge", "live"]).await;
    application::websocket(mesh.listen("live", 80));
    let mut stream = mesh.connect("edge", "live", 80).await;
    let request =
        "GET /ws HTTP/1.1\r\nHost: live\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("writes");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(PATIENCE, stream.read_u8()).await.expect("in time").expect("reads"));
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream.write_all(b"frame").await.expect("writes");
    let mut frame = [0; 5];
    timeout(PATIENCE, stream.read_exact(&mut frame)).await.expect("in time").expect("reads");
    assert_eq!(&frame, b"frame");
    drop(stream);
    let record = mesh.record("a record", |one| one.status == Some(101)).await;
    assert_eq!(record.method.as_deref(), Some("GET"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deny_policy_takes_effect_on_the_next_request_and_names_itself() {
    if !possible() {
        return;
    }
    let mut mesh = Mesh::start(&["edge", "api"]).await;
    application::http("api", mesh.listen("api", 8080));
    let mut stream = mesh.connect("edge", "api", 8080).await;
    let delete = "DELETE /items/1 HTTP/1.1\r\nHost: api\r\n\r\n";
    stream.write_all(delete.as_bytes()).await.expect("writes");
    assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 200"));
    let deny = policy(&mesh, Action::Deny, "api", methods(&["DELETE"]));
    mesh.apply(|resources| resources.authorizations.push(deny)).await;
    stream.write_all(delete.as_bytes()).await.expect("the same connection still stands");
    let answer = read_answer(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden"), "{answer}");
    let id = answer
        .lines()
        .find_map(|line| line.strip_prefix("x-carrack-decision: "))
        .and_then(carrack_telemetry::access::DecisionId::parse)
        .expect("an id");
    assert!(answer.contains(&format!("carrack why {id}")), "{answer}");
    let record = mesh.record("the refusal", |one| one.id == id).await;
    let decision = record.decision.expect("a decision");
    assert_eq!(decision.policy.as_deref(), Some("shop/policy"));
    assert_eq!(
        decision.place.as_ref().map(ToString::to_string).as_deref(),
        Some("policy.yaml:5:5")
    );
    assert_eq!((&*decision.evidence[0].pattern, decision.evidence[0].place.line), ("DELETE", 7));
    mesh.record("the caller's own", |one| one.refused_by == Some(id)).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: api\r\n\r\n").await.expect("writes");
    assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 200"));
    mesh.apply(|resources| resources.authorizations.clear()).await;
    stream.write_all(delete.as_bytes()).await.expect("writes");
    assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allow_policy_lets_in_whom_it_names() {
    if !possible() {
        return;
    }
    let mut mesh = Mesh::start(&["edge", "other", "api", "store"]).await;
    application::http("api", mesh.listen("api", 8080));
    application::bytes(mesh.listen("store", 6379));
    application::greeting(mesh.listen("store", 25));
    let mut to_api = policy(&mesh, Action::Allow, "api", from("mesh.test/ns/shop/sa/edge"));
    to_api.workloads.push(mesh.uid("store"));
    mesh.apply(|resources| resources.authorizations.push(to_api)).await;
    assert!(mesh.http("edge", "api", 8080, GET).await.starts_with("HTTP/1.1 200"));
    let answer = mesh.http("other", "api", 8080, GET).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let mut allowed = mesh.connect("edge", "store", 6379).await;
    allowed.write_all(b"PING").await.expect("writes");
    let mut echoed = [0; 4];
    timeout(PATIENCE, allowed.read_exact(&mut echoed)).await.expect("in time").expect("reads");
    let refused = mesh.connect("other", "store", 6379).await;
    assert_eq!(exchange(refused, "*1\r\n$4\r\nPING\r\n").await, "");
    // One that waits for the server to speak is not left waiting.
    let refused = mesh.connect("other", "store", 25).await;
    assert_eq!(exchange(refused, "").await, "");
    let by_store = |one: &carrack_telemetry::access::Record| {
        one.reporter == Reporter::Destination && &*one.destination.service == "store"
    };
    let refused =
        mesh.record("the refusal", |one| by_store(one) && one.outcome == Outcome::Refused).await;
    assert_eq!(
        refused.decision.expect("a decision").evidence[0].value,
        "mesh.test/ns/shop/sa/other"
    );
    mesh.record("the caller's own", |one| one.refused_by == Some(refused.id)).await;
}

/// Waits until both ends have counted a connection of bytes that failed with this word.
async fn failed_at_both_ends(mesh: &Mesh, from: &str, to: &str, code: &str) {
    let source = format!("carrack_tcp_connections_total{{source=\"{from}\"");
    let destination = format!("destination=\"{to}\"");
    let ends = ["source", "destination"]
        .map(|reporter| format!("code=\"{code}\",reporter=\"{reporter}\""));
    let counted = async || {
        let page = mesh.ask("/metrics").await?;
        let shows = |end: &String| {
            page.lines().any(|line| {
                [source.as_str(), &destination, end].iter().all(|part| line.contains(part))
            })
        };
        ends.iter().all(shows).then_some(())
    };
    harness::eventually("the failure in the metrics", counted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_refused_or_find_nobody_are_errors_at_both_ends() {
    if !possible() {
        return;
    }
    let mut mesh = Mesh::start(&["edge", "other", "store"]).await;
    let unheard = mesh.connect("edge", "store", 6379).await;
    assert_eq!(exchange(unheard, "*1\r\n$4\r\nPING\r\n").await, "");
    failed_at_both_ends(&mesh, "edge", "store", "unreachable").await;
    let deny = policy(&mesh, Action::Deny, "store", from("*/sa/other"));
    mesh.apply(|resources| resources.authorizations.push(deny)).await;
    let refused = mesh.connect("other", "store", 6379).await;
    assert_eq!(exchange(refused, "*1\r\n$4\r\nPING\r\n").await, "");
    failed_at_both_ends(&mesh, "other", "store", "refused").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_ends_the_connections_it_would_not_have_let_in() {
    if !possible() {
        return;
    }
    let mut mesh = Mesh::start(&["edge", "store"]).await;
    application::bytes(mesh.listen("store", 6379));
    let mut stream = mesh.connect("edge", "store", 6379).await;
    stream.write_all(b"PING").await.expect("writes");
    let mut echoed = [0; 4];
    timeout(PATIENCE, stream.read_exact(&mut echoed)).await.expect("in time").expect("reads");
    let shown = async || {
        let page = mesh.ask("/metrics").await?;
        let open = "carrack_tcp_connections_open{source=\"edge\"";
        let counted = "carrack_tcp_bytes_total{source=\"edge\"";
        (page.contains(open) && page.contains(counted)).then_some(())
    };
    harness::eventually("the connection in the metrics", shown).await;
    let deny = policy(&mesh, Action::Deny, "store", from("*/sa/edge"));
    mesh.apply(|resources| resources.authorizations.push(deny)).await;
    let ended = timeout(PATIENCE, stream.read(&mut echoed)).await.expect("in time");
    assert!(!matches!(ended, Ok(1..)), "{ended:?}");
    let ours = |one: &carrack_telemetry::access::Record| {
        one.reporter == Reporter::Destination && one.outcome == Outcome::Refused
    };
    let record = mesh.record("the end of it", ours).await;
    assert_eq!(record.decision.expect("a decision").policy.as_deref(), Some("shop/policy"));
    assert_eq!((record.bytes_in, record.bytes_out), (4, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_and_large_bodies_pass_at_once() {
    if !possible() {
        return;
    }
    let mesh = Mesh::start(&["edge", "api"]).await;
    application::http("api", mesh.listen("api", 8080));
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..40_usize {
        let mut stream = mesh.connect("edge", "api", 8080).await;
        callers.spawn(async move {
            for round in 0..10_usize {
                let body = "x".repeat(number * 1000 + round);
                let request = if round % 2 == 0 {
                    format!("POST /{number} HTTP/1.1\r\nHost: api\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                } else {
                    format!(
                        "POST /{number} HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                        body.len()
                    )
                };
                stream.write_all(request.as_bytes()).await.expect("writes");
                let answer = read_answer(&mut stream).await;
                let got = answer.bytes().rev().take_while(|byte| *byte == b'x').count();
                assert_eq!(got, body.len(), "caller {number} round {round}");
            }
        });
    }
    callers.join_all().await;
    let ours = |one: &&carrack_telemetry::access::Record| one.reporter == Reporter::Source;
    harness::eventually("every record", async || {
        (mesh.records().iter().filter(ours).count() == 400).then_some(())
    })
    .await;
    assert!(mesh.records().iter().all(|one| one.outcome == Outcome::Answered));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_requests_and_answers_without_a_body_keep_the_connection() {
    if !possible() {
        return;
    }
    let mesh = Mesh::start(&["edge", "api"]).await;
    let mut application = ScriptedServer::new(mesh.listen("api", 8080));
    let mut stream = mesh.connect("edge", "api", 8080).await;
    for (request, answer) in [
        ("HEAD / HTTP/1.1\r\nHost: api\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
        ("GET / HTTP/1.1\r\nHost: api\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET / HTTP/1.1\r\nHost: api\r\n\r\n", "HTTP/1.1 304 Not Modified\r\n\r\n"),
    ] {
        stream.write_all(request.as_bytes()).await.expect("writes");
        application.answer(answer).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(PATIENCE, stream.read_u8()).await.expect("in time").expect("reads"));
        }
        let status = answer.lines().next().expect("a line");
        assert!(String::from_utf8_lossy(&head).starts_with(status), "{head:?}");
    }
    assert_eq!(application.connections, 1, "the application's connection was kept");
}

/// Answers requests without bodies with what it is told.
struct ScriptedServer {
    listener: tokio::net::TcpListener,
    stream: Option<TcpStream>,
    connections: usize,
}

impl ScriptedServer {
    fn new(listener: tokio::net::TcpListener) -> Self {
        Self { listener, stream: None, connections: 0 }
    }

    async fn answer(&mut self, answer: &str) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            if self.stream.is_none() {
                let accepted = timeout(PATIENCE, self.listener.accept()).await.expect("in time");
                self.stream = Some(accepted.expect("accepts").0);
                self.connections += 1;
            }
            let Some(stream) = &mut self.stream else { unreachable!("just connected") };
            match timeout(PATIENCE, stream.read_u8()).await.expect("in time") {
                Ok(byte) => request.push(byte),
                Err(_) => self.stream = None,
            }
        }
        let stream = self.stream.as_mut().expect("a connection");
        stream.write_all(answer.as_bytes()).await.expect("writes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_closes_its_kept_connections_costs_no_request() {
    if !possible() {
        return;
    }
    let mesh = Mesh::start(&["edge", "api"]).await;
    let mut application = ScriptedServer::new(mesh.listen("api", 8080));
    let mut stream = mesh.connect("edge", "api", 8080).await;
    for round in 1..=3 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: api\r\n\r\n").await.expect("writes");
        application.answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 200"), "round {round}");
        // Closes although it never said it would.
        application.stream = None;
    }
    assert!(application.connections >= 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_one_replica_cannot_answer_goes_to_another() {
    if !possible() {
        return;
    }
    let mesh = Mesh::with(&["edge", "api", "spare"], Duration::from_secs(3600), |resources| {
        resources.services[1].endpoints = vec!["uid-api".into(), "uid-spare".into()];
    })
    .await;
    // Nobody listens in `api`, although it is called ready.
    application::http("spare", mesh.listen("spare", 8080));
    for _ in 0..4 {
        let answer = mesh.http("edge", "api", 8080, GET).await;
        assert!(answer.contains("\r\n\r\nspare GET"), "{answer}");
        assert!(!answer.contains("x-carrack-unanswered"), "{answer}");
    }
    // One that reads the request and dies may be asked for something safe only.
    let dying = mesh.listen("api", 8080);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = dying.accept().await.expect("accepts");
            // One at a time: a connection that nobody uses would keep it from all others.
            let mut request = [0; 16];
            stream.read_exact(&mut request).await.ok();
        }
    });
    for _ in 0..4 {
        let answer = mesh.http("edge", "api", 8080, GET).await;
        assert!(answer.contains("\r\n\r\nspare GET"), "{answer}");
    }
    let mut statuses = Vec::new();
    for _ in 0..2 {
        let delete = "DELETE /x HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n";
        let answer = mesh.http("edge", "api", 8080, delete).await;
        statuses.push(answer.starts_with("HTTP/1.1 502"));
    }
    assert_eq!(statuses.iter().filter(|broken| **broken).count(), 1, "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_comes_in_from_outside_the_mesh() {
    if !possible() {
        return;
    }
    let mesh = Mesh::start(&["edge", "api"]).await;
    application::http("api", mesh.listen("api", 8080));
    yields_nothing(TcpStream::connect((mesh.address("api"), 8080)).await.ok()).await;
    let record = mesh.record("the refusal", |one| one.port == 8080).await;
    assert_eq!((record.outcome, &*record.source.service), (Outcome::Refused, "unknown"));
    // TLS without a certificate of this mesh gets no further than its handshake.
    let to_tunnel = TcpStream::connect((mesh.address("api"), 15008)).await.expect("connects");
    exchange(to_tunnel, GET).await;
    let record = mesh.record("the refusal", |one| one.port == 15008).await;
    assert_eq!(record.outcome, Outcome::Refused);
    let hidden = |one: &carrack_telemetry::access::Record| one.reporter == Reporter::Destination;
    assert!(mesh.records().iter().filter(|one| hidden(one)).all(|one| one.status.is_none()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_leads_to_the_ports_of_its_workload_and_nowhere_else() {
    if !possible() {
        return;
    }
    let mesh = Mesh::start(&["api", "other"]).await;
    application::bytes(mesh.listen("api", 8080));
    application::bytes(mesh.listen("other", 8080));
    let credentials = Arc::new(mesh.authority.credentials("spiffe://mesh.test/ns/shop/sa/guest"));
    let config = tls::client_config(credentials, &[b"h2"]).expect("config");
    let stream = TcpStream::connect((mesh.address("api"), 15008)).await.expect("connects");
    let name = mesh.address("api").to_string().try_into().expect("a name");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await.expect("an identity of the mesh gets in");
    let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    let api = mesh.address("api");
    for (method, authority, expected) in [
        ("CONNECT", format!("{api}:8080"), 200),
        ("CONNECT", format!("{}:8080", mesh.address("other")), 400),
        ("CONNECT", "127.0.0.1:8080".to_owned(), 400),
        ("CONNECT", "api:8080".to_owned(), 400),
        ("CONNECT", format!("{api}:15001"), 400),
        ("CONNECT", format!("{api}:15006"), 400),
        ("CONNECT", format!("{api}:15008"), 400),
        ("CONNECT", format!("{api}:9"), 503),
        ("GET", format!("http://{api}:8080/"), 400),
    ] {
        let request =
            http::Request::builder().method(method).uri(&authority).body(()).expect("a request");
        let mut sender = sender.clone().ready().await.expect("ready");
        let (response, _send) = sender.send_request(request, method == "GET").expect("sends");
        let response = timeout(PATIENCE, response).await.expect("in time").expect("answers");
        assert_eq!(response.status(), expected, "{method} {authority}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_to_a_proxy_with_another_identity() {
    if !possible() {
        return;
    }
    let hour = Duration::from_secs(3600);
    let mesh = Mesh::with(&["edge", "api"], hour, |resources| {
        // On another node, as far as this proxy is told.
        resources.workloads[1].netns = None;
    })
    .await;
    let impostor = "spiffe://mesh.test/ns/shop/sa/impostor";
    let credentials = Arc::new(mesh.authority.credentials(impostor));
    let config = tls::server_config(credentials, &[b"h2"]).expect("config");
    let listener = mesh.listen("api", 15008);
    let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        loop {
            let (stream, _) = listener.accept().await.expect("accepts");
            let mut stream = acceptor.accept(stream).await.expect("handshake");
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await.ok();
            sender.send(bytes).expect("somebody listens");
        }
    });
    let answer = mesh.http("edge", "api", 8080, GET).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("impostor, not spiffe://mesh.test/ns/shop/sa/api"), "{answer}");
    let bytes = timeout(PATIENCE, received.recv()).await.expect("in time");
    assert_eq!(bytes.expect("a connection"), b"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_crosses_the_bridge_in_clear() {
    if !possible() {
        return;
    }
    let mesh = Mesh::start(&["edge", "api"]).await;
    application::http("api", mesh.listen("api", 8080));
    let marker = format!("marker-{}-of-this-test", std::process::id());
    let (kind, protocol) =
        (socket2::Type::RAW, socket2::Protocol::from(i32::from(0x0003_u16.to_be())));
    let wire =
        socket2::Socket::new(socket2::Domain::PACKET, kind, Some(protocol)).expect("a raw socket");
    wire.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    let request = format!("GET /{marker} HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n");
    let answer = mesh.http("edge", "api", 8080, &request).await;
    assert!(answer.contains(&marker), "{answer}");
    let captured = tokio::task::spawn_blocking(move || {
        let mut all = Vec::new();
        let mut packet = vec![0; 65536];
        while let Ok(count) = std::io::Read::read(&mut &wire, &mut packet) {
            all.extend_from_slice(&packet[..count]);
        }
        all
    })
    .await
    .expect("captures");
    assert!(captured.len() > 2000, "only {} bytes captured", captured.len());
    assert!(!captured.windows(marker.len()).any(|part| part == marker.as_bytes()), "in clear");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_published_port_leads_into_the_mesh_and_tells_who_called() {
    if !possible() {
        return;
    }
    let mut mesh = Mesh::start(&["edge", "store"]).await;
    application::http("edge", mesh.listen("edge", 80));
    application::bytes(mesh.listen("store", 6379));
    let (web, store) = (ingress("edge", 80, None), ingress("store", 6379, Some(Protocol::Tcp)));
    let doors = [web.clone(), store.clone()];
    mesh.apply(|resources| resources.ingress.extend(doors)).await;
    let request = "GET /shop HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 10.0.0.1\r\nConnection: close\r\n\r\n";
    let stream = TcpStream::connect(web.listen).await.expect("connects");
    let answer = exchange(stream, request).await;
    assert!(answer.contains("edge GET /shop host=localhost"), "{answer}");
    assert!(answer.contains("for=127.0.0.1"), "{answer}");
    let record = mesh.record("a record", |one| one.reporter == Reporter::Destination).await;
    assert_eq!(&*record.source.service, "carrack-ingress");
    let record = mesh.record("its own record", |one| one.reporter == Reporter::Source).await;
    assert_eq!(record.source.address, Some([127, 0, 0, 1].into()));
    let mut stream = TcpStream::connect(store.listen).await.expect("connects");
    stream.write_all(b"hello").await.expect("writes");
    let mut echoed = [0; 5];
    timeout(PATIENCE, stream.read_exact(&mut echoed)).await.expect("in time").expect("reads");
    mesh.apply(|resources| resources.ingress.clear()).await;
    let closed = async || TcpStream::connect(web.listen).await.err();
    harness::eventually("the door closed", closed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn destinations_outside_the_mesh_are_reached_and_neighbors_that_are_not_in_it_are_not() {
    if !possible() {
        return;
    }
    let mut mesh = Mesh::start(&["edge", "gone"]).await;
    let outside = tokio::net::TcpListener::bind((mesh.gateway(), 0)).await.expect("binds");
    let port = outside.local_addr().expect("address").port();
    application::bytes(outside);
    let mut stream = mesh.connect_to("edge", mesh.gateway(), port).await;
    stream.write_all(b"hello").await.expect("writes");
    let mut echoed = [0; 5];
    timeout(PATIENCE, stream.read_exact(&mut echoed)).await.expect("in time").expect("reads");
    drop(stream);
    mesh.record("a record", |one| &*one.destination.service == "external").await;
    let gone = mesh.address("gone");
    mesh.apply(|resources| {
        resources.workloads.truncate(1);
        resources.services.truncate(1);
    })
    .await;
    yields_nothing(mesh.try_connect("edge", gone, 80).await).await;
    mesh.record("the refusal", |one| one.outcome == Outcome::Refused).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_rotate_and_no_connection_is_dropped() {
    if !possible() {
        return;
    }
    let mesh = Mesh::with(&["edge", "api", "store"], Duration::from_secs(4), |_| {}).await;
    application::http("api", mesh.listen("api", 8080));
    application::bytes(mesh.listen("store", 6379));
    let mut standing = mesh.connect("edge", "store", 6379).await;
    standing.write_all(b"before").await.expect("writes");
    let mut echoed = [0; 6];
    standing.read_exact(&mut echoed).await.expect("reads");
    let first = mesh.ask("/certificates").await.expect("certificates");
    let serials = |page: &str| -> Vec<String> {
        let list: Vec<serde_json::Value> = serde_json::from_str(page).expect("JSON");
        list.iter().map(|one| one["serial"].to_string()).collect()
    };
    let before = serials(&first);
    // Three generations later the certificates the connection began under have expired.
    for _ in 0..3 {
        let seen = serials(&mesh.ask("/certificates").await.expect("certificates"));
        harness::eventually("new certificates", async || {
            let now = serials(&mesh.ask("/certificates").await?);
            now.iter().all(|one| !seen.contains(one)).then_some(())
        })
        .await;
        assert!(mesh.http("edge", "api", 8080, GET).await.starts_with("HTTP/1.1 200"));
    }
    assert_eq!(before.len(), 3);
    standing.write_all(b"after!").await.expect("the connection stands");
    timeout(PATIENCE, standing.read_exact(&mut echoed)).await.expect("in time").expect("reads");
    assert_eq!(&echoed, b"after!");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_resources_are_refused_and_the_last_good_ones_stay() {
    if !possible() {
        return;
    }
    let mut mesh = Mesh::start(&["edge", "api"]).await;
    application::http("api", mesh.listen("api", 8080));
    let good = mesh.resources.clone();
    let receipt =
        mesh.apply_refused(|resources| resources.services[0].endpoints.push("nobody".into())).await;
    assert_eq!((&*receipt.version, receipt.problems[0].path.as_str()), ("v1", "endpoints[1]"));
    assert!(mesh.http("edge", "api", 8080, GET).await.starts_with("HTTP/1.1 200"));
    std::fs::write(mesh.directory.path().join("resources.json"), "{ torn").expect("writes");
    harness::eventually("the torn file refused", async || {
        let page = mesh.ask("/config").await?;
        page.contains("\"refused\": \"unreadable\"").then_some(())
    })
    .await;
    assert!(mesh.http("edge", "api", 8080, GET).await.starts_with("HTTP/1.1 200"));
    mesh.apply(|resources| *resources = good).await;
    assert!(mesh.http("edge", "api", 8080, GET).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_proxy_is_down_nothing_passes_and_a_new_one_takes_over() {
    if !possible() {
        return;
    }
    let mut mesh = Mesh::start(&["edge", "api"]).await;
    application::http("api", mesh.listen("api", 8080));
    assert!(mesh.http("edge", "api", 8080, GET).await.starts_with("HTTP/1.1 200"));
    mesh.stop_proxy().await;
    let to = SocketAddr::from((mesh.vip("api"), 8080));
    assert!(mesh.inside("edge").connect(to, 0).await.is_err(), "the redirect points at nothing");
    let direct = TcpStream::connect((mesh.address("api"), 8080)).await;
    assert!(direct.is_err(), "from outside neither");
    mesh.run_proxy();
    mesh.captured().await;
    assert!(mesh.http("edge", "api", 8080, GET).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_not_there_is_answered_for() {
    if !possible() {
        return;
    }
    let mut mesh = Mesh::start(&["edge", "api"]).await;
    let answer = mesh.http("edge", "api", 8080, GET).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    let bytes = mesh.connect("edge", "api", 8080).await;
    assert_eq!(exchange(bytes, "*1\r\n").await, "");
    mesh.apply(|resources| resources.workloads[1].ready = false).await;
    let answer = mesh.http("edge", "api", 8080, GET).await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("no endpoint is ready"),
        "{answer}"
    );
    // The workload's own address still leads to it.
    application::http("api", mesh.listen("api", 8080));
    let direct = mesh.connect_to("edge", mesh.address("api"), 8080).await;
    assert!(exchange(direct, GET).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_reaches_itself_through_its_service() {
    if !possible() {
        return;
    }
    let mesh = Mesh::start(&["api"]).await;
    application::http("api", mesh.listen("api", 8080));
    assert!(mesh.http("api", "api", 8080, GET).await.starts_with("HTTP/1.1 200"));
    // Its proxy is no part of it.
    let answer = mesh.http("api", "api", 15008, GET).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    yields_nothing(mesh.try_connect("api", mesh.address("api"), 15001).await).await;
}

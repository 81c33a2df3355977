//! Asking and answering over local sockets.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use carrack_net::{serve, unix};
use http::StatusCode;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

async fn echo(request: http::Request<hyper::body::Incoming>) -> http::Response<serve::Body> {
    let target = request.uri().path().to_owned();
    let body = request.into_body().collect().await.expect("body").to_bytes();
    serve::text(StatusCode::OK, format!("{target} {}", String::from_utf8_lossy(&body)))
}

#[tokio::test]
async fn a_question_over_a_unix_socket_is_answered() {
    let directory = tempfile::tempdir().expect("directory");
    let socket = directory.path().join("a.sock");
    let stop = CancellationToken::new();
    let listener = unix::bind(&socket).expect("binds");
    let server = tokio::spawn(serve::unix(listener, echo, stop.clone().cancelled_owned()));
    let answer = unix::get(&socket, "/hello").await.expect("answers");
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"/hello \n"[..]));
    let answer = unix::post(&socket, "/x", "{}").await.expect("answers");
    assert_eq!(&answer.body[..], b"/x {}\n");
    stop.cancel();
    server.await.expect("stops");
}

#[tokio::test]
async fn a_question_to_nobody_says_whose_server_is_missing() {
    let error = unix::get(Path::new("/nowhere/a.sock"), "/").await.expect_err("fails");
    assert!(error.is_transient());
    assert_eq!(error.to_string(), "connecting to /nowhere/a.sock: is its server running?");
}

#[tokio::test]
async fn a_dead_servers_socket_is_replaced_and_a_live_ones_is_not() {
    let directory = tempfile::tempdir().expect("directory");
    let socket = directory.path().join("a.sock");
    let first = unix::bind(&socket).expect("binds");
    let error = unix::bind(&socket).expect_err("taken");
    assert!(matches!(error, unix::BindError::Taken { .. }), "{error}");
    drop(first);
    let _second = unix::bind(&socket).expect("binds");
    let mode = std::fs::metadata(&socket).expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let plain = directory.path().join("plain");
    std::fs::write(&plain, "data").expect("writes");
    assert!(matches!(unix::bind(&plain), Err(unix::BindError::NotASocket { .. })));
}

#[track_caller]
fn status_line(answer: &str) -> &str {
    answer.lines().next().unwrap_or_default()
}

#[tokio::test]
async fn a_page_that_names_another_host_gets_nothing_from_loopback() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("address");
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve::loopback(listener, echo, stop.clone().cancelled_owned()));
    for (host, expected) in [
        ("localhost", "HTTP/1.1 200 OK"),
        ("127.0.0.1:8080", "HTTP/1.1 200 OK"),
        ("[::1]:8080", "HTTP/1.1 200 OK"),
        ("evil.example", "HTTP/1.1 421 Misdirected Request"),
        ("127.0.0.1.evil.example", "HTTP/1.1 421 Misdirected Request"),
    ] {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("writes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("reads");
        assert_eq!(status_line(&answer), expected, "for {host}");
    }
    stop.cancel();
    server.await.expect("stops");
}

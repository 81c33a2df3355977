//! Exec, attach and logs.

use bytes::Bytes;
use carrack_engine::api::{AttachRequest, ExecRequest, Frame, LogsRequest, RemoveRequest};

use crate::scene::{FOREVER, Scene, collect, finish, shell};

#[tokio::test(flavor = "multi_thread")]
async fn another_program_runs_as_the_container_does_unless_told_otherwise() {
    let Some(scene) = Scene::new() else { return };
    let mut request = scene.request(FOREVER);
    request.service.environment.insert("OWN".to_owned(), "mine".to_owned());
    let id = scene.start(&request).await;
    let (code, output, errors) =
        scene.exec(&id, "echo $OWN $(id -u) $(pwd); echo e >&2; exit 5").await;
    assert_eq!((code, output.as_str(), errors.as_str()), (5, "mine 0 /\n", "e\n"));
    let asked = ExecRequest {
        command: shell("echo $OWN $(id -u) $(id -G) $(pwd) $HOME"),
        environment: [("OWN".to_owned(), "other".to_owned())].into_iter().collect(),
        user: Some("web".to_owned()),
        working_dir: Some("/data".to_owned()),
        ..ExecRequest::default()
    };
    let session = scene.client.exec(&id, &asked).await.expect("it runs");
    assert_eq!(finish(session).await.1, "other 1000 1000 2000 /data /tmp\n");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn input_reaches_a_program_and_its_end_too() {
    let Some(scene) = Scene::new() else { return };
    let id = scene.start(&scene.request(FOREVER)).await;
    let asked = ExecRequest {
        command: shell("wc -c; echo done"),
        interactive: true,
        ..ExecRequest::default()
    };
    let session = scene.client.exec(&id, &asked).await.expect("it runs");
    let (mut reader, mut writer) = session.split();
    // More than a pipe holds, so that both ways go at once.
    writer.stdin(Bytes::from(vec![b'x'; 3 << 20])).await.expect("it is read");
    writer.send(Frame::StdinEnd).await.expect("it is told");
    let mut output = Vec::new();
    while let Some(frame) = reader.next().await.expect("frames") {
        match frame {
            Frame::Stdout(bytes) => output.extend_from_slice(&bytes),
            Frame::Exited(exit) => assert_eq!(exit.code, 0),
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(String::from_utf8_lossy(&output), "3145728\ndone\n");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_the_size_it_is_given() {
    let Some(scene) = Scene::new() else { return };
    let id = scene.start(&scene.request(FOREVER)).await;
    let asked = ExecRequest {
        command: shell("tty; read line; stty size; echo \"<$line> $TERM\""),
        terminal: true,
        interactive: true,
        size: Some((101, 31)),
        ..ExecRequest::default()
    };
    let session = scene.client.exec(&id, &asked).await.expect("it runs");
    let (mut reader, mut writer) = session.split();
    writer.send(Frame::Resize { columns: 120, rows: 40 }).await.expect("resized");
    writer.stdin(Bytes::from_static(b"hello\n")).await.expect("typed");
    let mut output = Vec::new();
    while let Some(frame) = reader.next().await.expect("frames") {
        match frame {
            Frame::Stdout(bytes) => output.extend_from_slice(&bytes),
            Frame::Exited(exit) => assert_eq!(exit.code, 0),
            other => panic!("unexpected {other:?}"),
        }
    }
    let output = String::from_utf8_lossy(&output);
    assert!(output.contains("/dev/pts/"), "{output}");
    assert!(output.contains("40 120\r\n<hello> xterm"), "{output}");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_whose_client_leaves_is_ended() {
    let Some(scene) = Scene::new() else { return };
    let id = scene.start(&scene.request(FOREVER)).await;
    let asked = ExecRequest { command: shell("exec sleep 4321"), ..ExecRequest::default() };
    let session = scene.client.exec(&id, &asked).await.expect("it runs");
    drop(session);
    let gone = "while ps | grep -v grep | grep -q 'sleep 4321'; do :; done; echo gone";
    assert_eq!(scene.exec(&id, gone).await.1, "gone\n");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_program_in_a_container_is_127() {
    let Some(scene) = Scene::new() else { return };
    let id = scene.start(&scene.request(FOREVER)).await;
    let asked = ExecRequest { command: vec!["nonesuch".to_owned()], ..ExecRequest::default() };
    let error = scene.client.exec(&id, &asked).await.expect_err("there is none");
    assert_eq!(error.exit_code(), 127, "{error:?}");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_attaches_feeds_and_hears_the_containers_own_program() {
    let Some(scene) = Scene::new() else { return };
    let mut request = scene.request("cat; echo end; exit 4");
    request.interactive = true;
    let created = scene.client.create(&request).await.expect("made");
    let attach = AttachRequest { start: true, stdin: true, size: None };
    let mut session = scene.client.attach(&created.id, &attach).await.expect("attached");
    session.send(Frame::Stdin(Bytes::from_static(b"typed\n"))).await.expect("fed");
    session.send(Frame::StdinEnd).await.expect("ended");
    assert_eq!(finish(session).await, (4, "typed\nend\n".to_owned(), String::new()));
    assert_eq!(scene.log(&created.id).await, ["typed", "end"], "and it is logged all the same");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_with_a_terminal_is_attached_to_as_one() {
    let Some(scene) = Scene::new() else { return };
    let mut request =
        scene.request("test -t 0 && test -t 1 && stty size; read line; echo \"<$line>\"");
    request.interactive = true;
    request.terminal = true;
    let created = scene.client.create(&request).await.expect("made");
    let attach = AttachRequest { start: true, stdin: true, size: Some((90, 20)) };
    let mut session = scene.client.attach(&created.id, &attach).await.expect("attached");
    session.send(Frame::Stdin(Bytes::from_static(b"hi\n"))).await.expect("typed");
    let (code, output, _) = finish(session).await;
    assert_eq!(code, 0);
    assert!(output.contains("<hi>"), "{output}");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_followed_until_its_container_ends() {
    let Some(scene) = Scene::new() else { return };
    let id = scene
        .start(&scene.request("seq 1 3; until test -e /tmp/go; do sleep 0.01; done; seq 4 6"))
        .await;
    let asked = LogsRequest { follow: true, tail: Some(2), ..LogsRequest::default() };
    scene.until(&id, "it wrote", |_| true).await;
    while scene.log(&id).await.len() < 3 {
        tokio::task::yield_now().await;
    }
    let mut lines = scene.client.logs(&id, &asked).await.expect("followed");
    let first = lines.next().await.expect("a line").expect("one");
    assert_eq!(first.text, "2");
    scene.exec(&id, "touch /tmp/go").await;
    let rest: Vec<String> =
        collect(lines).await.expect("lines").into_iter().map(|line| line.text).collect();
    assert_eq!(rest, ["3", "4", "5", "6"]);
    let since = LogsRequest { since: Some(first.at), ..LogsRequest::default() };
    let lines = scene.client.logs(&id, &since).await.expect("read");
    assert!(collect(lines).await.expect("lines").len() >= 5);
    scene.client.rm(&id, &RemoveRequest::default()).await.expect("removed");
    scene.end().await;
}

//! Telling containerd what happened, in order, and again if it was not there to hear it.
//!
//! Events wait in a queue, and one is sent when containerd has answered for the one before:
//! it takes calls in no order. While it is away they are kept, and sent when it is back. Where it offers no socket, its own program publishes
//! each one.

use std::collections::VecDeque;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::frame::{Call, Decoder, Frame, refusal};
use super::log;
use super::wire::{Any, Message, timestamp};
use crate::poll::{EventFlags, Poll, Token};

/// Events kept while containerd is away; then the oldest is given up.
const KEPT: usize = 2048;
/// How long to wait before looking for containerd again.
const PAUSE: Duration = Duration::from_millis(500);

/// Something that happened to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Below `/tasks/`.
    topic: &'static str,
    /// In `containerd.events`.
    kind: &'static str,
    message: Message,
}

impl Event {
    pub(super) fn new(topic: &'static str, kind: &'static str, message: Message) -> Self {
        Self { topic, kind, message }
    }

    fn topic(&self) -> String {
        format!("/tasks/{}", self.topic)
    }

    fn any(&self) -> Any {
        Any::of(&format!("containerd.events.{}", self.kind), self.message.clone())
    }

    /// `ForwardRequest`.
    fn forward(&self, namespace: &str, at: SystemTime) -> Message {
        let envelope = Message::new()
            .message(1, &timestamp(at))
            .text(2, namespace)
            .text(3, &self.topic())
            .message(4, &self.any().encode());
        Message::new().message(1, &envelope)
    }
}

/// Where events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// containerd's own socket for them.
    Socket(PathBuf),
    /// A program that publishes one, and the address it should speak to.
    Program(PathBuf, String),
    /// Nobody asked.
    Nowhere,
}

/// The queue of events, and the connection they take.
#[derive(Debug)]
pub(super) struct Publisher {
    namespace: String,
    destination: Destination,
    /// Encoded calls, with the stream each was sent on.
    queue: VecDeque<(Vec<u8>, Option<u32>)>,
    connection: Option<Connection>,
    next_stream: u32,
    retry: Option<Instant>,
}

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    token: Token,
    decoder: Decoder,
    unsent: Vec<u8>,
    writes: bool,
}

impl Publisher {
    pub(super) fn new(namespace: &str, destination: Destination) -> Self {
        Self {
            namespace: namespace.to_owned(),
            destination,
            queue: VecDeque::new(),
            connection: None,
            next_stream: 1,
            retry: None,
        }
    }

    /// Whether events still wait to be heard.
    pub(super) fn is_pending(&self) -> bool {
        !self.queue.is_empty()
    }

    /// When to look for containerd again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.retry
    }

    /// Publishes an event, now or as soon as somebody is there.
    pub(super) fn publish(&mut self, poll: &mut Poll, event: &Event) {
        match &self.destination {
            Destination::Nowhere => {}
            Destination::Program(program, address) => {
                if let Err(error) = run(program, address, &self.namespace, event) {
                    log::warn(&format!(
                        "publishing {} by {}: {error}",
                        event.kind,
                        program.display()
                    ));
                }
            }
            Destination::Socket(_) => {
                let payload = event.forward(&self.namespace, SystemTime::now()).into_bytes();
                if self.queue.len() >= KEPT {
                    self.queue.pop_front();
                    log::warn("containerd has been away too long: the oldest event is given up");
                }
                self.queue.push_back((payload, None));
                self.send(poll);
            }
        }
    }

    /// Tries again what it is time for.
    pub(super) fn tick(&mut self, poll: &mut Poll) {
        if self.retry.is_some_and(|retry| retry <= Instant::now()) {
            self.retry = None;
            self.send(poll);
        }
    }

    /// Does what an event of the poll asks for; `false` when it is not about this.
    pub(super) fn handle(&mut self, poll: &mut Poll, token: Token) -> bool {
        let Some(connection) = self.connection.as_mut().filter(|own| own.token == token) else {
            return false;
        };
        let mut buffer = [0_u8; 1024];
        match rustix::io::read(&connection.socket, &mut buffer) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(0) | Err(_) => {
                self.disconnect(poll);
                return true;
            }
            Ok(read) => {
                connection.decoder.feed(buffer.get(..read).unwrap_or_default());
                if !self.take_answers() {
                    self.disconnect(poll);
                    return true;
                }
            }
        }
        self.pour(poll);
        true
    }

    fn take_answers(&mut self) -> bool {
        loop {
            let Some(connection) = &mut self.connection else { return false };
            match connection.decoder.next_frame() {
                Ok(None) => return true,
                Ok(Some(Frame::Response(stream, answer))) => {
                    if let Ok(Some(reason)) = refusal(&answer) {
                        log::warn(&format!("containerd did not take an event: {reason}"));
                    }
                    self.queue.retain(|(_, sent)| *sent != Some(stream));
                    self.send_next();
                }
                Ok(Some(Frame::Request(..) | Frame::Refused(..))) | Err(_) => return false,
            }
        }
    }

    /// Sends the first event, if it was not sent on this connection.
    fn send(&mut self, poll: &mut Poll) {
        if self.connection.is_none() && self.connect(poll).is_err() {
            self.retry = Some(Instant::now() + PAUSE);
            return;
        }
        self.send_next();
        self.pour(poll);
    }

    /// Puts the first event on its way, unless it is.
    fn send_next(&mut self) {
        let (Some(connection), Some((payload, sent @ None))) =
            (&mut self.connection, self.queue.front_mut())
        else {
            return;
        };
        let call = Call {
            service: "containerd.services.events.ttrpc.v1.Events".into(),
            method: "Forward".into(),
            payload: payload.clone(),
        };
        connection.unsent.extend(call.frame(self.next_stream));
        *sent = Some(self.next_stream);
        self.next_stream = self.next_stream.wrapping_add(2);
    }

    fn connect(&mut self, poll: &mut Poll) -> std::io::Result<()> {
        let Destination::Socket(path) = &self.destination else { return Ok(()) };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let kind = (AddressFamily::UNIX, SocketType::STREAM);
        let socket = rustix::net::socket_with(kind.0, kind.1, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path.as_os_str().as_bytes())?)?;
        let token = poll.add(&socket, EventFlags::IN)?;
        let decoder = Decoder::default();
        self.connection =
            Some(Connection { socket, token, decoder, unsent: Vec::new(), writes: false });
        Ok(())
    }

    fn disconnect(&mut self, poll: &Poll) {
        if let Some(connection) = self.connection.take() {
            poll.remove(&connection.socket);
        }
        for (_, sent) in &mut self.queue {
            *sent = None;
        }
        if self.is_pending() {
            self.retry = Some(Instant::now() + PAUSE);
        }
    }

    fn pour(&mut self, poll: &Poll) {
        let Some(connection) = &mut self.connection else { return };
        if connection.pour(poll).is_err() {
            self.disconnect(poll);
        }
    }
}

impl Connection {
    fn pour(&mut self, poll: &Poll) -> std::io::Result<()> {
        super::conversation::pour(&self.socket, &mut self.unsent)?;
        let writes = !self.unsent.is_empty();
        if writes != self.writes {
            let flags = if writes { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            poll.change(self.token, &self.socket, flags)?;
            self.writes = writes;
        }
        Ok(())
    }
}

/// Publishes one event by containerd's program; the shim's loop reaps it.
fn run(program: &Path, address: &str, namespace: &str, event: &Event) -> std::io::Result<()> {
    let topic = event.topic();
    let arguments = ["--address", address, "publish", "--topic", &topic, "--namespace", namespace];
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    // It is shorter than a pipe holds.
    child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(event.any().encode().as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write as _};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::super::frame::response;
    use super::*;

    fn oom(id: &str) -> Event {
        Event::new("oom", "TaskOOM", Message::new().text(1, id))
    }

    /// Reads one call, and answers it if told to.
    fn hear(stream: &mut UnixStream, answer: bool) -> Vec<u8> {
        let (mut decoder, mut buffer) = (Decoder::default(), [0; 256]);
        loop {
            let read = stream.read(&mut buffer).expect("read");
            assert_ne!(read, 0, "it ended");
            decoder.feed(&buffer[..read]);
            if let Some(Frame::Request(stream_id, message)) = decoder.next_frame().expect("sense") {
                if answer {
                    let answer = response(stream_id, &Ok(Message::new()));
                    stream.write_all(&answer).expect("write");
                }
                return Call::decode(&message).expect("a call").payload;
            }
        }
    }

    fn handle_all(publisher: &mut Publisher, poll: &mut Poll) {
        for (token, _) in poll.wait(Some(Duration::from_secs(10))).expect("polled") {
            assert!(publisher.handle(poll, token));
        }
    }

    #[test]
    fn an_event_that_nobody_answered_for_is_sent_again_and_nothing_is_lost() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("events.sock");
        let mut poll = Poll::new().expect("poll");
        let mut publisher = Publisher::new("ns", Destination::Socket(path.clone()));
        publisher.publish(&mut poll, &oom("one"));
        assert!(publisher.is_pending() && publisher.deadline().is_some());

        let listener = UnixListener::bind(&path).expect("bound");
        publisher.retry = Some(Instant::now());
        publisher.tick(&mut poll);
        let (mut stream, _) = listener.accept().expect("accepted");
        let first = hear(&mut stream, false);
        drop(stream);
        handle_all(&mut publisher, &mut poll);
        assert!(publisher.is_pending());

        publisher.retry = Some(Instant::now());
        publisher.tick(&mut poll);
        let (mut stream, _) = listener.accept().expect("accepted");
        assert_eq!(hear(&mut stream, true), first);
        handle_all(&mut publisher, &mut poll);
        assert!(!publisher.is_pending());
        publisher.publish(&mut poll, &oom("two"));
        assert_ne!(hear(&mut stream, true), first);
    }

    #[test]
    fn without_a_socket_containerds_program_publishes() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("directory");
        let path = |name: &str| directory.path().join(name);
        let said = path("said");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &said,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .expect("a FIFO");
        let script = format!("#!/bin/sh\n(echo \"$@\"; cat) >{}\n", said.display());
        std::fs::write(path("program"), script).expect("written");
        std::fs::set_permissions(path("program"), std::fs::Permissions::from_mode(0o755))
            .expect("executable");
        let mut poll = Poll::new().expect("poll");
        let destination = Destination::Program(path("program"), "/c.sock".into());
        Publisher::new("ns", destination).publish(&mut poll, &oom("web"));
        let text = String::from_utf8_lossy(&std::fs::read(&said).expect("read")).into_owned();
        let line = "--address /c.sock publish --topic /tasks/oom --namespace ns\n";
        assert!(text.starts_with(line) && text.contains("containerd.events.TaskOOM"), "{text}");
    }

    #[test]
    fn an_event_names_its_topic_type_and_namespace() {
        let forwarded = oom("web").forward("k8s.io", SystemTime::UNIX_EPOCH).into_bytes();
        let text = String::from_utf8_lossy(&forwarded);
        for word in ["k8s.io", "/tasks/oom", "containerd.events.TaskOOM", "web"] {
            assert!(text.contains(word), "{word}");
        }
    }
}

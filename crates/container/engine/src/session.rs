//! Programs whose standard streams go over a connection: exec and attach.
//!
//! ```text
//! client ◀─Frame─▶ connection ◀─▶ this ◀─descriptors─▶ the program
//! ```

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use carrack_shim::{Client, ExecConfig, ExecControl, ShimError, Streams};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::codec::Framed;

use crate::api::{AttachRequest, ExecRequest, Exit, Frame, FrameCodec};
use crate::bundle;
use crate::container::{Container, Glance};
use crate::engine::{Engine, blocking};
use crate::error::EngineError;
use crate::record::Phase;
use crate::streams::{Input, Output, Readable};

/// Frames on their way to a client that reads slowly.
const PENDING: usize = 16;

/// How long a container's end is held back for its removal.
const REMOVAL: Duration = Duration::from_secs(30);

/// A program added to a container, as tokio waits for it.
pub(crate) struct Program {
    control: ExecControl,
    ended: Readable,
}

impl Program {
    pub(crate) fn new(control: ExecControl) -> io::Result<Self> {
        let ended = Readable::of(control.as_fd())?;
        Ok(Self { control, ended })
    }
}

/// Waits for a program's end, without a thread.
pub(crate) async fn exit_of(program: &Program) -> Result<Exit, ShimError> {
    if program.ended.wait().await.is_err() {
        tracing::debug!("a program's end is asked for without waiting for it");
    }
    program.control.receive().map(|exit| Exit {
        code: exit.code,
        signal: exit.signal,
        out_of_memory: exit.oom,
        at: exit.at,
    })
}

impl Engine {
    /// Serves one connection on which a program is to be run in `container`.
    pub(crate) async fn serve_exec<S>(self: &Arc<Self>, container: &Arc<Container>, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (mut sink, mut frames) = Framed::new(stream, FrameCodec).split();
        let begun = match first_request::<ExecRequest, S>(&mut frames).await {
            Ok(request) => self.begin_exec(container, request).await,
            Err(error) => Err(error),
        };
        let (streams, program) = match begun {
            Ok(begun) => begun,
            Err(error) => return refuse(&mut sink, &error).await,
        };
        let program = Arc::new(program);
        let target = Target::Exec(Arc::clone(&program));
        let attempt = format!("waiting for a program in {}", container.name);
        let end =
            async { exit_of(&program).await.map_err(|source| EngineError::shim(attempt, source)) };
        converse(sink, frames, streams, target, end, &self.closing).await;
    }

    async fn begin_exec(
        self: &Arc<Self>,
        container: &Arc<Container>,
        request: ExecRequest,
    ) -> Result<(Streams, Program), EngineError> {
        if request.command.is_empty() {
            return Err(EngineError::Invalid("there is no command to run".to_owned()));
        }
        let Some(client) = container.shim().filter(|_| container.phase() == Phase::Running) else {
            return Err(EngineError::Conflict(format!(
                "{} is {}; only a running container runs another program",
                container.name,
                container.status().as_str()
            )));
        };
        let engine = Arc::clone(self);
        let shared = Arc::clone(container);
        let size = request.size.filter(|_| request.terminal);
        let stdin = request.interactive;
        let stream = blocking(move || {
            let process = bundle::exec_process(&engine, &shared, &request)?;
            let config = ExecConfig { process, stdin, detached: false };
            client.exec(config).map_err(|source| {
                let program = request.command.first().map_or("", String::as_str);
                EngineError::shim(format!("running {program} in {}", shared.name), source)
            })
        })
        .await?;
        if let Some((columns, rows)) = size
            && let Err(error) = stream.control.resize(columns, rows)
        {
            tracing::debug!(%error, "sizing a new terminal");
        }
        let attempt = format!("watching a program in {}", container.name);
        let program = Program::new(stream.control).map_err(EngineError::failed(attempt))?;
        Ok((stream.streams, program))
    }

    /// Serves one connection that watches and feeds a container's own program.
    pub(crate) async fn serve_attach<S>(self: &Arc<Self>, container: &Arc<Container>, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (mut sink, mut frames) = Framed::new(stream, FrameCodec).split();
        let begun = match first_request::<AttachRequest, S>(&mut frames).await {
            Ok(request) => self.begin_attach(container, &request).await,
            Err(error) => Err(error),
        };
        let (streams, client) = match begun {
            Ok(begun) => begun,
            Err(error) => return refuse(&mut sink, &error).await,
        };
        let target = Target::Container(client.clone());
        converse(sink, frames, streams, target, end_of_run(container), &self.closing).await;
    }

    async fn begin_attach(
        self: &Arc<Self>,
        container: &Arc<Container>,
        request: &AttachRequest,
    ) -> Result<(Streams, Client), EngineError> {
        let name = &container.name;
        if request.stdin && !container.definition.interactive {
            return Err(EngineError::Conflict(format!(
                "{name} was made without an open standard input; run it with --interactive"
            )));
        }
        let mut streams = if request.start {
            self.start_attached(container).await?
        } else {
            let Some(client) = container.shim() else {
                return Err(EngineError::Conflict(format!("{name} does not run")));
            };
            let name = name.clone();
            blocking(move || {
                client
                    .attach()
                    .map_err(|source| EngineError::shim(format!("attaching to {name}"), source))
            })
            .await?
        };
        if !request.stdin {
            streams.stdin = None;
        }
        let places = self.places(&container.id);
        let client = match container.shim() {
            Some(client) => client,
            // It ended at once; its shim answers until it is told to go.
            None => Client::connect(&places.bundle)
                .map_err(|source| EngineError::shim(format!("attaching to {name}"), source))?,
        };
        if let Some((columns, rows)) = request.size.filter(|_| container.definition.terminal) {
            Target::Container(client.clone()).resize(columns, rows).await;
        }
        Ok((streams, client))
    }
}

/// Waits for the end of the run a container is in, which may be over already.
async fn end_of_run(container: &Container) -> Result<Exit, EngineError> {
    let mut watch = container.watch();
    let begun = watch.borrow().started;
    let ended = |glance: &Glance| {
        let exited = glance.exit.is_some_and(|exit| begun.is_none_or(|begun| exit.at >= begun));
        let over = matches!(glance.phase, Phase::Restarting | Phase::Exited | Phase::Lost);
        glance.gone || exited || over || glance.started != begun
    };
    let seen = watch.wait_for(ended).await.ok().and_then(|glance| glance.exit);
    if container.auto_remove {
        // Whoever hears of its end finds it gone.
        let gone = watch.wait_for(|glance| glance.gone);
        if tokio::time::timeout(REMOVAL, gone).await.is_err() {
            tracing::warn!(container = %container.name, "a container that ended is not removed yet");
        }
    }
    seen.ok_or_else(|| {
        let why = "is lost: the process that held it was killed";
        EngineError::Conflict(format!("{} {why}", container.name))
    })
}

async fn first_request<T, S>(
    frames: &mut SplitStream<Framed<S, FrameCodec>>,
) -> Result<T, EngineError>
where
    T: for<'de> serde::Deserialize<'de>,
    S: AsyncRead + AsyncWrite,
{
    match frames.next().await {
        Some(Ok(Frame::Request(json))) => serde_json::from_slice(&json)
            .map_err(EngineError::failed("reading what is asked for on an upgraded connection")),
        Some(Err(error)) => Err(EngineError::failed("reading an upgraded connection")(error)),
        Some(Ok(_)) | None => Err(EngineError::Invalid(
            "an upgraded connection must begin with what is asked for".to_owned(),
        )),
    }
}

async fn refuse<S>(sink: &mut SplitSink<Framed<S, FrameCodec>, Frame>, error: &EngineError)
where
    S: AsyncRead + AsyncWrite,
{
    if let Err(gone) = sink.send(Frame::Failed(error.fault())).await {
        tracing::debug!(error = %gone, "a client left before it heard why not");
    }
}

/// What sizes and signals go to.
#[derive(Clone)]
enum Target {
    Exec(Arc<Program>),
    Container(Client),
}

impl Target {
    async fn resize(&self, columns: u16, rows: u16) {
        let target = self.clone();
        let resized = blocking(move || match target {
            Self::Exec(program) => program
                .control
                .resize(columns, rows)
                .map_err(EngineError::failed("sizing a terminal")),
            Self::Container(client) => client
                .resize(columns, rows)
                .map_err(|source| EngineError::shim("sizing a terminal", source)),
        });
        if let Err(error) = resized.await {
            tracing::debug!(%error, "a terminal keeps its size");
        }
    }

    async fn signal(&self, number: i32) {
        let target = self.clone();
        let sent = blocking(move || {
            let sent = match target {
                Self::Exec(program) => program.control.kill(number),
                Self::Container(client) => client.kill(number, false),
            };
            sent.map_err(|source| EngineError::shim("passing on a signal", source))
        });
        if let Err(error) = sent.await {
            tracing::debug!(%error, "a signal did not arrive");
        }
    }

    /// Standard input has ended. A program of its own notices by its pipe.
    async fn end_input(&self) {
        let Self::Container(client) = self.clone() else { return };
        let closed = blocking(move || {
            client.close_stdin().map_err(|source| EngineError::shim("ending an input", source))
        });
        if let Err(error) = closed.await {
            tracing::debug!(%error, "an input does not end");
        }
    }
}

/// Carries streams both ways until the program ended and all it wrote is sent, the client has
/// left, or the engine closes.
async fn converse<S, E>(
    sink: SplitSink<Framed<S, FrameCodec>, Frame>,
    frames: SplitStream<Framed<S, FrameCodec>>,
    streams: Streams,
    target: Target,
    end: E,
    closing: &tokio_util::sync::CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Send + 'static,
    E: Future<Output = Result<Exit, EngineError>>,
{
    let (send, pending) = mpsc::channel(PENDING);
    let writer = write_frames(sink, pending);
    // Moved in, so that the writer ends once nothing more can come.
    let program = async move {
        if send.send(Frame::Ready).await.is_err() {
            return;
        }
        let output = read_pipe(streams.stdout, &send, Frame::Stdout);
        let errors = read_pipe(streams.stderr, &send, Frame::Stderr);
        let ((), (), end) = tokio::join!(output, errors, end);
        let last = match end {
            Ok(exit) => Frame::Exited(exit),
            Err(error) => Frame::Failed(error.fault()),
        };
        // Nobody to tell is nobody to tell.
        send.send(last).await.ok();
    };
    let input = feed(frames, streams.stdin, &target);
    tokio::select! {
        ((), ()) = async { tokio::join!(program, writer) } => {}
        () = input => {}
        () = closing.cancelled() => {}
    }
}

async fn write_frames<S>(
    mut sink: SplitSink<Framed<S, FrameCodec>, Frame>,
    mut pending: mpsc::Receiver<Frame>,
) where
    S: AsyncRead + AsyncWrite,
{
    while let Some(frame) = pending.recv().await {
        if sink.send(frame).await.is_err() {
            return;
        }
    }
    if let Err(error) = sink.close().await {
        tracing::debug!(%error, "closing a connection");
    }
}

async fn read_pipe(
    descriptor: Option<OwnedFd>,
    send: &mpsc::Sender<Frame>,
    frame: impl Fn(bytes::Bytes) -> Frame,
) {
    let Some(mut pipe) = descriptor.and_then(|descriptor| Output::new(descriptor).ok()) else {
        return;
    };
    while let Ok(Some(bytes)) = pipe.read().await {
        if send.send(frame(bytes)).await.is_err() {
            return;
        }
    }
}

/// Passes on what the client sends. Ends when the client has left.
async fn feed<S>(
    mut frames: SplitStream<Framed<S, FrameCodec>>,
    stdin: Option<OwnedFd>,
    target: &Target,
) where
    S: AsyncRead + AsyncWrite,
{
    let mut stdin = stdin.and_then(|descriptor| Input::new(descriptor).ok());
    while let Some(Ok(frame)) = frames.next().await {
        match frame {
            Frame::Stdin(bytes) => {
                if let Some(pipe) = &mut stdin
                    && pipe.write(&bytes).await.is_err()
                {
                    stdin = None;
                }
            }
            Frame::StdinEnd => {
                stdin = None;
                target.end_input().await;
            }
            Frame::Resize { columns, rows } => target.resize(columns, rows).await,
            Frame::Signal(number) => target.signal(number).await,
            Frame::Request(_)
            | Frame::Ready
            | Frame::Stdout(_)
            | Frame::Stderr(_)
            | Frame::Exited(_)
            | Frame::Failed(_) => return,
        }
    }
}

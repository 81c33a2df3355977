//! A program in a container and a person's terminal, joined: stdin, stdout,
//! stderr, window size, signals, exit code.

use std::io::{IsTerminal as _, Read as _};
use std::process::ExitCode;

use bytes::Bytes;
use carrack_engine::api::{Exit, Frame};
use carrack_engine::client::{ClientError, Session, SessionWriter};
use rustix::termios::{self, OptionalActions, Termios};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::{exit, output};

/// How a person's side is joined.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Join {
    /// Whether what is typed goes to the program.
    pub(crate) stdin: bool,
    /// Whether the program has a terminal.
    pub(crate) terminal: bool,
}

/// The size of the person's terminal in columns and rows, if there is one.
pub(crate) fn terminal_size() -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some((size.ws_col, size.ws_row))
}

/// Refuses `-t` where there is no terminal to give, as Docker does.
pub(crate) fn check_terminal(join: Join) -> anyhow::Result<()> {
    if join.terminal && join.stdin && !std::io::stdin().is_terminal() {
        return Err(exit::usage(
            "the input device is not a terminal; leave out -t, or use -i alone",
        ));
    }
    Ok(())
}

/// Carries bytes both ways until the program has ended, and answers how.
///
/// # Errors
///
/// When the engine went away or gave up before the program ended.
pub(crate) async fn join(session: Session, join: Join) -> Result<Exit, ClientError> {
    let raw = (join.terminal && join.stdin).then(RawTerminal::enter).flatten();
    let (mut reader, writer) = session.split();
    let feeding = tokio::spawn(feed(writer, join));
    let outcome = loop {
        match reader.next().await {
            Ok(Some(Frame::Stdout(bytes))) => output::raw(&bytes).ok(), // A closed pipe: read on to the exit code.
            Ok(Some(Frame::Stderr(bytes))) => output::raw_stderr(&bytes).ok(), // Likewise.
            Ok(Some(Frame::Exited(exit))) => break Ok(exit),
            Ok(Some(_)) => None,
            Ok(None) => {
                break Err(ClientError::Broken {
                    request: "the program's streams".to_owned(),
                    source: "the engine closed the connection before the program ended".into(),
                });
            }
            Err(error) => break Err(error),
        };
    };
    feeding.abort();
    drop(raw);
    outcome
}

/// Sends stdin, window sizes and signals until the connection ends.
async fn feed(mut writer: SessionWriter, join: Join) {
    let mut typed = join.stdin.then(read_stdin);
    let Ok(mut resized) = signal(SignalKind::window_change()) else { return };
    let Ok(mut interrupted) = signal(SignalKind::interrupt()) else { return };
    let Ok(mut terminated) = signal(SignalKind::terminate()) else { return };
    loop {
        let frame = tokio::select! {
            bytes = next_typed(&mut typed) => match bytes {
                Some(bytes) => Frame::Stdin(bytes),
                None => {
                    typed = None;
                    Frame::StdinEnd
                }
            },
            Some(()) = resized.recv(), if join.terminal => match terminal_size() {
                Some((columns, rows)) => Frame::Resize { columns, rows },
                None => continue,
            },
            Some(()) = interrupted.recv() => Frame::Signal(2),
            Some(()) = terminated.recv() => Frame::Signal(15),
            else => return,
        };
        if writer.send(frame).await.is_err() {
            return; // The reader hears how it ended.
        }
    }
}

async fn next_typed(typed: &mut Option<mpsc::Receiver<Bytes>>) -> Option<Bytes> {
    match typed {
        Some(receiver) => receiver.recv().await,
        None => std::future::pending().await,
    }
}

/// Reads stdin on a thread of its own: a terminal has no other way to be given up.
fn read_stdin() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = std::io::stdin().read(&mut buffer) {
            let bytes = Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default());
            if sender.blocking_send(bytes).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The person's terminal without echo and line editing, put back when dropped.
struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    fn enter() -> Option<Self> {
        let before = termios::tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before).ok(); // Nothing left to try.
    }
}

/// The exit code that says how a program ended.
pub(crate) fn code_of(exit: &Exit) -> ExitCode {
    ExitCode::from(u8::try_from(exit.code).unwrap_or(exit::FAILURE))
}

/// The engine's refusal under the exit code Docker gives it.
pub(crate) fn refusal(error: ClientError) -> anyhow::Error {
    let code = error.exit_code();
    let causes = error.fault().map(|fault| fault.causes.clone()).unwrap_or_default();
    let own = causes.into_iter().rev().fold(None, |inner: Option<anyhow::Error>, cause| {
        Some(match inner {
            Some(inner) => inner.context(cause),
            None => anyhow::anyhow!(cause),
        })
    });
    let message = error.to_string();
    match own {
        Some(causes) => causes.context(exit::Coded { code, message }),
        None => anyhow::Error::from(error)
            .context(exit::Coded { code, message: "the engine".to_owned() }),
    }
}

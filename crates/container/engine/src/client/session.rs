//! A program on the other side: feed it, watch it, hear how it ended.

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_util::codec::Framed;

use super::ClientError;
use crate::api::{Frame, FrameCodec, LARGEST_FRAME};

type Connection = Framed<TokioIo<Upgraded>, FrameCodec>;

/// A program that runs in a container and whose standard streams are here.
#[derive(Debug)]
pub struct Session {
    reader: SessionReader,
    writer: SessionWriter,
}

/// The half of a [`Session`] that hears.
#[derive(Debug)]
pub struct SessionReader {
    frames: SplitStream<Connection>,
    request: String,
}

/// The half of a [`Session`] that speaks.
#[derive(Debug)]
pub struct SessionWriter {
    frames: SplitSink<Connection, Frame>,
    request: String,
}

impl Session {
    /// Sends the request over a fresh connection and waits until the program runs.
    pub(super) async fn begin(
        connection: TokioIo<Upgraded>,
        path: &str,
        request: Bytes,
    ) -> Result<Self, ClientError> {
        let (sink, stream) = Framed::new(connection, FrameCodec).split();
        let mut session = Self {
            reader: SessionReader { frames: stream, request: path.to_owned() },
            writer: SessionWriter { frames: sink, request: path.to_owned() },
        };
        session.writer.send(Frame::Request(request)).await?;
        match session.reader.next().await? {
            Some(Frame::Ready) => Ok(session),
            _ => Err(ClientError::Broken {
                request: path.to_owned(),
                source: "the engine did not say that the program runs".into(),
            }),
        }
    }

    /// The two halves, for use from two tasks.
    pub fn split(self) -> (SessionReader, SessionWriter) {
        (self.reader, self.writer)
    }

    /// See [`SessionReader::next`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn next(&mut self) -> Result<Option<Frame>, ClientError> {
        self.reader.next().await
    }

    /// See [`SessionWriter::send`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn send(&mut self, frame: Frame) -> Result<(), ClientError> {
        self.writer.send(frame).await
    }
}

impl SessionReader {
    /// The next of [`Frame::Stdout`], [`Frame::Stderr`] and, last, [`Frame::Exited`]. None when
    /// the engine closed without telling how the program ended.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] when the engine gave up, with the exit code to end with.
    pub async fn next(&mut self) -> Result<Option<Frame>, ClientError> {
        match self.frames.next().await {
            None => Ok(None),
            Some(Ok(Frame::Failed(fault))) => Err(ClientError::Refused(fault)),
            Some(Ok(frame)) => Ok(Some(frame)),
            Some(Err(source)) => {
                Err(ClientError::Broken { request: self.request.clone(), source: source.into() })
            }
        }
    }
}

impl SessionWriter {
    /// Sends [`Frame::Stdin`], [`Frame::StdinEnd`], [`Frame::Resize`] or [`Frame::Signal`].
    ///
    /// # Errors
    ///
    /// When the connection broke, which is also how a program that ended is seen from here.
    pub async fn send(&mut self, frame: Frame) -> Result<(), ClientError> {
        self.frames.send(frame).await.map_err(|source| ClientError::Broken {
            request: self.request.clone(),
            source: source.into(),
        })
    }

    /// Sends bytes for standard input, in as many frames as they need.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn stdin(&mut self, mut bytes: Bytes) -> Result<(), ClientError> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(LARGEST_FRAME));
            self.send(Frame::Stdin(piece)).await?;
        }
        Ok(())
    }
}

//! Answers that arrive a line at a time.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use futures_util::Stream;
use hyper::body::{Body, Incoming};
use serde::de::DeserializeOwned;

use super::ClientError;
use crate::api::Fault;

/// Values of one answer, as they arrive. Dropping it closes the connection.
#[derive(Debug)]
pub struct Lines<T> {
    request: String,
    body: Incoming,
    pending: BytesMut,
    ready: VecDeque<Vec<u8>>,
    ended: bool,
    kind: PhantomData<fn() -> T>,
}

/// How the engine says, in the middle of an answer, that the rest of it failed.
#[derive(serde::Deserialize)]
struct Failure {
    event: String,
    fault: Fault,
}

impl<T: DeserializeOwned> Lines<T> {
    pub(super) fn new(request: String, body: Incoming) -> Self {
        Self {
            request,
            body,
            pending: BytesMut::new(),
            ready: VecDeque::new(),
            ended: false,
            kind: PhantomData,
        }
    }

    /// The next value; none when the answer is complete.
    ///
    /// # Errors
    ///
    /// When the engine failed half way, or the connection broke.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await.transpose()
    }

    fn parse(&mut self, line: &[u8]) -> Result<T, ClientError> {
        if let Ok(Failure { event, fault }) = serde_json::from_slice(line)
            && event == "failed"
        {
            self.ended = true;
            return Err(ClientError::Refused(fault));
        }
        serde_json::from_slice(line).map_err(|source| {
            self.ended = true;
            ClientError::Malformed { request: self.request.clone(), source }
        })
    }

    fn take_lines(&mut self) {
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line = self.pending.split_to(end + 1);
            if line.len() > 1 {
                self.ready.push_back(line.to_vec());
            }
        }
    }
}

impl<T: DeserializeOwned> Stream for Lines<T> {
    type Item = Result<T, ClientError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if this.ended {
                return Poll::Ready(None);
            }
            if let Some(line) = this.ready.pop_front() {
                return Poll::Ready(Some(this.parse(&line)));
            }
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                None => this.ended = true,
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        this.pending.extend_from_slice(&data);
                        this.take_lines();
                    }
                }
                Some(Err(source)) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(ClientError::Broken {
                        request: this.request.clone(),
                        source: source.into(),
                    })));
                }
            }
        }
    }
}

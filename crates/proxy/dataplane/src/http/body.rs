//! Bodies as they pass through: counted, never gathered.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use carrack_telemetry::access::Outcome;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::upstream::Lease;
use crate::report::Exchange;

/// A body of one request or response.
pub(crate) enum Body {
    /// Written by us, or none.
    Whole(Bytes),
    /// The caller's, on its way to the callee.
    Request(Incoming, Arc<Exchange>),
    /// The callee's, on its way to the caller; the exchange ends with it, and the connection it
    /// came by can then be used again.
    Response(Box<Passing>),
}

/// A response body on its way.
pub(crate) struct Passing {
    incoming: Incoming,
    exchange: Arc<Exchange>,
    lease: Option<Lease>,
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self::Whole(Bytes::new())
    }

    pub(crate) fn passing(incoming: Incoming, exchange: Arc<Exchange>, lease: Lease) -> Self {
        let mut passing = Passing { incoming, exchange, lease: Some(lease) };
        if passing.incoming.is_end_stream() {
            passing.ended();
        }
        Self::Response(Box::new(passing))
    }
}

impl Passing {
    fn ended(&mut self) {
        self.exchange.end(Outcome::Answered);
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }

    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(match &mut self.lease {
            Some(lease) => lease.poll_body(&mut self.incoming, context),
            None => Pin::new(&mut self.incoming).poll_frame(context),
        });
        match &frame {
            Some(Ok(frame)) => {
                count(frame, &self.exchange.passed.back);
                if self.incoming.is_end_stream() {
                    self.ended();
                }
            }
            Some(Err(error)) => {
                self.exchange.fail(Outcome::Broken, format!("reading the response: {error}"));
            }
            None => self.ended(),
        }
        Poll::Ready(frame)
    }
}

fn count(frame: &Frame<Bytes>, counter: &std::sync::atomic::AtomicU64) {
    if let Some(bytes) = frame.data_ref() {
        counter.fetch_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Request(incoming, exchange) => {
                let frame = ready!(Pin::new(incoming).poll_frame(context));
                if let Some(Ok(frame)) = &frame {
                    count(frame, &exchange.passed.forth);
                }
                Poll::Ready(frame)
            }
            Self::Response(passing) => passing.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Request(incoming, _) => incoming.is_end_stream(),
            Self::Response(passing) => passing.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(0)),
            Self::Request(incoming, _) => incoming.size_hint(),
            Self::Response(passing) => passing.incoming.size_hint(),
        }
    }
}

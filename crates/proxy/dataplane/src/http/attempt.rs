//! Finding somebody to answer a request: endpoint after endpoint, kept connections before new ones.
//!
//! A request goes to another endpoint when the first has not seen it, or when it has no body to
//! send twice and its method promises that twice is as good as once.

use std::net::SocketAddr;
use std::sync::Arc;

use carrack_snapshot::{Snapshot, Workload};
use http::header::{HeaderName, HeaderValue};
use http::{Method, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;

use super::body::Body;
use super::forward::{Failure, Forward, Way};
use super::upstream::{Lease, SendError, Upstreams, Wire};
use crate::balance;
use crate::report::Exchange;
use crate::tunnel::Carries;

/// What the proxy beside an application says of one that gave no answer.
pub(super) const UNANSWERED: HeaderName = HeaderName::from_static("x-carrack-unanswered");
/// It never saw the request.
pub(super) const UNREACHED: HeaderValue = HeaderValue::from_static("unreached");
/// It may have seen it.
pub(super) const BROKEN: HeaderValue = HeaderValue::from_static("broken");

/// Where one attempt goes.
struct Hop<'a> {
    to: SocketAddr,
    /// The workload to tunnel to; none means the application beside us.
    workload: Option<&'a Arc<Workload>>,
}

/// An attempt that got no answer.
struct Missed {
    failure: Failure,
    /// The request, when it can go elsewhere as it is.
    unsent: Option<Box<Request<Body>>>,
    /// Whether another endpoint may do better.
    elsewhere: bool,
}

impl Forward {
    /// Tries the endpoints until one answers.
    pub(super) async fn attempt(
        &self,
        snapshot: &Snapshot,
        mut request: Request<Body>,
        wire: Wire,
        exchange: &Exchange,
    ) -> Result<(Response<Incoming>, Lease), Failure> {
        let mut hops = self.hops(snapshot).into_iter().peekable();
        let mut failure = Failure::unreachable("no endpoint is ready".to_owned());
        while let Some(hop) = hops.next() {
            if let Some(workload) = hop.workload {
                exchange.reached(&workload.peer);
            }
            let spare = hops.peek().and_then(|_| copy_of(&request));
            match (self.try_hop(&hop, request, wire).await, spare) {
                (Ok((response, _)), Some(spare)) if may_repeat(&response, spare.method()) => {
                    let line = format!("{} gave no answer", hop.to);
                    failure = Failure::unreachable(line);
                    request = spare;
                }
                (Ok(answered), _) => return Ok(answered),
                (Err(missed), _) if !missed.elsewhere => return Err(missed.failure),
                (Err(Missed { failure: missed, unsent: Some(unsent), .. }), _) => {
                    failure = missed;
                    request = *unsent;
                }
                (Err(Missed { failure: missed, .. }), Some(spare)) if is_safe(spare.method()) => {
                    failure = missed;
                    request = spare;
                }
                (Err(missed), _) => return Err(missed.failure),
            }
        }
        Err(failure)
    }

    async fn try_hop(
        &self,
        hop: &Hop<'_>,
        mut request: Request<Body>,
        wire: Wire,
    ) -> Result<(Response<Incoming>, Lease), Missed> {
        loop {
            let kept = self.pool().take(hop.to, wire);
            let is_fresh = kept.is_none();
            let mut lease = match kept {
                Some(lease) => lease,
                None => match self.connect(hop, wire).await {
                    Ok(lease) => lease,
                    Err((failure, elsewhere)) => {
                        let unsent = Some(Box::new(request));
                        return Err(Missed { failure, unsent, elsewhere });
                    }
                },
            };
            match lease.send(request).await {
                Ok(response) => return Ok((response, lease)),
                Err(SendError::Broken(error)) => {
                    let failure = Failure::broken(&error);
                    return Err(Missed { failure, unsent: None, elsewhere: true });
                }
                Err(SendError::Unsent(unsent)) if is_fresh => {
                    let failure = Failure::unreachable("the connection closed at once".to_owned());
                    return Err(Missed { failure, unsent: Some(unsent), elsewhere: true });
                }
                Err(SendError::Unsent(unsent)) => request = *unsent,
            }
        }
    }

    fn hops<'a>(&self, snapshot: &'a Snapshot) -> Vec<Hop<'a>> {
        match &self.way {
            Way::Out { address, port, .. } => {
                let Some(target) = snapshot.target(*address) else { return Vec::new() };
                let hop = |workload: &'a Arc<Workload>| Hop {
                    to: SocketAddr::from((workload.address, *port)),
                    workload: Some(workload),
                };
                let first = self.first.lock().take();
                balance::order(&self.vantage, target, first).map(hop).collect()
            }
            Way::In { uid, port, .. } => {
                let to = |workload: &Arc<Workload>| SocketAddr::from((workload.address, *port));
                let beside = |workload| Hop { to: to(workload), workload: None };
                snapshot.workload(uid).map(beside).into_iter().collect()
            }
        }
    }

    fn pool(&self) -> &Upstreams {
        match self.way {
            Way::Out { .. } => &self.vantage.upstreams,
            Way::In { .. } => &self.vantage.application,
        }
    }

    /// A new connection; an error says whether another endpoint may do better.
    async fn connect(&self, hop: &Hop<'_>, wire: Wire) -> Result<Lease, (Failure, bool)> {
        let timeouts = &self.proxy.timeouts;
        let port = hop.to.port();
        let begun = match hop.workload {
            Some(workload) => {
                let tunnels = &self.vantage.tunnels;
                let opening = tunnels.open(&self.vantage, workload, port, Carries::Http, timeouts);
                let stream = opening.await.map_err(|error| {
                    let elsewhere = error.is_about_endpoint();
                    (Failure::from(error), elsewhere)
                })?;
                self.pool().begin(hop.to, wire, stream).await
            }
            None => {
                let connecting = self.vantage.connect(hop.to, timeouts.connect);
                let stream = connecting.await.map_err(|error| {
                    let reason = format!("connecting to the application on port {port}: {error}");
                    (Failure::unreachable(reason), true)
                })?;
                self.pool().begin(hop.to, wire, stream).await
            }
        };
        begun.map_err(|error| (Failure::broken(&error), true))
    }
}

/// The request once more, if it has no body.
fn copy_of(request: &Request<Body>) -> Option<Request<Body>> {
    if !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(Body::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// Whether the other proxy says that its application gave no answer, and another may be asked.
fn may_repeat(response: &Response<Incoming>, method: &Method) -> bool {
    match response.headers().get(UNANSWERED) {
        Some(word) if *word == UNREACHED => true,
        Some(_) => is_safe(method),
        None => false,
    }
}

fn is_safe(method: &Method) -> bool {
    method.is_safe()
}

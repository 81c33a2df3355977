//! Passing one request on: into the mesh from where it is made, or to the application it is for.
//!
//! ```text
//! snapshot ─▶ tidy the head, trace ─▶ authorize (inward) ─▶ endpoint, connection ─▶ send ─▶ tidy
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use carrack_filters::authorize::{Call, HttpCall};
use carrack_filters::headers::{self, DECISION};
use carrack_snapshot::Snapshot;
use carrack_spiffe::SpiffeId;
use carrack_telemetry::access::{DecisionId, Outcome, Peer, Protocol, Reporter};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use parking_lot::Mutex;

use super::attempt::{BROKEN, UNANSWERED, UNREACHED};
use super::body::Body;
use super::upstream::Wire;
use crate::copy;
use crate::proxy::Proxy;
use crate::report::{Exchange, Parties, stranger};
use crate::tunnel::TunnelError;
use crate::vantage::Vantage;

/// Records keep this much of a path.
const PATH: usize = 512;

/// Passes on the requests of one caller's connection.
pub(crate) struct Forward {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) vantage: Arc<Vantage>,
    pub(crate) way: Way,
    /// Where the first request goes, if it can: a connection there has been opened for it, and an
    /// application that serves one connection at a time would wait for that one.
    pub(crate) first: Mutex<Option<Ipv4Addr>>,
}

/// Which way requests go.
pub(crate) enum Way {
    /// Into the mesh, to whatever stands behind an address when the request is made.
    Out {
        /// The address called.
        address: Ipv4Addr,
        /// The port called.
        port: u16,
        /// The caller, when it is outside the mesh and the application should hear of it.
        outside: Option<IpAddr>,
        /// How records name the caller.
        source: Arc<Peer>,
    },
    /// To the application of a workload.
    In {
        /// The workload.
        uid: String,
        /// The port called.
        port: u16,
        /// Who calls.
        caller: Arc<SpiffeId>,
        /// From where.
        address: IpAddr,
        /// How records name the caller.
        source: Arc<Peer>,
    },
}

/// Why a request is answered by us.
pub(super) struct Failure {
    status: StatusCode,
    pub(super) outcome: Outcome,
    reason: String,
    decision: Option<DecisionId>,
}

impl Forward {
    /// Whether the callers are outside the mesh, and so not to be trusted to behave.
    pub(crate) fn is_from_outside(&self) -> bool {
        matches!(self.way, Way::Out { outside: Some(_), .. })
    }

    /// Answers one request.
    pub(crate) async fn answer(&self, request: Request<Incoming>, wire: Wire) -> Response<Body> {
        let snapshot = self.proxy.snapshot.load_full();
        let exchange = self.begin(&snapshot, &request, wire);
        match self.pass_on(&snapshot, request, wire, &exchange).await {
            Ok(response) => {
                exchange.note(|record| record.status = Some(response.status().as_u16()));
                response
            }
            Err(failure) => failure.answer(&exchange, matches!(self.way, Way::In { .. })),
        }
    }

    fn begin(&self, snapshot: &Snapshot, request: &Request<Incoming>, wire: Wire) -> Arc<Exchange> {
        let protocol = match wire {
            Wire::Http1 => Protocol::Http,
            Wire::Http2 => Protocol::Http2,
        };
        let exchange = Exchange::begin(&self.proxy, self.parties(snapshot), protocol);
        exchange.note(|record| {
            record.method = Some(request.method().as_str().to_owned());
            record.path = Some(beginning(request.uri().path()).to_owned());
        });
        exchange
    }

    fn parties(&self, snapshot: &Snapshot) -> Parties {
        match &self.way {
            Way::Out { address, port, source, .. } => {
                let target = snapshot.target(*address).map(|target| Arc::clone(target.peer()));
                let called = || stranger("unknown", Some(IpAddr::V4(*address)));
                Parties {
                    reporter: Reporter::Source,
                    source: Arc::clone(source),
                    destination: target.unwrap_or_else(called),
                    port: *port,
                }
            }
            Way::In { port, source, .. } => Parties {
                reporter: Reporter::Destination,
                source: Arc::clone(source),
                destination: Arc::clone(&self.vantage.peer),
                port: *port,
            },
        }
    }

    async fn pass_on(
        &self,
        snapshot: &Snapshot,
        mut request: Request<Incoming>,
        wire: Wire,
        exchange: &Arc<Exchange>,
    ) -> Result<Response<Body>, Failure> {
        if request.method() == Method::CONNECT {
            let reason = "CONNECT to a service is not supported".to_owned();
            return Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, Outcome::Refused, reason));
        }
        self.authorize(snapshot, &request, exchange)?;
        let upgrade = wire == Wire::Http1 && headers::is_upgrade(request.headers());
        let caller = upgrade.then(|| hyper::upgrade::on(&mut request));
        let request = self.tidy(request, wire, upgrade, exchange);
        let (response, lease) = self.attempt(snapshot, request, wire, exchange).await?;
        let response = self.tidy_response(response, exchange);
        match caller {
            Some(caller) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                lease.release();
                Ok(switch_protocols(caller, response, exchange))
            }
            _ => {
                let exchange = Arc::clone(exchange);
                Ok(response.map(|body| Body::passing(body, exchange, lease)))
            }
        }
    }

    fn authorize(
        &self,
        snapshot: &Snapshot,
        request: &Request<Incoming>,
        exchange: &Exchange,
    ) -> Result<(), Failure> {
        let Way::In { uid, port, caller, address, .. } = &self.way else { return Ok(()) };
        let Some(workload) = snapshot.workload(uid) else {
            let reason = "the workload is gone".to_owned();
            return Err(Failure::new(
                StatusCode::SERVICE_UNAVAILABLE,
                Outcome::Unreachable,
                reason,
            ));
        };
        if workload.authorizer.is_empty() {
            return Ok(());
        }
        let http = HttpCall {
            method: request.method().as_str(),
            path: request.uri().path_and_query().map_or("/", |path| path.as_str()),
            host: host(request),
        };
        let caller: Option<&SpiffeId> = Some(caller);
        let call = Call { caller, address: *address, port: *port, http: Some(http) };
        let ruled = exchange.ruled(workload.authorizer.decide(&call));
        ruled.map_err(|decision| Failure {
            status: StatusCode::FORBIDDEN,
            outcome: Outcome::Refused,
            reason: decision.summary.clone(),
            decision: Some(exchange.id()),
        })
    }

    /// The request as it goes on.
    fn tidy(
        &self,
        request: Request<Incoming>,
        wire: Wire,
        upgrade: bool,
        exchange: &Arc<Exchange>,
    ) -> Request<Body> {
        let (mut head, body) = request.into_parts();
        if head.headers.contains_key(TRANSFER_ENCODING) {
            // The one that wins is the only one that goes on.
            head.headers.remove(CONTENT_LENGTH);
        }
        headers::strip_hop_by_hop(&mut head.headers, upgrade);
        let trace = headers::trace(&mut head.headers);
        exchange.note(|record| record.trace_id = Some(trace.trace_id()));
        if let Way::Out { outside: Some(caller), .. } = &self.way {
            headers::forwarded(&mut head.headers, *caller);
        }
        if wire == Wire::Http1 {
            head.version = Version::HTTP_11;
            origin_form(&mut head, || self.named());
        }
        let body = match http_body::Body::is_end_stream(&body) {
            true => Body::empty(),
            false => Body::Request(body, Arc::clone(exchange)),
        };
        Request::from_parts(head, body)
    }

    /// What to call the callee when the caller has not.
    fn named(&self) -> String {
        match &self.way {
            Way::Out { address, port, .. } => format!("{address}:{port}"),
            Way::In { port, .. } => format!("localhost:{port}"),
        }
    }

    fn tidy_response(
        &self,
        mut response: Response<Incoming>,
        exchange: &Exchange,
    ) -> Response<Incoming> {
        let upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        if headers.contains_key(TRANSFER_ENCODING) {
            headers.remove(CONTENT_LENGTH);
        }
        headers::strip_hop_by_hop(headers, upgrade);
        match self.way {
            // Only a proxy speaks of decisions and of applications that did not answer.
            Way::In { .. } => {
                headers.remove(DECISION);
                headers.remove(UNANSWERED);
            }
            Way::Out { .. } => {
                headers.remove(UNANSWERED);
                let named = headers.get(DECISION).and_then(|value| value.to_str().ok());
                if let Some(id) = named.and_then(DecisionId::parse) {
                    exchange.note(|record| record.refused_by = Some(id));
                }
            }
        }
        response
    }
}

/// As much of a path as records keep.
fn beginning(path: &str) -> &str {
    path.char_indices().nth(PATH).and_then(|(end, _)| path.get(..end)).unwrap_or(path)
}

fn host<B>(request: &Request<B>) -> &str {
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    let header = || request.headers().get(HOST).and_then(|value| value.to_str().ok());
    authority.or_else(header).unwrap_or_default()
}

/// A request to a server names a path only, and the host in a header.
fn origin_form(head: &mut http::request::Parts, fallback: impl FnOnce() -> String) {
    if let Some(authority) = head.uri.authority()
        && let Ok(value) = HeaderValue::from_str(authority.as_str())
    {
        head.headers.insert(HOST, value);
    }
    if !head.headers.contains_key(HOST)
        && let Ok(value) = HeaderValue::try_from(fallback())
    {
        head.headers.insert(HOST, value);
    }
    if head.uri.scheme().is_some() || head.uri.authority().is_some() {
        let path = head.uri.path_and_query().cloned();
        head.uri = path.map_or_else(|| Uri::from_static("/"), Uri::from);
    }
}

/// From here on bytes pass, both ways, until the connection ends; then the exchange does.
fn switch_protocols(
    caller: hyper::upgrade::OnUpgrade,
    mut response: Response<Incoming>,
    exchange: &Arc<Exchange>,
) -> Response<Body> {
    let callee = hyper::upgrade::on(&mut response);
    let exchange = Arc::clone(exchange);
    let proxy = Arc::clone(exchange.proxy());
    proxy.tasks.spawn(async move {
        let (caller, callee) = match tokio::try_join!(caller, callee) {
            Ok(both) => both,
            Err(error) => {
                exchange.fail(Outcome::Broken, format!("switching protocols: {error}"));
                return;
            }
        };
        let (caller, callee) =
            (hyper_util::rt::TokioIo::new(caller), hyper_util::rt::TokioIo::new(callee));
        match copy::both(caller, callee, &exchange.passed).await {
            Ok(()) => exchange.end(Outcome::Answered),
            Err(error) => exchange.fail(Outcome::Broken, error.to_string()),
        }
    });
    response.map(|_| Body::empty())
}

impl Failure {
    fn new(status: StatusCode, outcome: Outcome, reason: String) -> Self {
        Self { status, outcome, reason, decision: None }
    }

    pub(super) fn unreachable(reason: String) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Outcome::Unreachable, reason)
    }

    pub(super) fn broken(error: &hyper::Error) -> Self {
        let reason = format!("the connection broke before an answer came: {error}");
        Self::new(StatusCode::BAD_GATEWAY, Outcome::Broken, reason)
    }

    /// The answer to the caller: what happened, in a line. One to another proxy, `inward`, also
    /// says it in a word.
    fn answer(self, exchange: &Exchange, inward: bool) -> Response<Body> {
        let line = match (self.outcome, self.decision) {
            (Outcome::Refused, Some(id)) => {
                format!("refused by policy; `carrack why {id}` says which\n")
            }
            (_, _) => format!("{}\n", self.reason),
        };
        exchange.note(|record| {
            record.status = Some(self.status.as_u16());
            record.outcome = self.outcome;
            record.refused_by = self.decision.filter(|id| *id != record.id);
            record.reason = Some(self.reason);
        });
        let mut response = Response::new(Body::Whole(line.into()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if let Some(id) = self.decision
            && let Ok(value) = HeaderValue::try_from(id.to_string())
        {
            headers.insert(DECISION, value);
        }
        match self.outcome {
            Outcome::Unreachable if inward => drop(headers.insert(UNANSWERED, UNREACHED)),
            Outcome::Broken if inward => drop(headers.insert(UNANSWERED, BROKEN)),
            Outcome::Unreachable | Outcome::Broken | Outcome::Refused | Outcome::Answered => {}
        }
        response
    }
}

impl From<TunnelError> for Failure {
    fn from(error: TunnelError) -> Self {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        let reason = format!("{error}{}", cause.unwrap_or_default());
        match error {
            TunnelError::Refused { decision, .. } => {
                Self { decision, ..Self::new(StatusCode::FORBIDDEN, Outcome::Refused, reason) }
            }
            TunnelError::Late { .. } => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, Outcome::Unreachable, reason)
            }
            TunnelError::Connect { .. }
            | TunnelError::Handshake { .. }
            | TunnelError::OtherPeer { .. }
            | TunnelError::Stream { .. }
            | TunnelError::Unreachable { .. }
            | TunnelError::NoEndpoint { .. } => Self::unreachable(reason),
        }
    }
}

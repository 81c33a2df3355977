//! Headers that belong to one hop, and those a proxy adds.

use std::net::IpAddr;

use carrack_telemetry::trace::TraceContext;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Names the decision that refused a request.
pub const DECISION: HeaderName = HeaderName::from_static("x-carrack-decision");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// The trace the request belongs to; a request without one, or with a malformed one, starts one.
pub fn trace(headers: &mut HeaderMap) -> TraceContext {
    let mut given = headers.get_all(TRACEPARENT).iter();
    let first = given.next().and_then(|value| TraceContext::parse(value.as_bytes()));
    if let (Some(context), None) = (first, given.next()) {
        return context;
    }
    let context = TraceContext::start();
    if let Ok(value) = HeaderValue::from_bytes(&context.to_header()) {
        headers.insert(TRACEPARENT, value);
    }
    headers.remove(TRACESTATE);
    context
}

/// Tells the application who called from outside the mesh. What the caller claims about it is
/// thrown away: nobody before us is trusted.
pub fn forwarded(headers: &mut HeaderMap, caller: IpAddr) {
    if let Ok(value) = HeaderValue::from_str(&caller.to_string()) {
        headers.insert(FORWARDED_FOR, value);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
}

/// Removes what concerned only the hop a message arrived by. With `upgrade`, what asks for or
/// grants another protocol stays.
pub fn strip_hop_by_hop(headers: &mut HeaderMap, upgrade: bool) {
    if headers.contains_key(header::CONNECTION) {
        strip_named_by_connection(headers, upgrade);
        if !upgrade {
            headers.remove(header::CONNECTION);
        }
    }
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    if !upgrade {
        headers.remove(header::UPGRADE);
    }
    if headers.get(header::TE).is_some_and(|value| value != "trailers") {
        headers.remove(header::TE);
    }
    headers.remove(header::TRANSFER_ENCODING);
}

fn strip_named_by_connection(headers: &mut HeaderMap, upgrade: bool) {
    let named: Vec<HeaderName> = connection_words(headers)
        .filter_map(|word| HeaderName::from_bytes(word.as_bytes()).ok())
        // `close` and `keep-alive` are words, not names; a host or a length is no hop's to drop.
        .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH)
        .filter(|name| *name != header::TE && !(upgrade && *name == header::UPGRADE))
        .collect();
    for name in named {
        headers.remove(name);
    }
    if upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Whether the message asks for, or grants, another protocol.
#[must_use]
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
        && connection_words(headers).any(|word| word.eq_ignore_ascii_case("upgrade"))
}

fn connection_words(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().expect("name"), value.parse().expect("value"))
        };
        lines.iter().map(pair).collect()
    }

    #[track_caller]
    fn stripped(before: &[(&str, &str)], upgrade: bool, after: &[(&str, &str)]) {
        let mut map = headers(before);
        strip_hop_by_hop(&mut map, upgrade);
        assert_eq!(map, headers(after));
    }

    #[test]
    fn what_concerned_one_hop_ends_with_it() {
        stripped(
            &[
                ("connection", "close, X-Secret"),
                ("x-secret", "1"),
                ("keep-alive", "5"),
                ("a", "b"),
            ],
            false,
            &[("a", "b")],
        );
        stripped(&[("te", "gzip"), ("transfer-encoding", "chunked")], false, &[]);
        stripped(&[("te", "trailers")], false, &[("te", "trailers")]);
        stripped(&[("connection", "host"), ("host", "a")], false, &[("host", "a")]);
    }

    #[test]
    fn an_upgrade_survives_and_other_words_beside_it_do_not() {
        stripped(
            &[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")],
            true,
            &[("connection", "upgrade"), ("upgrade", "websocket")],
        );
        assert!(is_upgrade(&headers(&[("connection", "a, UPGRADE"), ("upgrade", "websocket")])));
        assert!(!is_upgrade(&headers(&[("upgrade", "h2c")])));
    }

    #[test]
    fn a_trace_is_passed_on_and_started_where_absent() {
        let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut map = headers(&[("traceparent", given), ("tracestate", "a=b")]);
        assert_eq!(trace(&mut map).to_string(), given);
        assert_eq!(map, headers(&[("traceparent", given), ("tracestate", "a=b")]));
        let mut map = headers(&[("traceparent", "garbage"), ("tracestate", "a=b")]);
        let started = trace(&mut map);
        assert_eq!(map, headers(&[("traceparent", &started.to_string())]));
    }

    #[test]
    fn a_caller_from_outside_cannot_claim_to_be_another() {
        let mut map = headers(&[("x-forwarded-for", "10.0.0.1")]);
        forwarded(&mut map, IpAddr::from([192, 0, 2, 1]));
        assert_eq!(map[FORWARDED_FOR], "192.0.2.1");
    }
}

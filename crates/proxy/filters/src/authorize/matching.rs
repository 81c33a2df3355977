//! Holding one rule against one call.

use std::borrow::Cow;
use std::net::IpAddr;

use carrack_xds::{Action, IpBlock, Match, Operation, PortMatch, Rule, Source};

use super::Call;
use super::path;

/// A call in the words that rules use, each worked out once.
pub(super) struct Facts<'a> {
    pub(super) principal: Option<String>,
    pub(super) namespace: Option<&'a str>,
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) http: Option<HttpFacts<'a>>,
}

pub(super) struct HttpFacts<'a> {
    pub(super) method: &'a str,
    pub(super) host: &'a str,
    /// As it was sent.
    pub(super) path: &'a str,
    /// As an application may read it.
    pub(super) resolved: Cow<'a, str>,
}

impl<'a> Facts<'a> {
    pub(super) fn of(call: &Call<'a>) -> Self {
        let http = call.http.map(|http| {
            let path = path::without_query(http.path);
            HttpFacts { method: http.method, host: http.host, path, resolved: path::resolved(path) }
        });
        Self {
            principal: call.caller.map(carrack_spiffe::SpiffeId::principal),
            namespace: call.caller.and_then(carrack_spiffe::SpiffeId::namespace),
            address: call.address,
            port: call.port,
            http,
        }
    }
}

/// Whether the rule matches: one of its sources, if it has any, and one of its operations.
pub(super) fn rule(rule: &Rule, action: Action, facts: &Facts<'_>) -> bool {
    (rule.from.is_empty() || rule.from.iter().any(|one| source(one, facts)))
        && (rule.to.is_empty() || rule.to.iter().any(|one| operation(one, action, facts)))
}

pub(super) fn source(source: &Source, facts: &Facts<'_>) -> bool {
    let principal = facts.principal.as_deref();
    words(&source.principals, principal)
        && not_words(&source.not_principals, principal)
        && words(&source.namespaces, facts.namespace)
        && not_words(&source.not_namespaces, facts.namespace)
        && (source.ip_blocks.is_empty() || contains(&source.ip_blocks, facts.address))
        && !contains(&source.not_ip_blocks, facts.address)
}

pub(super) fn operation(operation: &Operation, action: Action, facts: &Facts<'_>) -> bool {
    let port = |ports: &[PortMatch]| ports.iter().any(|one| one.port == facts.port);
    if !(operation.ports.is_empty() || port(&operation.ports)) || port(&operation.not_ports) {
        return false;
    }
    match (&facts.http, action) {
        (Some(http), action) => http_operation(operation, action, http),
        // Words of HTTP say nothing about bytes: not enough to let them pass, and no reason not
        // to refuse them.
        (None, Action::Allow) => !speaks_http(operation),
        (None, Action::Deny) => true,
    }
}

pub(super) fn speaks_http(operation: &Operation) -> bool {
    let Operation { methods, not_methods, paths, not_paths, hosts, not_hosts, .. } = operation;
    [methods, not_methods, paths, not_paths, hosts, not_hosts].iter().any(|list| !list.is_empty())
}

fn http_operation(operation: &Operation, action: Action, http: &HttpFacts<'_>) -> bool {
    let method = Some(http.method);
    words(&operation.methods, method)
        && not_words(&operation.not_methods, method)
        && (operation.hosts.is_empty() || any_host(&operation.hosts, http.host))
        && !any_host(&operation.not_hosts, http.host)
        && paths(operation, action, http)
}

pub(super) fn paths(operation: &Operation, action: Action, http: &HttpFacts<'_>) -> bool {
    let one = |path: &str| {
        words(&operation.paths, Some(path)) && not_words(&operation.not_paths, Some(path))
    };
    match action {
        Action::Allow => one(http.path) && one(&http.resolved),
        Action::Deny => one(http.path) || one(&http.resolved),
    }
}

pub(super) fn words(wanted: &[Match], value: Option<&str>) -> bool {
    wanted.is_empty() || any_word(wanted, value)
}

fn not_words(unwanted: &[Match], value: Option<&str>) -> bool {
    !any_word(unwanted, value)
}

pub(super) fn any_word(matches: &[Match], value: Option<&str>) -> bool {
    value.is_some_and(|value| matches.iter().any(|one| pattern(&one.pattern, value)))
}

pub(super) fn contains(blocks: &[IpBlock], address: IpAddr) -> bool {
    blocks.iter().any(|one| one.block.contains(&address))
}

/// Hosts compare without regard to case; one written without a port matches whatever the port.
pub(super) fn any_host(matches: &[Match], host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let bare = without_port(&host);
    matches.iter().any(|one| {
        let wanted = one.pattern.to_ascii_lowercase();
        pattern(&wanted, &host) || pattern(&wanted, bare)
    })
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((bare, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => bare,
        _ => host,
    }
}

fn pattern(pattern: &str, value: &str) -> bool {
    if pattern == "*" {
        return !value.is_empty();
    }
    if let Some(prefix) = pattern.strip_suffix('*') {
        return value.starts_with(prefix);
    }
    if let Some(suffix) = pattern.strip_prefix('*') {
        return value.ends_with(suffix);
    }
    pattern == value
}

/// Why a pattern could not be enforced as its writer may mean it.
pub(super) fn pattern_problem(pattern: &str) -> Option<String> {
    let stars = pattern.matches('*').count();
    let at_an_end = pattern.starts_with('*') || pattern.ends_with('*');
    if pattern.is_empty() {
        return Some("is empty and would match nothing".to_owned());
    }
    if pattern.contains("{*") {
        return Some(format!(
            "`{pattern}` is a path template, which is not supported: use a prefix"
        ));
    }
    if stars > 1 || stars == 1 && !at_an_end {
        let rule = "one `*`, at the beginning or at the end";
        return Some(format!("`{pattern}` is not understood: a pattern has at most {rule}"));
    }
    None
}

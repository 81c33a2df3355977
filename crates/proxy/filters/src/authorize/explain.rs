//! Saying why a call was refused, in the words and places of whoever wrote the policy.

use carrack_telemetry::access::{Decision, Evidence, PolicyAction, Verdict};
use carrack_xds::{Action, IpBlock, Match, Operation, Origin, PortMatch, Rule, Source};

use super::matching::{self, Facts};
use super::{Policy, place};

/// A refusal names at most this many words; a policy can be far longer than anybody reads.
const EVIDENCE: usize = 32;

/// A DENY policy matched by its rule of this number.
pub(super) fn denied(policy: &Policy, number: usize, facts: &Facts<'_>) -> Decision {
    let rules = &policy.authorization.rules;
    let origin = rules.get(number).map_or(&policy.authorization.origin, |rule| &rule.origin);
    let mut witness = Witness::new(policy, facts);
    if let Some(rule) = rules.get(number) {
        witness.rule(number, rule);
    }
    let mut evidence = witness.evidence;
    evidence.retain(|one| one.matched);
    Decision {
        verdict: Verdict::Denied,
        summary: format!("DENY policy {} matched", policy.label),
        policy: Some(policy.label.clone()),
        action: Some(PolicyAction::Deny),
        place: Some(place(origin)),
        evidence,
    }
}

/// ALLOW policies apply and none of them matched.
pub(super) fn not_allowed(policies: &[Policy], facts: &Facts<'_>) -> Decision {
    let mut evidence = Vec::new();
    for policy in policies {
        let mut witness = Witness::new(policy, facts);
        for (number, rule) in policy.authorization.rules.iter().enumerate() {
            witness.rule(number, rule);
        }
        evidence.extend(witness.evidence.into_iter().filter(|one| !one.matched));
    }
    evidence.truncate(EVIDENCE);
    let labels: Vec<_> = policies.iter().map(|policy| policy.label.as_str()).collect();
    let summary = match policies {
        [one] if one.authorization.rules.is_empty() => {
            format!("ALLOW policy {} has no rule, so it lets nothing pass", one.label)
        }
        [one] => format!("ALLOW policy {} applies and did not match", one.label),
        _ => format!("ALLOW policies apply and none matched: {}", labels.join(", ")),
    };
    let only = policies.first().filter(|_| policies.len() == 1);
    Decision {
        verdict: Verdict::Denied,
        summary,
        policy: only.map(|policy| policy.label.clone()),
        action: Some(PolicyAction::Allow),
        place: policies.first().map(|policy| place(&policy.authorization.origin)),
        evidence,
    }
}

/// Writes down each word of a rule and whether it was met.
struct Witness<'a> {
    policy: &'a Policy,
    facts: &'a Facts<'a>,
    evidence: Vec<Evidence>,
}

impl<'a> Witness<'a> {
    fn new(policy: &'a Policy, facts: &'a Facts<'a>) -> Self {
        Self { policy, facts, evidence: Vec::new() }
    }

    fn rule(&mut self, number: usize, rule: &Rule) {
        for (at, source) in rule.from.iter().enumerate() {
            self.source(&format!("rules[{number}].from[{at}]"), source);
        }
        for (at, operation) in rule.to.iter().enumerate() {
            self.operation(&format!("rules[{number}].to[{at}]"), operation);
        }
        if rule.from.is_empty() && rule.to.is_empty() {
            let field = format!("rules[{number}]");
            self.note(field, "anything".into(), String::new(), true, &rule.origin);
        }
    }

    fn source(&mut self, path: &str, source: &Source) {
        let facts = self.facts;
        let principal = facts.principal.as_deref();
        self.words(path, "principals", &source.principals, principal, true);
        self.words(path, "notPrincipals", &source.not_principals, principal, false);
        self.words(path, "namespaces", &source.namespaces, facts.namespace, true);
        self.words(path, "notNamespaces", &source.not_namespaces, facts.namespace, false);
        self.blocks(path, "ipBlocks", &source.ip_blocks, true);
        self.blocks(path, "notIpBlocks", &source.not_ip_blocks, false);
    }

    fn operation(&mut self, path: &str, operation: &Operation) {
        self.ports(path, "ports", &operation.ports, true);
        self.ports(path, "notPorts", &operation.not_ports, false);
        let Some(http) = &self.facts.http else {
            if matching::speaks_http(operation) {
                let field = format!("{path} methods, paths, hosts");
                let matched = self.policy.authorization.action == Action::Deny;
                self.note(field, "HTTP".into(), "not HTTP".into(), matched, &operation.origin);
            }
            return;
        };
        self.words(path, "methods", &operation.methods, Some(http.method), true);
        self.words(path, "notMethods", &operation.not_methods, Some(http.method), false);
        self.hosts(path, "hosts", &operation.hosts, http.host, true);
        self.hosts(path, "notHosts", &operation.not_hosts, http.host, false);
        let sent = http.path;
        self.words(path, "paths", &operation.paths, Some(sent), true);
        self.words(path, "notPaths", &operation.not_paths, Some(sent), false);
        if *http.resolved != *sent {
            let read = Some(&*http.resolved);
            self.words(path, "paths (resolved)", &operation.paths, read, true);
            self.words(path, "notPaths (resolved)", &operation.not_paths, read, false);
        }
    }

    fn words(&mut self, path: &str, name: &str, list: &[Match], value: Option<&str>, wanted: bool) {
        let holds = matching::any_word(list, value) == wanted;
        self.matches(path, name, list, value.unwrap_or_default(), holds);
    }

    fn hosts(&mut self, path: &str, name: &str, list: &[Match], host: &str, wanted: bool) {
        let holds = matching::any_host(list, host) == wanted;
        self.matches(path, name, list, host, holds);
    }

    fn matches(&mut self, path: &str, name: &str, list: &[Match], value: &str, holds: bool) {
        if let Some(first) = list.first() {
            let asked = joined(list.iter().map(|one| one.pattern.clone()));
            self.note(format!("{path}.{name}"), asked, value.to_owned(), holds, &first.origin);
        }
    }

    fn blocks(&mut self, path: &str, name: &str, list: &[IpBlock], wanted: bool) {
        if let Some(first) = list.first() {
            let holds = matching::contains(list, self.facts.address) == wanted;
            let asked = joined(list.iter().map(|one| one.block.to_string()));
            let value = self.facts.address.to_string();
            self.note(format!("{path}.{name}"), asked, value, holds, &first.origin);
        }
    }

    fn ports(&mut self, path: &str, name: &str, list: &[PortMatch], wanted: bool) {
        if let Some(first) = list.first() {
            let holds = list.iter().any(|one| one.port == self.facts.port) == wanted;
            let asked = joined(list.iter().map(|one| one.port.to_string()));
            let value = self.facts.port.to_string();
            self.note(format!("{path}.{name}"), asked, value, holds, &first.origin);
        }
    }

    fn note(&mut self, field: String, pattern: String, value: String, matched: bool, at: &Origin) {
        if self.evidence.len() < EVIDENCE {
            let (policy, place) = (self.policy.label.clone(), place(at));
            self.evidence.push(Evidence { policy, field, pattern, value, matched, place });
        }
    }
}

fn joined(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(" or ")
}

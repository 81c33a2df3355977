//! Whether a call may pass.
//!
//! ```text
//! xds::Authorization… ──compile──▶ Authorizer ──decide(Call)──▶ Ruling
//! ```
//!
//! A DENY policy that matches refuses, whatever else there is. Otherwise, where no ALLOW policy
//! applies everything passes; where one applies, what none of them matches is refused. This is
//! Istio's order.
//!
//! A path can be written in several ways that an application may take for the same. So a path is
//! judged as it was sent and as it reads once escapes, dots and doubled slashes are resolved: DENY
//! refuses when either form matches, ALLOW lets pass only when both do.

mod explain;
mod matching;
mod path;

use std::net::IpAddr;
use std::sync::Arc;

use carrack_spiffe::SpiffeId;
use carrack_telemetry::access::{Decision, Place, PolicyAction, Verdict};
use carrack_xds::{Action, Authorization, Match, Operation, Origin, Problem, Rule, Source};

use matching::Facts;

/// What is known of a call when it is judged.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Who calls; nobody, when the caller has proven nothing.
    pub caller: Option<&'a SpiffeId>,
    /// From where.
    pub address: IpAddr,
    /// The port that is called.
    pub port: u16,
    /// The request, where the connection carries HTTP.
    pub http: Option<HttpCall<'a>>,
}

/// The words of HTTP that policies speak of.
#[derive(Clone, Copy, Debug)]
pub struct HttpCall<'a> {
    /// The method.
    pub method: &'a str,
    /// The path, with its query if it has one.
    pub path: &'a str,
    /// The host asked for, with its port if it has one.
    pub host: &'a str,
}

/// The verdict on one call.
#[derive(Clone, Debug)]
pub enum Ruling {
    /// It passes; with the policy that says so, if any applies.
    Allowed(Option<Arc<Decision>>),
    /// It does not, and this is why.
    Denied(Arc<Decision>),
}

/// The policies that apply to one workload.
#[derive(Debug, Default)]
pub struct Authorizer {
    deny: Vec<Policy>,
    allow: Vec<Policy>,
}

#[derive(Debug)]
struct Policy {
    authorization: Arc<Authorization>,
    /// `namespace/name`.
    label: String,
    /// What is said when a rule lets pass, one for each rule: made once, as most calls pass.
    passes: Vec<Arc<Decision>>,
}

impl Authorizer {
    /// Gathers policies, in the order of their names.
    #[must_use]
    pub fn new(mut authorizations: Vec<Arc<Authorization>>) -> Self {
        authorizations.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        let mut authorizer = Self::default();
        for authorization in authorizations {
            let list = match authorization.action {
                Action::Deny => &mut authorizer.deny,
                Action::Allow => &mut authorizer.allow,
            };
            list.push(Policy::new(authorization));
        }
        authorizer
    }

    /// Whether no policy applies: every call passes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deny.is_empty() && self.allow.is_empty()
    }

    /// Judges a call.
    #[must_use]
    pub fn decide(&self, call: &Call<'_>) -> Ruling {
        if self.is_empty() {
            return Ruling::Allowed(None);
        }
        let facts = Facts::of(call);
        for policy in &self.deny {
            if let Some(number) = policy.matching_rule(&facts) {
                return Ruling::Denied(Arc::new(explain::denied(policy, number, &facts)));
            }
        }
        if self.allow.is_empty() {
            return Ruling::Allowed(None);
        }
        let passes = self.allow.iter().find_map(|policy| {
            policy.matching_rule(&facts).and_then(|number| policy.passes.get(number))
        });
        match passes {
            Some(decision) => Ruling::Allowed(Some(Arc::clone(decision))),
            None => Ruling::Denied(Arc::new(explain::not_allowed(&self.allow, &facts))),
        }
    }
}

impl Policy {
    fn new(authorization: Arc<Authorization>) -> Self {
        let label = format!("{}/{}", authorization.namespace, authorization.name);
        let pass = |rule: &Rule| {
            Arc::new(Decision {
                verdict: Verdict::Allowed,
                summary: format!("ALLOW policy {label} matched"),
                policy: Some(label.clone()),
                action: Some(PolicyAction::Allow),
                place: Some(place(&rule.origin)),
                evidence: Vec::new(),
            })
        };
        let passes = match authorization.action {
            Action::Allow => authorization.rules.iter().map(pass).collect(),
            Action::Deny => Vec::new(),
        };
        Self { authorization, label, passes }
    }

    fn matching_rule(&self, facts: &Facts<'_>) -> Option<usize> {
        let action = self.authorization.action;
        self.authorization.rules.iter().position(|rule| matching::rule(rule, action, facts))
    }
}

fn place(origin: &Origin) -> Place {
    Place { file: origin.file.clone(), line: origin.line, column: origin.column }
}

/// Everything about a policy that could not be enforced as written.
#[must_use]
pub fn problems(authorization: &Authorization) -> Vec<Problem> {
    let resource = format!("authorization {}/{}", authorization.namespace, authorization.name);
    let mut problems = Vec::new();
    let mut check = |path: String, matches: &[Match]| {
        for (number, one) in matches.iter().enumerate() {
            if let Some(message) = matching::pattern_problem(&one.pattern) {
                let (resource, path) = (resource.clone(), format!("{path}[{number}]"));
                problems.push(Problem { resource, path, message });
            }
        }
    };
    for (rule_number, rule) in authorization.rules.iter().enumerate() {
        for (number, source) in rule.from.iter().enumerate() {
            for (name, matches) in source_words(source) {
                check(format!("rules[{rule_number}].from[{number}].{name}"), matches);
            }
        }
        for (number, operation) in rule.to.iter().enumerate() {
            for (name, matches) in operation_words(operation) {
                check(format!("rules[{rule_number}].to[{number}].{name}"), matches);
            }
        }
    }
    problems
}

fn source_words(source: &Source) -> [(&'static str, &[Match]); 4] {
    [
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
        ("namespaces", &source.namespaces),
        ("notNamespaces", &source.not_namespaces),
    ]
}

fn operation_words(operation: &Operation) -> [(&'static str, &[Match]); 6] {
    [
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
        ("paths", &operation.paths),
        ("notPaths", &operation.not_paths),
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
    ]
}

//! Text to policies, or to everything wrong with it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Action, AuthorizationPolicy, Block, Operation, Port, Rule, Source, Word};
use crate::cursor::Cursor;
use crate::problem::{Origin, Problem};
use crate::yaml::{self, Place};

/// Fields the API server or a person adds that change nothing about a policy.
const METADATA_WITHOUT_EFFECT: [&str; 7] = [
    "annotations",
    "creationTimestamp",
    "generation",
    "labels",
    "managedFields",
    "resourceVersion",
    "uid",
];

/// Parses every policy of `text`; those without a namespace are in `namespace`.
///
/// # Errors
///
/// Everything wrong with any of them, in the order of the file. One bad policy
/// refuses the file: half of a set of policies may allow what the whole forbids.
pub fn parse(
    text: &str,
    file: &str,
    namespace: &str,
) -> Result<Vec<AuthorizationPolicy>, Vec<Problem>> {
    let documents = yaml::parse(text, file)?;
    let mut reading = Reading { file, namespace, problems: Vec::new() };
    let mut policies: Vec<AuthorizationPolicy> = Vec::new();
    for document in &documents {
        let at = Cursor::root(document);
        let Some(policy) = reading.policy(&at) else { continue };
        if policies.iter().any(|p| p.name == policy.name && p.namespace == policy.namespace) {
            let message = format!("the policy `{}` is written here a second time", policy.name);
            reading.problem(at.node.place, message);
        }
        policies.push(policy);
    }
    if reading.problems.is_empty() {
        return Ok(policies);
    }
    reading.problems.sort();
    Err(reading.problems)
}

struct Reading<'a> {
    file: &'a str,
    namespace: &'a str,
    problems: Vec<Problem>,
}

impl Reading<'_> {
    fn origin(&self, place: Place) -> Origin {
        place.origin(self.file)
    }

    fn problem(&mut self, place: Place, message: String) {
        self.problems.push(Problem { origin: place.origin(self.file), message });
    }

    /// Reports the fields of a mapping that are neither `known` nor `refused`,
    /// and those that are refused.
    fn fields(&mut self, at: &Cursor<'_>, known: &[&str], refused: &[&str]) {
        if !at.is_mapping() {
            let message = format!("`{}` takes a mapping, not {}", path(at), at.node.kind());
            self.problem(at.node.place, message);
        }
        for (key, child) in at.entries() {
            if refused.contains(&key.as_str()) {
                let message = format!("`{}` is not supported yet", child.path);
                self.problem(child.key_place, message);
            } else if !known.contains(&key.as_str()) {
                let message = format!("`{}` is not a field of AuthorizationPolicy", child.path);
                self.problem(child.key_place, message);
            }
        }
    }

    fn text(&mut self, at: &Cursor<'_>) -> Option<String> {
        let text = at.scalar().filter(|text| !text.is_empty()).map(str::to_owned);
        if text.is_none() {
            let message = format!("`{}` takes a text, not {}", path(at), at.node.kind());
            self.problem(at.node.place, message);
        }
        text
    }

    fn policy(&mut self, at: &Cursor<'_>) -> Option<AuthorizationPolicy> {
        let api_version = at.get("apiVersion").and_then(|at| at.scalar());
        let kind = at.get("kind").and_then(|at| at.scalar());
        if !matches!(api_version, Some("security.istio.io/v1" | "security.istio.io/v1beta1"))
            || kind != Some("AuthorizationPolicy")
        {
            let message = format!(
                "is {} of {}, not an AuthorizationPolicy of security.istio.io/v1 or v1beta1",
                kind.map_or("an object without a kind".to_owned(), |kind| format!("a `{kind}`")),
                api_version.map_or("no API".to_owned(), |version| format!("`{version}`")),
            );
            self.problem(at.node.place, message);
            return None;
        }
        self.fields(at, &["apiVersion", "kind", "metadata", "spec", "status"], &[]);
        let (name, namespace) = self.metadata(at);
        let Some(spec) = at.get("spec") else {
            let message = "lacks `spec`; `spec: {}` is a policy that allows nothing".to_owned();
            self.problem(at.node.place, message);
            return None;
        };
        self.fields(
            &spec,
            &["selector", "action", "rules"],
            &["targetRef", "targetRefs", "provider"],
        );
        let selector = spec.get("selector").map(|at| self.selector(&at)).unwrap_or_default();
        let action = spec.get("action").map_or(Some(Action::Allow), |at| self.action(&at));
        let rules = spec.get("rules").map(|at| self.list(&at, Self::rule)).unwrap_or_default();
        let origin = self.origin(at.node.place);
        Some(AuthorizationPolicy {
            name: name?,
            namespace: namespace?,
            selector,
            action: action?,
            rules,
            origin,
        })
    }

    fn metadata(&mut self, at: &Cursor<'_>) -> (Option<String>, Option<String>) {
        let Some(at) = at.get("metadata") else {
            self.problem(at.node.place, "lacks `metadata` with a `name`".to_owned());
            return (None, None);
        };
        let known: Vec<_> =
            METADATA_WITHOUT_EFFECT.into_iter().chain(["name", "namespace"]).collect();
        self.fields(&at, &known, &[]);
        let name = match at.get("name") {
            Some(at) => self.name(&at),
            None => {
                self.problem(at.node.place, "`metadata` lacks `name`".to_owned());
                None
            }
        };
        let namespace = match at.get("namespace") {
            Some(at) => self.name(&at),
            None => Some(self.namespace.to_owned()),
        };
        (name, namespace)
    }

    fn name(&mut self, at: &Cursor<'_>) -> Option<String> {
        let name = self.text(at)?;
        let fits = name.len() <= 253
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if !fits {
            let takes = "takes letters, digits, `-`, `_` and `.`, first a letter or digit";
            let message = format!("`{}` {takes}, not `{name}`", path(at));
            self.problem(at.node.place, message);
        }
        fits.then_some(name)
    }

    fn selector(&mut self, at: &Cursor<'_>) -> BTreeMap<String, String> {
        self.fields(at, &["matchLabels"], &["matchExpressions"]);
        let mut labels = BTreeMap::new();
        for (label, at) in at.get("matchLabels").map(|at| at.entries()).unwrap_or_default() {
            if let Some(value) = self.text(&at) {
                if value.contains('*') {
                    let message = format!("`{}` takes a value, not a pattern", at.path);
                    self.problem(at.node.place, message);
                }
                labels.insert(label, value);
            }
        }
        labels
    }

    fn action(&mut self, at: &Cursor<'_>) -> Option<Action> {
        match self.text(at)?.as_str() {
            "ALLOW" => Some(Action::Allow),
            "DENY" => Some(Action::Deny),
            other @ ("AUDIT" | "CUSTOM") => {
                let message = format!("`{}` is `{other}`, which is not supported yet", at.path);
                self.problem(at.node.place, message);
                None
            }
            other => {
                let message = format!("`{}` takes `ALLOW` or `DENY`, not `{other}`", at.path);
                self.problem(at.node.place, message);
                None
            }
        }
    }

    fn list<T>(
        &mut self,
        at: &Cursor<'_>,
        read: impl Fn(&mut Self, &Cursor<'_>) -> Option<T>,
    ) -> Vec<T> {
        if !at.is_sequence() {
            let message = format!("`{}` takes a list, not {}", at.path, at.node.kind());
            self.problem(at.node.place, message);
        }
        at.items().iter().filter_map(|item| read(self, item)).collect()
    }

    /// A list that has to say something: an empty one would match everything
    /// where its writer may have meant nothing.
    fn filled<T>(
        &mut self,
        at: &Cursor<'_>,
        field: &str,
        read: impl Fn(&mut Self, &Cursor<'_>) -> Option<T>,
    ) -> Vec<T> {
        let Some(entry) = at.node.entry(field) else { return Vec::new() };
        match at.get(field) {
            Some(list) if !list.is_sequence() || !list.items().is_empty() => self.list(&list, read),
            _ => {
                let message = format!("`{}.{field}` is empty; leave it out or fill it", at.path);
                self.problem(entry.key_place, message);
                Vec::new()
            }
        }
    }

    fn rule(&mut self, at: &Cursor<'_>) -> Option<Rule> {
        self.fields(at, &["from", "to"], &["when"]);
        let from = self.filled(at, "from", Self::from);
        let to = self.filled(at, "to", Self::to);
        Some(Rule { origin: self.origin(at.node.place), from, to })
    }

    fn from(&mut self, at: &Cursor<'_>) -> Option<Source> {
        self.fields(at, &["source"], &[]);
        let at = self.inner(at, "source")?;
        self.fields(
            &at,
            &[
                "principals",
                "notPrincipals",
                "namespaces",
                "notNamespaces",
                "ipBlocks",
                "notIpBlocks",
            ],
            &[
                "requestPrincipals",
                "notRequestPrincipals",
                "remoteIpBlocks",
                "notRemoteIpBlocks",
                "serviceAccounts",
                "notServiceAccounts",
            ],
        );
        Some(Source {
            origin: self.origin(at.node.place),
            principals: self.filled(&at, "principals", Self::principal),
            not_principals: self.filled(&at, "notPrincipals", Self::principal),
            namespaces: self.filled(&at, "namespaces", Self::word),
            not_namespaces: self.filled(&at, "notNamespaces", Self::word),
            ip_blocks: self.filled(&at, "ipBlocks", Self::block),
            not_ip_blocks: self.filled(&at, "notIpBlocks", Self::block),
        })
    }

    fn to(&mut self, at: &Cursor<'_>) -> Option<Operation> {
        self.fields(at, &["operation"], &[]);
        let at = self.inner(at, "operation")?;
        self.fields(
            &at,
            &[
                "hosts",
                "notHosts",
                "ports",
                "notPorts",
                "methods",
                "notMethods",
                "paths",
                "notPaths",
            ],
            &[],
        );
        Some(Operation {
            origin: self.origin(at.node.place),
            hosts: self.filled(&at, "hosts", Self::word),
            not_hosts: self.filled(&at, "notHosts", Self::word),
            ports: self.filled(&at, "ports", Self::port),
            not_ports: self.filled(&at, "notPorts", Self::port),
            methods: self.filled(&at, "methods", Self::word),
            not_methods: self.filled(&at, "notMethods", Self::word),
            paths: self.filled(&at, "paths", Self::path),
            not_paths: self.filled(&at, "notPaths", Self::path),
        })
    }

    /// `source` or `operation`, which has to hold at least one field.
    fn inner<'n>(&mut self, at: &Cursor<'n>, field: &str) -> Option<Cursor<'n>> {
        let inner = at.get(field).filter(|at| !at.is_mapping() || !at.entries().is_empty());
        if inner.is_none() {
            let message = format!("`{}.{field}` has to say something", at.path);
            self.problem(at.node.place, message);
        }
        inner
    }

    fn word(&mut self, at: &Cursor<'_>) -> Option<Word> {
        let pattern = self.text(at)?;
        let inside = pattern.strip_prefix('*').or(pattern.strip_suffix('*')).unwrap_or(&pattern);
        if inside.contains('*') {
            let message =
                format!("`{}` is `{pattern}`; a `*` stands first or last, and once", at.path);
            self.problem(at.node.place, message);
            return None;
        }
        Some(Word { pattern, origin: self.origin(at.node.place) })
    }

    fn principal(&mut self, at: &Cursor<'_>) -> Option<Word> {
        let word = self.word(at)?;
        if let Some(rest) = word.pattern.strip_prefix("spiffe://") {
            let message = format!("`{}` is written without `spiffe://`: `{rest}`", at.path);
            self.problem(at.node.place, message);
            return None;
        }
        Some(word)
    }

    fn path(&mut self, at: &Cursor<'_>) -> Option<Word> {
        let text = self.text(at)?;
        let what = if text.contains(['{', '}']) {
            "is a template, which is not supported yet"
        } else if text.contains(['?', '#']) {
            "is compared without query; leave out what follows `?`"
        } else {
            return self.word(at);
        };
        self.problem(at.node.place, format!("`{}` {what}", at.path));
        None
    }

    fn port(&mut self, at: &Cursor<'_>) -> Option<Port> {
        let text = self.text(at)?;
        match text.parse() {
            Ok(port) if port != 0 => Some(Port { port, origin: self.origin(at.node.place) }),
            _ => {
                let message =
                    format!("`{}` takes a port between 1 and 65535, not `{text}`", at.path);
                self.problem(at.node.place, message);
                None
            }
        }
    }

    fn block(&mut self, at: &Cursor<'_>) -> Option<Block> {
        let text = self.text(at)?;
        let block =
            text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        match block {
            Some(block) => Some(Block { block: block.trunc(), origin: self.origin(at.node.place) }),
            None => {
                let message = format!("`{}` takes an address or a network, not `{text}`", at.path);
                self.problem(at.node.place, message);
                None
            }
        }
    }
}

fn path<'c>(at: &'c Cursor<'_>) -> &'c str {
    if at.path.is_empty() { "document" } else { &at.path }
}

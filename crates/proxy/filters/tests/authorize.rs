//! Istio's semantics, case by case.

use std::net::IpAddr;
use std::sync::Arc;

use carrack_filters::authorize::{self, Authorizer, Call, HttpCall, Ruling};
use carrack_spiffe::SpiffeId;
use carrack_xds::{
    Action, Authorization, IpBlock, Match, Operation, Origin, PortMatch, Rule, Source,
};

fn at(line: u32) -> Origin {
    Origin { file: "policy.yaml".into(), line, column: 3 }
}

fn words(list: &[&str]) -> Vec<Match> {
    list.iter().map(|word| Match { pattern: (*word).into(), origin: at(9) }).collect()
}

fn policy(name: &str, action: Action, rules: Vec<Rule>) -> Authorization {
    Authorization {
        name: name.into(),
        namespace: "shop".into(),
        action,
        workloads: Vec::new(),
        rules,
        origin: at(1),
    }
}

fn from(source: Source) -> Rule {
    Rule { origin: at(5), from: vec![source], to: Vec::new() }
}

fn to(operation: Operation) -> Rule {
    Rule { origin: at(5), from: Vec::new(), to: vec![operation] }
}

fn methods(list: &[&str]) -> Rule {
    to(Operation { methods: words(list), ..Operation::default() })
}

fn paths(list: &[&str]) -> Rule {
    to(Operation { paths: words(list), ..Operation::default() })
}

fn principals(list: &[&str]) -> Rule {
    from(Source { principals: words(list), ..Source::default() })
}

/// `METHOD host path`, or `tcp`.
fn ruling(policies: &[Authorization], call: &str) -> Ruling {
    let caller = SpiffeId::parse("spiffe://mesh.test/ns/shop/sa/edge").expect("id");
    let mut parts = call.split(' ');
    let http = match (parts.next(), parts.next(), parts.next()) {
        (Some(method), Some(host), Some(path)) => Some(HttpCall { method, path, host }),
        _ => None,
    };
    let address = IpAddr::from([10, 89, 0, 3]);
    let call = Call { caller: Some(&caller), address, port: 8080, http };
    Authorizer::new(policies.iter().cloned().map(Arc::new).collect()).decide(&call)
}

#[track_caller]
fn passes(policies: &[Authorization], call: &str) {
    let ruling = ruling(policies, call);
    assert!(matches!(ruling, Ruling::Allowed(_)), "{call}: {ruling:?}");
}

#[track_caller]
fn refused(policies: &[Authorization], call: &str) -> String {
    match ruling(policies, call) {
        Ruling::Denied(decision) => decision.summary.clone(),
        Ruling::Allowed(_) => panic!("{call} passed"),
    }
}

const GET: &str = "GET api /items?q=1";
const DELETE: &str = "DELETE api /items";

#[test]
fn without_a_policy_everything_passes() {
    passes(&[], GET);
    passes(&[], "tcp");
}

#[test]
fn an_allow_policy_refuses_what_it_does_not_match() {
    let allow = [policy("reads", Action::Allow, vec![methods(&["GET", "HEAD"])])];
    passes(&allow, GET);
    assert_eq!(refused(&allow, DELETE), "ALLOW policy shop/reads applies and did not match");
}

#[test]
fn an_allow_policy_without_rules_lets_nothing_pass_and_a_deny_without_rules_refuses_nothing() {
    refused(&[policy("none", Action::Allow, Vec::new())], GET);
    passes(&[policy("none", Action::Deny, Vec::new())], GET);
}

#[test]
fn an_empty_rule_matches_everything() {
    passes(&[policy("all", Action::Allow, vec![Rule::default()])], GET);
    refused(&[policy("all", Action::Deny, vec![Rule::default()])], GET);
}

#[test]
fn deny_comes_before_allow() {
    let both = [
        policy("allow", Action::Allow, vec![Rule::default()]),
        policy("writes", Action::Deny, vec![methods(&["DELETE"])]),
    ];
    passes(&both, GET);
    assert_eq!(refused(&both, DELETE), "DENY policy shop/writes matched");
}

#[test]
fn any_policy_any_rule_any_source_will_do_but_all_words_of_one_must_match() {
    let edge = "mesh.test/ns/shop/sa/edge";
    let policies = [
        policy("a", Action::Allow, vec![principals(&["mesh.test/ns/shop/sa/other"])]),
        policy("b", Action::Allow, vec![methods(&["PUT"]), principals(&["x", edge])]),
    ];
    passes(&policies, GET);
    let narrow = Rule {
        origin: at(5),
        from: vec![Source {
            principals: words(&[edge]),
            namespaces: words(&["elsewhere"]),
            ..Source::default()
        }],
        to: Vec::new(),
    };
    refused(&[policy("c", Action::Allow, vec![narrow])], GET);
}

#[test]
fn a_pattern_is_exact_a_prefix_a_suffix_or_anything() {
    for pattern in ["mesh.test/ns/shop/sa/edge", "mesh.test/*", "*/sa/edge", "*"] {
        passes(&[policy("p", Action::Allow, vec![principals(&[pattern])])], GET);
    }
    for pattern in ["mesh.test/ns/shop/sa/edg", "other/*", "*/sa/edg"] {
        refused(&[policy("p", Action::Allow, vec![principals(&[pattern])])], GET);
    }
}

#[test]
fn not_lists_exclude() {
    let others = Source { not_namespaces: words(&["shop"]), ..Source::default() };
    passes(&[policy("strangers", Action::Deny, vec![from(others)])], GET);
    let outside = Operation { not_paths: words(&["/items*"]), ..Operation::default() };
    passes(&[policy("only", Action::Deny, vec![to(outside.clone())])], GET);
    refused(&[policy("only", Action::Deny, vec![to(outside)])], "GET api /else");
}

#[test]
fn addresses_and_ports_and_hosts() {
    let block = |net: &str| vec![IpBlock { block: net.parse().expect("net"), origin: at(2) }];
    let near = Source { ip_blocks: block("10.89.0.0/24"), ..Source::default() };
    let far = Source { not_ip_blocks: block("10.89.0.0/24"), ..Source::default() };
    passes(&[policy("near", Action::Allow, vec![from(near)])], GET);
    refused(&[policy("far", Action::Allow, vec![from(far)])], GET);
    let port =
        |port| Operation { ports: vec![PortMatch { port, origin: at(3) }], ..Operation::default() };
    passes(&[policy("p", Action::Allow, vec![to(port(8080))])], "tcp");
    refused(&[policy("p", Action::Allow, vec![to(port(9090))])], "tcp");
    let host = Operation { hosts: words(&["API.shop"]), ..Operation::default() };
    passes(&[policy("h", Action::Allow, vec![to(host.clone())])], "GET api.SHOP:8080 /");
    refused(&[policy("h", Action::Allow, vec![to(host)])], "GET other /");
}

#[test]
fn words_of_http_never_let_bytes_pass_and_do_refuse_them() {
    refused(&[policy("allow", Action::Allow, vec![methods(&["GET"])])], "tcp");
    refused(&[policy("deny", Action::Deny, vec![methods(&["DELETE"])])], "tcp");
    passes(&[policy("allow", Action::Allow, vec![principals(&["*"])])], "tcp");
}

#[test]
fn a_path_cannot_be_written_around_a_policy() {
    let deny = [policy("admin", Action::Deny, vec![paths(&["/admin*"])])];
    let allow = [policy("public", Action::Allow, vec![paths(&["/public*"])])];
    passes(&deny, "GET api /public");
    passes(&allow, "GET api /public/x?y=/admin");
    for path in ["/admin", "//admin", "/%61dmin", "/public/../admin", "/public/%2e%2e%2fadmin"] {
        refused(&deny, &format!("GET api {path}"));
        refused(&allow, &format!("GET api {path}"));
    }
}

#[test]
fn a_refusal_names_the_place_and_the_words_that_led_to_it() {
    let Ruling::Denied(decision) =
        ruling(&[policy("writes", Action::Deny, vec![methods(&["DELETE"])])], DELETE)
    else {
        panic!("passed");
    };
    assert_eq!(decision.policy.as_deref(), Some("shop/writes"));
    assert_eq!(decision.place.as_ref().expect("place").to_string(), "policy.yaml:5:3");
    let [one] = &decision.evidence[..] else { panic!("{:?}", decision.evidence) };
    assert_eq!(
        (&*one.field, &*one.pattern, &*one.value),
        ("rules[0].to[0].methods", "DELETE", "DELETE")
    );
    assert_eq!(one.place.line, 9);

    let allow = [policy("reads", Action::Allow, vec![methods(&["GET", "HEAD"])])];
    let Ruling::Denied(decision) = ruling(&allow, DELETE) else { panic!("passed") };
    let [one] = &decision.evidence[..] else { panic!("{:?}", decision.evidence) };
    assert_eq!((&*one.pattern, &*one.value, one.matched), ("GET or HEAD", "DELETE", false));
}

#[test]
fn a_pattern_that_cannot_be_enforced_is_reported_with_its_path() {
    let bad = policy("bad", Action::Deny, vec![paths(&["/a", "/*/b"]), methods(&[""])]);
    let found: Vec<_> = authorize::problems(&bad).into_iter().map(|one| one.path).collect();
    assert_eq!(found, ["rules[0].to[0].paths[1]", "rules[1].to[0].methods[0]"]);
}

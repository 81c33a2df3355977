//! Policy files in, policies or problems out.

use std::collections::BTreeMap;

use super::*;

const HEAD: &str =
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\n";

#[track_caller]
fn one(spec: &str) -> AuthorizationPolicy {
    let mut policies = parse(&format!("{HEAD}{spec}"), "p.yaml", "shop").expect("parses");
    assert_eq!(policies.len(), 1);
    policies.remove(0)
}

#[track_caller]
fn refused(spec: &str, expected: &[&str]) {
    let problems = parse(&format!("{HEAD}{spec}"), "p.yaml", "shop").expect_err("is refused");
    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems, expected);
}

#[test]
fn the_policies_of_the_shop_are_understood_with_their_places() {
    let text = include_str!("../../../../../examples/shop/policies/shop.yaml");
    let policies = parse(text, "shop.yaml", "shop").expect("parses");
    let store = &policies[0];
    assert_eq!(store.name, "store-only-for-api");
    assert_eq!(store.namespace, "shop");
    assert_eq!(store.action, Action::Allow);
    assert_eq!(store.selector, [("app".into(), "store".into())].into());
    assert_eq!(store.rules[0].to[0].ports[0].port, 6379);
    let principal = &store.rules[0].from[0].principals[0];
    assert_eq!(principal.pattern, "*/ns/shop/sa/api");
    assert_eq!(
        text.lines().nth(principal.origin.line as usize - 1).map(str::trim),
        Some("principals: [\"*/ns/shop/sa/api\"]")
    );
    assert_eq!(store.origin.line, 2);
}

#[test]
fn a_policy_without_rules_matches_nothing_and_an_empty_rule_matches_everything() {
    assert_eq!(one("spec: {}\n").rules, []);
    let rules = one("spec: {rules: [{}]}\n").rules;
    assert_eq!(rules.len(), 1);
    assert!(rules[0].from.is_empty() && rules[0].to.is_empty());
}

#[test]
fn every_word_of_the_schema_that_is_acted_on_is_read() {
    let policy = one(
        "spec:\n  action: DENY\n  rules:\n  - from:\n    - source: {notPrincipals: [a*], namespaces: [x], notNamespaces: [y], ipBlocks: [10.0.0.9/8, 1.2.3.4], notIpBlocks: ['::1']}\n    to:\n    - operation: {hosts: [h], notHosts: [i], notPorts: [22], methods: [GET], notMethods: [PUT], paths: [/a*], notPaths: ['*/b']}\n",
    );
    assert_eq!(policy.action, Action::Deny);
    let source = &policy.rules[0].from[0];
    let blocks: Vec<_> = source.ip_blocks.iter().map(|b| b.block.to_string()).collect();
    assert_eq!(blocks, ["10.0.0.0/8", "1.2.3.4/32"]);
    assert_eq!(source.not_ip_blocks[0].block.to_string(), "::1/128");
    assert_eq!(policy.rules[0].to[0].not_ports[0].port, 22);
    assert_eq!(policy.rules[0].to[0].not_paths[0].pattern, "*/b");
}

#[test]
fn what_is_not_enforced_is_refused_by_name() {
    refused(
        "spec:\n  action: AUDIT\n  targetRefs: []\n  rules:\n  - when: [{key: a}]\n    from: [{source: {requestPrincipals: [x], principle: [x]}}]\n",
        &[
            "p.yaml:5:11: `spec.action` is `AUDIT`, which is not supported yet",
            "p.yaml:6:3: `spec.targetRefs` is not supported yet",
            "p.yaml:8:5: `spec.rules[0].when` is not supported yet",
            "p.yaml:9:22: `spec.rules[0].from[0].source.requestPrincipals` is not supported yet",
            "p.yaml:9:46: `spec.rules[0].from[0].source.principle` is not a field of AuthorizationPolicy",
        ],
    );
}

#[test]
fn an_empty_list_is_refused_for_it_would_match_everything() {
    refused(
        "spec:\n  rules:\n  - from: []\n    to:\n    - operation: {ports: []}\n    - operation: {}\n",
        &[
            "p.yaml:6:5: `spec.rules[0].from` is empty; leave it out or fill it",
            "p.yaml:8:19: `spec.rules[0].to[0].operation.ports` is empty; leave it out or fill it",
            "p.yaml:9:7: `spec.rules[0].to[1].operation` has to say something",
        ],
    );
}

#[test]
fn words_that_can_never_match_as_meant_are_refused() {
    refused(
        "spec:\n  rules:\n  - from:\n    - source: {principals: ['spiffe://x/ns/a/sa/b', 'a*b'], ipBlocks: [nowhere]}\n    to:\n    - operation: {ports: [web, 0], paths: ['/a/{*}', '/a?b=c']}\n",
        &[
            "p.yaml:7:29: `spec.rules[0].from[0].source.principals[0]` is written without `spiffe://`: `x/ns/a/sa/b`",
            "p.yaml:7:53: `spec.rules[0].from[0].source.principals[1]` is `a*b`; a `*` stands first or last, and once",
            "p.yaml:7:72: `spec.rules[0].from[0].source.ipBlocks[0]` takes an address or a network, not `nowhere`",
            "p.yaml:9:27: `spec.rules[0].to[0].operation.ports[0]` takes a port between 1 and 65535, not `web`",
            "p.yaml:9:32: `spec.rules[0].to[0].operation.ports[1]` takes a port between 1 and 65535, not `0`",
            "p.yaml:9:44: `spec.rules[0].to[0].operation.paths[0]` is a template, which is not supported yet",
            "p.yaml:9:54: `spec.rules[0].to[0].operation.paths[1]` is compared without query; leave out what follows `?`",
        ],
    );
}

#[test]
fn other_objects_and_second_copies_are_refused() {
    let text = format!("kind: Gateway\n---\n{HEAD}spec: {{}}\n---\n{HEAD}spec: {{}}\n---\n{HEAD}");
    let problems = parse(&text, "p.yaml", "shop").expect_err("is refused");
    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "p.yaml:1:1: is a `Gateway` of no API, not an AuthorizationPolicy of security.istio.io/v1 or v1beta1",
            "p.yaml:8:1: the policy `p` is written here a second time",
            "p.yaml:13:1: lacks `spec`; `spec: {}` is a policy that allows nothing",
        ]
    );
}

#[test]
fn a_selector_sees_labels_and_the_implied_app_within_its_namespace() {
    let policy = one("spec: {selector: {matchLabels: {app: api, tier: back}}}\n");
    let labels = BTreeMap::from([("tier".to_owned(), "back".to_owned())]);
    assert!(policy.selects("shop", "api", &labels));
    assert!(!policy.selects("shop", "store", &labels));
    assert!(!policy.selects("other", "api", &labels));
    assert!(!policy.selects("shop", "api", &BTreeMap::new()));
    let own = BTreeMap::from([
        ("app".to_owned(), "api".to_owned()),
        ("tier".to_owned(), "back".to_owned()),
    ]);
    assert!(policy.selects("shop", "store", &own));
}

//! Resources that make sense become a snapshot; others become reasons.

use std::net::{IpAddr, Ipv4Addr};

use carrack_filters::authorize::{Call, Ruling};
use carrack_snapshot::{Target, compile};
use carrack_xds::{
    Action, Authorization, Ingress, Match, Operation, Origin, Protocol, Resources, Rule, Service,
    Workload,
};

fn workload(uid: &str, last: u8, ready: bool) -> Workload {
    Workload {
        uid: uid.into(),
        name: format!("shop-api-{last}"),
        namespace: "shop".into(),
        service_account: "api".into(),
        address: [10, 89, 0, last].into(),
        netns: Some("/run/netns/x".into()),
        ready,
        protocols: [(8080, Protocol::Http)].into(),
    }
}

fn shop() -> Resources {
    Resources {
        version: "v1".into(),
        trust_domain: "mesh.test".into(),
        workloads: vec![workload("a", 2, true), workload("b", 3, false)],
        services: vec![Service {
            name: "api".into(),
            namespace: "shop".into(),
            vip: [10, 90, 0, 1].into(),
            endpoints: vec!["a".into(), "b".into()],
            protocols: [(8080, Protocol::Http)].into(),
        }],
        authorizations: vec![Authorization {
            name: "none".into(),
            namespace: "shop".into(),
            action: Action::Deny,
            workloads: vec!["a".into()],
            rules: vec![Rule::default()],
            origin: Origin::default(),
        }],
        ingress: vec![Ingress {
            listen: ([127, 0, 0, 1], 8080).into(),
            namespace: "shop".into(),
            service: "api".into(),
            port: 8080,
            protocol: None,
        }],
    }
}

/// Compiles the shop changed by `change`; the first problem is `expected`.
#[track_caller]
fn refused(change: impl FnOnce(&mut Resources), expected: &str) {
    let mut resources = shop();
    change(&mut resources);
    let problems = compile(&resources).expect_err("refused");
    let first = problems.first().expect("a reason");
    assert_eq!(format!("{} {}: {}", first.resource, first.path, first.message), expected);
}

#[test]
fn references_are_followed_and_only_ready_workloads_are_endpoints() {
    let snapshot = compile(&shop()).expect("compiles");
    let Some(Target::Service(service)) = snapshot.target([10, 90, 0, 1].into()) else {
        panic!("no service");
    };
    let uids: Vec<_> = service.endpoints.iter().map(|one| one.uid.as_str()).collect();
    assert_eq!(uids, ["a"]);
    let Some(target @ Target::Workload(one)) = snapshot.target([10, 89, 0, 3].into()) else {
        panic!("no workload");
    };
    assert_eq!((one.uid.as_str(), target.protocol(8080)), ("b", Some(Protocol::Http)));
    assert!(snapshot.target(Ipv4Addr::new(1, 1, 1, 1)).is_none());
    let door = &snapshot.ingress()[0];
    assert_eq!(door.identity.to_string(), "spiffe://mesh.test/ns/shop/sa/carrack-ingress");
    assert_eq!(door.protocol, Some(Protocol::Http));
}

#[test]
fn policies_judge_the_workloads_they_name_and_no_other() {
    let snapshot = compile(&shop()).expect("compiles");
    let call = Call { caller: None, address: IpAddr::from([10, 89, 0, 9]), port: 1, http: None };
    let ruling = |uid| snapshot.workload(uid).expect("there").authorizer.decide(&call);
    assert!(matches!(ruling("a"), Ruling::Denied(_)));
    assert!(matches!(ruling("b"), Ruling::Allowed(_)));
}

#[test]
fn every_reason_names_a_resource_and_a_path() {
    let mut resources = shop();
    resources.trust_domain = "Not A Domain".into();
    let problems = compile(&resources).expect_err("refused");
    let places: Vec<_> = problems.iter().map(|one| (&*one.resource, &*one.path)).collect();
    assert_eq!(places, [("resources", "trust_domain")]);
}

#[test]
fn what_two_claim_is_refused() {
    refused(
        |r| r.workloads[1].address = r.workloads[0].address,
        "workload shop-api-3 address: 10.89.0.2 is also the address of workload uid a",
    );
    refused(
        |r| r.workloads[1].uid = "a".into(),
        "workload shop-api-3 uid: `a` is another workload's",
    );
    refused(
        |r| r.services.push(Service { name: "other".into(), ..r.services[0].clone() }),
        "service shop/other vip: 10.90.0.1 is also the address of service api",
    );
    refused(
        |r| r.ingress.push(r.ingress[0].clone()),
        "ingress 127.0.0.1:8080 listen: is taken by another ingress, or has no port",
    );
}

#[test]
fn what_points_nowhere_is_refused() {
    refused(
        |r| r.services[0].endpoints.push("z".into()),
        "service shop/api endpoints[2]: no workload has the uid `z`",
    );
    refused(
        |r| r.authorizations[0].workloads.push("z".into()),
        "authorization shop/none workloads[1]: no workload has the uid `z`",
    );
    refused(
        |r| r.ingress[0].service = "nobody".into(),
        "ingress 127.0.0.1:8080 service: there is no service shop/nobody",
    );
}

#[test]
fn a_pattern_that_cannot_be_enforced_is_refused() {
    let paths = vec![Match { pattern: "/a*b".into(), origin: Origin::default() }];
    let rule = Rule { to: vec![Operation { paths, ..Operation::default() }], ..Rule::default() };
    refused(
        |r| r.authorizations[0].rules = vec![rule],
        "authorization shop/none rules[0].to[0].paths[0]: `/a*b` is not understood: \
         a pattern has at most one `*`, at the beginning or at the end",
    );
}

#[test]
fn all_reasons_are_given_at_once() {
    let mut resources = shop();
    resources.version.clear();
    resources.ingress[0].service = "nobody".into();
    resources.services[0].endpoints.push("z".into());
    assert_eq!(compile(&resources).expect_err("refused").len(), 3);
}

#[test]
fn the_order_of_the_input_does_not_matter() {
    let mut turned = shop();
    turned.workloads.reverse();
    turned.services[0].endpoints.reverse();
    let (one, other) = (compile(&shop()).expect("compiles"), compile(&turned).expect("compiles"));
    for address in [[10, 89, 0, 2], [10, 89, 0, 3], [10, 90, 0, 1]] {
        let endpoints = |snapshot: &carrack_snapshot::Snapshot| {
            let target = snapshot.target(address.into()).expect("known");
            target.endpoints().iter().map(|one| one.uid.clone()).collect::<Vec<_>>()
        };
        assert_eq!(endpoints(&one), endpoints(&other), "for {address:?}");
    }
}

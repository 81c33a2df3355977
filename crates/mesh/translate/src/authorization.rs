//! Policies, resolved to the workloads they judge.

use carrack_objects::policy::{self, AuthorizationPolicy};
use carrack_spiffe::TrustDomain;
use carrack_xds::{self as xds, Authorization};

use crate::workload::Told;
use crate::{Problem, Status, World};

/// In Istio's policies this trust domain stands for the mesh's own.
const OWN_TRUST_DOMAIN: &str = "cluster.local/";

/// The policies, by namespace and name. One that selects nothing is told all the
/// same: it takes effect with the first workload it selects. Policies that share
/// a name are a problem, but all of them are told, each named by its place too:
/// leaving one out could allow what it forbids.
pub(crate) fn authorizations(
    world: &World,
    workloads: &[Told<'_>],
    problems: &mut Vec<Problem>,
) -> (Vec<Authorization>, Vec<Status>) {
    let mut policies: Vec<_> = world.policies.iter().collect();
    policies.sort_by(|a, b| {
        (&a.namespace, &a.name, &a.origin).cmp(&(&b.namespace, &b.name, &b.origin))
    });
    policies.dedup();
    let mut told: Vec<_> =
        policies.iter().map(|policy| authorization(world, policy, workloads)).collect();
    let key = |policy: &AuthorizationPolicy| (policy.namespace.clone(), policy.name.clone());
    for (policy, (resource, _)) in policies.iter().zip(&mut told) {
        if policies.iter().filter(|other| key(other) == key(policy)).count() > 1 {
            resource.name = format!("{} ({})", policy.name, policy.origin);
            let object = format!("policy {}/{}", policy.namespace, policy.name);
            let message = format!("the one at {} shares its name with another", policy.origin);
            problems.push(Problem { object, message });
        }
    }
    told.into_iter().unzip()
}

fn authorization(
    world: &World,
    policy: &AuthorizationPolicy,
    workloads: &[Told<'_>],
) -> (Authorization, Status) {
    let judged: Vec<_> = workloads
        .iter()
        .filter(|told| {
            let workload = &told.resource;
            policy.selects(&workload.namespace, &workload.service_account, told.labels)
        })
        .map(|told| &told.resource)
        .collect();
    let resource = Authorization {
        name: policy.name.clone(),
        namespace: policy.namespace.clone(),
        action: match policy.action {
            policy::Action::Allow => xds::Action::Allow,
            policy::Action::Deny => xds::Action::Deny,
        },
        workloads: judged.iter().map(|workload| workload.uid.clone()).collect(),
        rules: policy.rules.iter().map(|r| rule(&world.trust_domain, r)).collect(),
        origin: origin(&policy.origin),
    };
    let mut names: Vec<_> = judged.iter().map(|workload| workload.name.clone()).collect();
    names.sort();
    let status = Status {
        namespace: policy.namespace.clone(),
        name: policy.name.clone(),
        origin: policy.origin.clone(),
        workloads: names,
    };
    (resource, status)
}

fn rule(trust_domain: &TrustDomain, rule: &policy::Rule) -> xds::Rule {
    xds::Rule {
        origin: origin(&rule.origin),
        from: rule.from.iter().map(|from| source(trust_domain, from)).collect(),
        to: rule.to.iter().map(operation).collect(),
    }
}

fn source(trust_domain: &TrustDomain, source: &policy::Source) -> xds::Source {
    let principals = |list: &[policy::Word]| -> Vec<xds::Match> {
        list.iter().map(|word| principal(trust_domain, word)).collect()
    };
    xds::Source {
        origin: origin(&source.origin),
        principals: principals(&source.principals),
        not_principals: principals(&source.not_principals),
        namespaces: words(&source.namespaces),
        not_namespaces: words(&source.not_namespaces),
        ip_blocks: blocks(&source.ip_blocks),
        not_ip_blocks: blocks(&source.not_ip_blocks),
    }
}

fn operation(operation: &policy::Operation) -> xds::Operation {
    xds::Operation {
        origin: origin(&operation.origin),
        methods: words(&operation.methods),
        not_methods: words(&operation.not_methods),
        paths: words(&operation.paths),
        not_paths: words(&operation.not_paths),
        hosts: words(&operation.hosts),
        not_hosts: words(&operation.not_hosts),
        ports: ports(&operation.ports),
        not_ports: ports(&operation.not_ports),
    }
}

fn principal(trust_domain: &TrustDomain, word: &policy::Word) -> xds::Match {
    let pattern = match word.pattern.strip_prefix(OWN_TRUST_DOMAIN) {
        Some(rest) => format!("{trust_domain}/{rest}"),
        None => word.pattern.clone(),
    };
    xds::Match { pattern, origin: origin(&word.origin) }
}

fn words(words: &[policy::Word]) -> Vec<xds::Match> {
    let one = |word: &policy::Word| xds::Match {
        pattern: word.pattern.clone(),
        origin: origin(&word.origin),
    };
    words.iter().map(one).collect()
}

fn blocks(blocks: &[policy::Block]) -> Vec<xds::IpBlock> {
    blocks.iter().map(|b| xds::IpBlock { block: b.block, origin: origin(&b.origin) }).collect()
}

fn ports(ports: &[policy::Port]) -> Vec<xds::PortMatch> {
    ports.iter().map(|p| xds::PortMatch { port: p.port, origin: origin(&p.origin) }).collect()
}

fn origin(origin: &carrack_objects::Origin) -> xds::Origin {
    xds::Origin { file: origin.file.clone(), line: origin.line, column: origin.column }
}

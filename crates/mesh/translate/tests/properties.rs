//! What holds for every world.

use std::net::{IpAddr, Ipv4Addr};

use carrack_objects::mesh::{AppProtocol, Published, Service, Workload};
use carrack_objects::policy::{self, AuthorizationPolicy};
use carrack_translate::{World, translate};
use proptest::prelude::*;

const PROJECTS: [&str; 2] = ["shop", "blog"];
const SERVICES: [&str; 4] = ["web", "api", "store", "carrack-ingress"];

fn published() -> impl Strategy<Value = Vec<Published>> {
    let one =
        (0u16..4, 80u16..82, any::<bool>()).prop_map(|(port, container_port, wide)| Published {
            host: IpAddr::V4(if wide { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST }),
            host_port: if port == 0 { 0 } else { 8000 + port },
            container_port,
            protocol: (port == 1).then_some(AppProtocol::Http),
        });
    prop::collection::vec(one, 0..2)
}

fn workload() -> impl Strategy<Value = Workload> {
    (0..6u8, 0..2usize, 0..4usize, 2..8u8, any::<bool>(), published()).prop_map(
        |(uid, project, service, address, tier, published)| Workload {
            uid: format!("uid{uid}"),
            name: format!("{}-{}-{address}", PROJECTS[project], SERVICES[service]),
            project: PROJECTS[project].to_owned(),
            service: SERVICES[service].to_owned(),
            address: [10, 89, 0, address].into(),
            netns: format!("/run/netns/{uid}").into(),
            labels: tier.then(|| ("tier".to_owned(), "back".to_owned())).into_iter().collect(),
            ready: true,
            protocols: [(80, AppProtocol::Http)].into(),
            published,
        },
    )
}

fn service() -> impl Strategy<Value = Service> {
    (0..2usize, 0..4usize, 0..5u8, published()).prop_map(|(project, name, vip, published)| {
        Service {
            name: SERVICES[name].to_owned(),
            project: PROJECTS[project].to_owned(),
            vip: [10, 90, 0, vip].into(),
            protocols: [].into(),
            published,
        }
    })
}

fn authorization_policy() -> impl Strategy<Value = AuthorizationPolicy> {
    (0..3u8, 0..2usize, 0..3usize, any::<bool>()).prop_map(|(name, project, app, deny)| {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p{name}}}\nspec: {{selector: {{matchLabels: {{app: {}}}}}, action: {}, rules: [{{}}]}}\n",
            SERVICES[app],
            if deny { "DENY" } else { "ALLOW" },
        );
        let file = format!("{name}-{app}-{deny}.yaml");
        policy::parse(&text, &file, PROJECTS[project]).expect("parses").remove(0)
    })
}

fn world() -> impl Strategy<Value = World> {
    (
        prop::collection::vec(workload(), 0..6),
        prop::collection::vec(service(), 0..6),
        prop::collection::vec(authorization_policy(), 0..4),
    )
        .prop_map(|(workloads, services, policies)| World {
            trust_domain: "carrack.local".parse().expect("a trust domain"),
            workloads: distinct(workloads),
            services: distinct(services),
            policies,
        })
}

/// The same object twice is one object told twice; which of them stays does not matter.
fn distinct<T: PartialEq>(objects: Vec<T>) -> Vec<T> {
    let mut distinct = Vec::new();
    for object in objects {
        if !distinct.contains(&object) {
            distinct.push(object);
        }
    }
    distinct
}

fn shuffled(world: &World, seed: usize) -> World {
    fn turn<T: Clone>(list: &[T], seed: usize) -> Vec<T> {
        let mut list: Vec<T> = list.iter().rev().cloned().collect();
        if !list.is_empty() {
            let by = seed % list.len();
            list.rotate_left(by);
        }
        list
    }
    World {
        trust_domain: world.trust_domain.clone(),
        workloads: turn(&world.workloads, seed),
        services: turn(&world.services, seed / 7),
        policies: turn(&world.policies, seed / 49),
    }
}

proptest! {
    #[test]
    fn whatever_comes_out_is_accepted_by_the_proxy(world in world()) {
        let mut resources = translate(&world).resources;
        resources.version = "v".to_owned();
        prop_assert!(carrack_snapshot::compile(&resources).is_ok());
    }

    #[test]
    fn the_order_of_the_world_does_not_matter(world in world(), seed in 0usize..343) {
        prop_assert_eq!(translate(&shuffled(&world, seed)), translate(&world));
    }

    #[test]
    fn removing_a_project_changes_nothing_in_another_that_shared_nothing_with_it(world in world()) {
        let keep = |project: &str| project == "shop";
        let mut apart = world.clone();
        // What the other project might contend for is its own.
        for workload in apart.workloads.iter_mut().filter(|w| !keep(&w.project)) {
            workload.uid.push_str("-blog");
            workload.address = [10, 88, 0, workload.address.octets()[3]].into();
            workload.published.clear();
        }
        for service in apart.services.iter_mut().filter(|s| !keep(&s.project)) {
            service.vip = [10, 87, 0, service.vip.octets()[3]].into();
            service.published.clear();
        }
        let mut alone = apart.clone();
        alone.workloads.retain(|w| keep(&w.project));
        alone.services.retain(|s| keep(&s.project));
        alone.policies.retain(|p| keep(&p.namespace));
        let (both, alone) = (translate(&apart).resources, translate(&alone).resources);
        let of = |namespace: &str| namespace == "shop";
        prop_assert_eq!(both.workloads.into_iter().filter(|w| of(&w.namespace)).collect::<Vec<_>>(), alone.workloads);
        prop_assert_eq!(both.services.into_iter().filter(|s| of(&s.namespace)).collect::<Vec<_>>(), alone.services);
        prop_assert_eq!(both.authorizations.into_iter().filter(|a| of(&a.namespace)).collect::<Vec<_>>(), alone.authorizations);
        prop_assert_eq!(both.ingress.into_iter().filter(|i| of(&i.namespace)).collect::<Vec<_>>(), alone.ingress);
    }

    #[test]
    fn removing_a_policy_changes_no_other_resource(world in world()) {
        let mut less = world.clone();
        let gone = less.policies.pop();
        let less_policies = less.policies.clone();
        let (all, less) = (translate(&world).resources, translate(&less).resources);
        prop_assert_eq!(all.workloads, less.workloads);
        prop_assert_eq!(all.services, less.services);
        prop_assert_eq!(all.ingress, less.ingress);
        let told_twice = gone.as_ref().is_some_and(|gone| less_policies.contains(gone));
        let fewer = usize::from(gone.is_some() && !told_twice);
        prop_assert_eq!(all.authorizations.len(), less.authorizations.len() + fewer);
    }
}

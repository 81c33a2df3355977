//! Plans, case by case.
//!
//! An application is written as its services, each `name: dependency, dependency`; what a plan
//! does is read back as one line per container.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use carrack_objects::compose::{
    Application, Condition, Dependency, HealthTest, Healthcheck, Mount, MountKind, Port, Volume,
};
use carrack_oci::{Digest, ExecutionConfig};
use indexmap::IndexMap;

use super::{Deed, Existing, ImageFacts, Plan, PlanProblem, Wish, plan};
use crate::api::{Recreate, plain_service};

fn application(services: &[(&str, &[&str])]) -> Application {
    let mut map = IndexMap::new();
    for (name, dependencies) in services {
        let mut service = plain_service(name, name);
        for other in *dependencies {
            service.depends_on.insert((*other).to_owned(), started());
        }
        map.insert((*name).to_owned(), service);
    }
    Application {
        name: "shop".to_owned(),
        directory: PathBuf::from("/shop"),
        services: map,
        volumes: IndexMap::new(),
        warnings: Vec::new(),
    }
}

fn started() -> Dependency {
    Dependency { condition: Condition::Started, restart: false, required: true }
}

fn image() -> ImageFacts {
    let config = ExecutionConfig {
        entrypoint: vec!["/entry".to_owned()],
        cmd: vec!["serve".to_owned()],
        env: vec!["PATH=/bin".to_owned(), "A=image".to_owned()],
        ..ExecutionConfig::default()
    };
    ImageFacts { name: "image".to_owned(), digest: Digest::of("image"), config }
}

/// A question to the planner: an application and what already exists.
struct Case {
    application: Application,
    image: ImageFacts,
    chosen: Vec<String>,
    recreate: Recreate,
    remove_orphans: bool,
    scale: BTreeMap<String, u32>,
}

impl Case {
    fn of(services: &[(&str, &[&str])]) -> Self {
        Self {
            application: application(services),
            image: image(),
            chosen: Vec::new(),
            recreate: Recreate::Changed,
            remove_orphans: false,
            scale: BTreeMap::new(),
        }
    }

    fn service(
        mut self,
        name: &str,
        change: impl FnOnce(&mut carrack_objects::compose::Service),
    ) -> Self {
        change(self.application.services.get_mut(name).expect("the service is there"));
        self
    }

    fn plan(&self, exists: &[Existing]) -> Result<Plan, Vec<PlanProblem>> {
        let images = self.application.services.keys();
        let images = images.map(|name| (name.clone(), self.image.clone())).collect();
        let wish = Wish {
            application: &self.application,
            images: &images,
            services: &self.chosen,
            recreate: self.recreate,
            remove_orphans: self.remove_orphans,
            scale: &self.scale,
        };
        plan(&wish, exists)
    }

    /// What exists once this was carried out.
    fn carried_out(&self) -> Vec<Existing> {
        let plan = self.plan(&[]).expect("it can be planned");
        let containers = plan.services.iter().flat_map(|service| {
            service.containers.iter().map(|container| Existing {
                id: container.name.clone(),
                name: container.name.clone(),
                service: service.service.clone(),
                number: container.number,
                hash: container.definition.hash(),
            })
        });
        containers.collect()
    }
}

fn lines(plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    for service in &plan.services {
        for container in &service.containers {
            let deed = match container.deed {
                Deed::Keep(_) => "keep",
                Deed::Restart(_) => "restart",
                Deed::Create => "create",
                Deed::Recreate(_) => "recreate",
            };
            lines.push(format!("{deed} {}", container.name));
        }
        lines.extend(service.excess.iter().map(|old| format!("remove {}", old.name)));
    }
    lines.extend(plan.orphans.iter().map(|old| format!("remove {}", old.name)));
    lines
}

#[track_caller]
fn check(case: &Case, exists: &[Existing], expected: &[&str]) {
    let plan = case.plan(exists).expect("it can be planned");
    assert_eq!(lines(&plan), expected);
}

#[track_caller]
fn refused(case: &Case, expected: &[PlanProblem]) {
    assert_eq!(case.plan(&[]).expect_err("it cannot be planned"), expected);
}

const SHOP: &[(&str, &[&str])] = &[("edge", &["api"]), ("api", &["store"]), ("store", &[])];

#[test]
fn what_is_not_there_is_made_dependencies_first() {
    check(
        &Case::of(SHOP),
        &[],
        &["create shop-store-1", "create shop-api-1", "create shop-edge-1"],
    );
}

#[test]
fn what_is_as_it_should_be_is_kept() {
    let case = Case::of(SHOP);
    let expected = ["keep shop-store-1", "keep shop-api-1", "keep shop-edge-1"];
    check(&case, &case.carried_out(), &expected);
}

#[test]
fn only_what_changed_is_made_anew() {
    let exists = Case::of(SHOP).carried_out();
    let case = Case::of(SHOP).service("api", |api| {
        api.environment.insert("A".to_owned(), "2".to_owned());
    });
    check(&case, &exists, &["keep shop-store-1", "recreate shop-api-1", "keep shop-edge-1"]);
}

#[test]
fn a_new_image_is_a_change() {
    let exists = Case::of(&[("a", &[])]).carried_out();
    let mut case = Case::of(&[("a", &[])]);
    case.image.digest = Digest::of("another");
    check(&case, &exists, &["recreate shop-a-1"]);
}

#[test]
fn never_recreating_keeps_and_always_recreating_does_not() {
    let exists = Case::of(&[("a", &[])]).carried_out();
    let mut case = Case::of(&[("a", &[])]);
    case.recreate = Recreate::Always;
    check(&case, &exists, &["recreate shop-a-1"]);
    case.recreate = Recreate::Never;
    case.image.digest = Digest::of("another");
    check(&case, &exists, &["keep shop-a-1"]);
}

#[test]
fn one_that_wants_it_is_restarted_when_its_dependency_is_made_anew() {
    let case = |value: &str| {
        Case::of(&[("api", &["store"]), ("store", &[])])
            .service("api", |api| {
                if let Some(store) = api.depends_on.get_mut("store") {
                    store.restart = true;
                }
            })
            .service("store", |store| {
                store.environment.insert("V".to_owned(), value.to_owned());
            })
    };
    let exists = case("1").carried_out();
    check(&case("2"), &exists, &["recreate shop-store-1", "restart shop-api-1"]);
}

#[test]
fn more_replicas_are_added_and_fewer_removed_from_the_end() {
    let mut case = Case::of(&[("a", &[])]);
    case.scale.insert("a".to_owned(), 3);
    let exists = case.carried_out();
    check(&case, &exists, &["keep shop-a-1", "keep shop-a-2", "keep shop-a-3"]);
    case.scale.insert("a".to_owned(), 1);
    check(&case, &exists, &["keep shop-a-1", "remove shop-a-2", "remove shop-a-3"]);
    case.scale.insert("a".to_owned(), 0);
    check(&case, &exists, &["remove shop-a-1", "remove shop-a-2", "remove shop-a-3"]);
}

#[test]
fn a_missing_replica_in_the_middle_is_made_again() {
    let mut case = Case::of(&[("a", &[])]);
    case.scale.insert("a".to_owned(), 3);
    let mut exists = case.carried_out();
    exists.remove(1);
    check(&case, &exists, &["keep shop-a-1", "create shop-a-2", "keep shop-a-3"]);
}

#[test]
fn chosen_services_bring_what_they_depend_on_and_nothing_else() {
    let mut case = Case::of(&[("edge", &["api"]), ("api", &[]), ("other", &[])]);
    case.chosen = vec!["edge".to_owned()];
    check(&case, &[], &["create shop-api-1", "create shop-edge-1"]);
}

#[test]
fn orphans_are_told_of_and_removed_only_when_asked() {
    let exists = Case::of(&[("a", &[]), ("gone", &[])]).carried_out();
    let mut case = Case::of(&[("a", &[])]);
    let plan = case.plan(&exists).expect("it can be planned");
    assert_eq!(lines(&plan), ["keep shop-a-1"]);
    assert!(plan.warnings[0].contains("shop-gone-1"), "{:?}", plan.warnings);
    case.remove_orphans = true;
    check(&case, &exists, &["keep shop-a-1", "remove shop-gone-1"]);
}

#[test]
fn a_circle_is_shown_whole() {
    let circle = ["a", "b", "c", "a"].map(str::to_owned).to_vec();
    refused(
        &Case::of(&[("a", &["b"]), ("b", &["c"]), ("c", &["a"])]),
        &[PlanProblem::Circle(circle)],
    );
}

#[test]
fn a_dependency_that_is_not_there_is_a_problem_unless_it_is_optional() {
    let problem =
        PlanProblem::NoSuchDependency { service: "a".to_owned(), other: "ghost".to_owned() };
    refused(&Case::of(&[("a", &["ghost"])]), &[problem]);
    let optional = Case::of(&[("a", &["ghost"])]).service("a", |a| {
        if let Some(ghost) = a.depends_on.get_mut("ghost") {
            ghost.required = false;
        }
    });
    check(&optional, &[], &["create shop-a-1"]);
}

#[test]
fn every_problem_is_told_at_once() {
    let mut case = Case::of(&[("a", &[]), ("b", &[])])
        .service("a", |a| a.stop_signal = Some("SIGNOPE".to_owned()))
        .service("b", |b| b.cap_add = vec!["FLY".to_owned()]);
    case.image.config.entrypoint.clear();
    case.image.config.cmd.clear();
    let problems = case.plan(&[]).expect_err("it cannot be planned");
    assert_eq!(problems.len(), 4, "{problems:?}");
}

#[test]
fn waiting_for_the_health_of_one_that_cannot_tell_is_refused() {
    let waits = |case: Case| {
        case.service("api", |api| {
            if let Some(store) = api.depends_on.get_mut("store") {
                store.condition = Condition::Healthy;
            }
        })
    };
    let services: &[(&str, &[&str])] = &[("api", &["store"]), ("store", &[])];
    let problem =
        PlanProblem::NoHealthcheck { service: "api".to_owned(), other: "store".to_owned() };
    refused(&waits(Case::of(services)), &[problem]);
    let checked = waits(Case::of(services)).service("store", |store| {
        store.healthcheck = Some(Healthcheck {
            test: Some(HealthTest::Exec(vec!["true".to_owned()])),
            ..Healthcheck::default()
        });
    });
    check(&checked, &[], &["create shop-store-1", "create shop-api-1"]);
}

fn port(host: IpAddr, host_port: Option<u16>) -> Port {
    Port { host, host_port, container_port: 80, protocol: None }
}

#[test]
fn two_services_cannot_have_one_host_port() {
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let everywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let case = Case::of(&[("a", &[]), ("b", &[])])
        .service("a", |a| a.ports = vec![port(here, Some(8080)), port(here, None)])
        .service("b", |b| b.ports = vec![port(everywhere, Some(8080)), port(here, None)]);
    let problem = PlanProblem::SamePort {
        first: "a".to_owned(),
        second: "b".to_owned(),
        address: "0.0.0.0:8080".to_owned(),
    };
    refused(&case, &[problem]);
}

#[test]
fn a_port_the_engine_chooses_is_no_change() {
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let case = Case::of(&[("a", &[])]).service("a", |a| a.ports = vec![port(here, None)]);
    check(&case, &case.carried_out(), &["keep shop-a-1"]);
}

#[track_caller]
fn command(entrypoint: Option<&[&str]>, arguments: Option<&[&str]>, expected: &[&str]) {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let case = Case::of(&[("a", &[])]).service("a", |a| {
        a.entrypoint = entrypoint.map(words);
        a.command = arguments.map(words);
    });
    let plan = case.plan(&[]).expect("it can be planned");
    assert_eq!(plan.services[0].containers[0].definition.command, expected);
}

#[test]
fn a_service_replaces_the_images_command_or_entry_point() {
    command(None, None, &["/entry", "serve"]);
    command(None, Some(&["other"]), &["/entry", "other"]);
    command(None, Some(&[]), &["/entry"]);
    command(Some(&["/mine"]), None, &["/mine"]);
    command(Some(&[]), Some(&["sh"]), &["sh"]);
}

#[test]
fn the_services_environment_is_over_the_images() {
    let case = Case::of(&[("a", &[])]).service("a", |a| {
        a.environment.insert("A".to_owned(), "service".to_owned());
    });
    let plan = case.plan(&[]).expect("it can be planned");
    let environment = &plan.services[0].containers[0].definition.environment;
    assert_eq!(environment.get("A").map(String::as_str), Some("service"));
    assert_eq!(environment.get("PATH").map(String::as_str), Some("/bin"));
}

#[test]
fn volumes_are_called_as_on_the_host_and_the_images_get_one_each() {
    let mut case = Case::of(&[("a", &[])]).service("a", |a| {
        a.mounts = vec![
            Mount {
                target: "/data/deep".to_owned(),
                read_only: false,
                kind: MountKind::Tmpfs { size: None, mode: None },
            },
            Mount {
                target: "/data".to_owned(),
                read_only: false,
                kind: MountKind::Volume { name: Some("data".to_owned()), nocopy: false },
            },
        ];
    });
    let volume = Volume { name: "shop_data".to_owned(), external: false, labels: IndexMap::new() };
    case.application.volumes.insert("data".to_owned(), volume);
    case.image.config.volumes = ["/data/".to_owned(), "/cache".to_owned()].into();
    let plan = case.plan(&[]).expect("it can be planned");
    assert_eq!(plan.volumes.keys().collect::<Vec<_>>(), ["shop_data"]);
    let mounts = &plan.services[0].containers[0].definition.mounts;
    let targets: Vec<&str> = mounts.iter().map(|mount| mount.target.as_str()).collect();
    assert_eq!(targets, ["/data", "/cache", "/data/deep"], "a deeper mount comes after");
    assert_eq!(
        mounts[1].kind,
        MountKind::Volume { name: None, nocopy: false },
        "the image's own volume"
    );
}

#[test]
fn a_health_check_takes_from_the_image_what_the_service_leaves_open() {
    let mut case = Case::of(&[("a", &[])]).service("a", |a| {
        let interval = Some(Duration::from_secs(2));
        a.healthcheck = Some(Healthcheck { interval, ..Healthcheck::default() });
    });
    case.image.config.healthcheck = Some(carrack_oci::Healthcheck {
        test: vec!["CMD-SHELL".to_owned(), "probe".to_owned()],
        interval: 9_000_000_000,
        retries: 7,
        ..carrack_oci::Healthcheck::default()
    });
    let plan = case.plan(&[]).expect("it can be planned");
    let health = plan.services[0].containers[0].definition.health.clone().expect("there is one");
    assert_eq!(health.command, ["/bin/sh", "-c", "probe"]);
    assert_eq!(health.interval, Duration::from_secs(2));
    assert_eq!(health.retries, 7);
    assert_eq!(health.timeout, Duration::from_secs(30));

    let disabled = case.service("a", |a| {
        let test = Some(HealthTest::Disabled);
        a.healthcheck = Some(Healthcheck { test, ..Healthcheck::default() });
    });
    let plan = disabled.plan(&[]).expect("it can be planned");
    assert_eq!(plan.services[0].containers[0].definition.health, None);
}

#[test]
fn the_order_of_a_map_in_the_file_does_not_make_another_container() {
    let with = |names: [&str; 2]| {
        let case = Case::of(&[("a", &[])]).service("a", |a| {
            for name in names {
                a.labels.insert(name.to_owned(), String::new());
                a.environment.insert(name.to_owned(), String::new());
            }
        });
        case.carried_out()[0].hash.clone()
    };
    assert_eq!(with(["x", "y"]), with(["y", "x"]));
}

//! Applications: up, again, changed, down.

use std::collections::BTreeMap;
use std::time::Duration;

use carrack_engine::api::{Action, DownRequest, Event, ExecRequest, Stage, Status, UpRequest};
use carrack_objects::compose::{
    Condition, Dependency, HealthTest, Healthcheck, Mount, MountKind, Restart, Service, Volume,
};

use crate::scene::{FOREVER, Scene, collect, finish, service, shell};

fn on(mut service: Service, other: &str, condition: Condition) -> Service {
    let dependency = Dependency { condition, restart: false, required: true };
    service.depends_on.insert(other.to_owned(), dependency);
    service
}

fn checked(mut service: Service, check: &str, retries: u32) -> Service {
    service.healthcheck = Some(Healthcheck {
        test: Some(HealthTest::Shell(check.to_owned())),
        interval: Some(Duration::from_millis(50)),
        retries: Some(retries),
        ..Healthcheck::default()
    });
    service
}

fn stages(events: &[Event], container: &str) -> Vec<Stage> {
    let mine = events.iter().filter_map(|event| match event {
        Event::Container { name, stage, .. } if name == container => Some(*stage),
        _ => None,
    });
    mine.collect()
}

fn actions(events: &[Event]) -> BTreeMap<String, Action> {
    let Some(Event::Planned { containers, .. }) = events.first() else {
        panic!("the plan is told first: {events:?}")
    };
    containers.iter().map(|planned| (planned.service.clone(), planned.action)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn services_start_once_what_they_wait_for_is_there() {
    let Some(scene) = Scene::new() else { return };
    let job = service("job", "echo migrated");
    let store = checked(
        service("store", &format!("sleep 0.3; touch /tmp/up; {FOREVER}")),
        "test -e /tmp/up",
        200,
    );
    let api = on(
        on(service("api", FOREVER), "store", Condition::Healthy),
        "job",
        Condition::CompletedSuccessfully,
    );
    let events = scene.up(scene.application(vec![api, store, job])).await.expect("it comes up");
    assert!(matches!(events.last(), Some(Event::Done { .. })), "{events:?}");
    let list = scene.client.ps(true, Some(&scene.project)).await.expect("listed");
    let of = |name: &str| list.iter().find(|c| c.service == name).expect("a container").clone();
    assert_eq!(of("job").exit.map(|exit| exit.code), Some(0));
    assert!(of("api").started > of("store").started);
    assert_eq!(of("api").name, format!("{}-api-1", scene.project));
    assert_eq!(of("api").status, Status::Running);
    assert_eq!(of("store").health, Some(carrack_engine::api::HealthState::Healthy));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dependency_that_stays_sick_stops_what_waits_for_it() {
    let Some(scene) = Scene::new() else { return };
    let store = checked(service("store", FOREVER), "echo no disk; exit 1", 2);
    let api = on(service("api", FOREVER), "store", Condition::Healthy);
    let error = scene.up(scene.application(vec![api, store])).await.expect_err("it cannot come up");
    let fault = error.fault().expect("the engine refused").clone();
    let told = format!("{} {}", fault.message, fault.causes.join(" "));
    assert!(told.contains("store-1 is unhealthy; its last check said: no disk"), "{told}");
    let list = scene.client.ps(true, Some(&scene.project)).await.expect("listed");
    assert!(list.iter().all(|c| c.service != "api"), "{list:?}");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn up_again_keeps_what_is_the_same_and_replaces_what_changed() {
    let Some(scene) = Scene::new() else { return };
    let api = on(service("api", FOREVER), "store", Condition::Started);
    let application = scene.application(vec![api, service("store", FOREVER)]);
    scene.up(application.clone()).await.expect("it comes up");
    let before = scene.client.ps(false, Some(&scene.project)).await.expect("listed");

    let again = scene.up(application.clone()).await.expect("it is up");
    assert_eq!(actions(&again).values().collect::<Vec<_>>(), [&Action::Keep; 2]);
    assert_eq!(stages(&again, &format!("{}-api-1", scene.project)), [Stage::Kept]);
    assert_eq!(scene.client.ps(false, Some(&scene.project)).await.expect("listed"), before);

    let mut changed = application;
    let api = changed.services.get_mut("api").expect("it is there");
    api.environment.insert("NEW".to_owned(), "1".to_owned());
    let events = scene.up(changed).await.expect("it comes up");
    let expected = [("api", Action::Recreate), ("store", Action::Keep)];
    assert_eq!(actions(&events), expected.map(|(n, a)| (n.to_owned(), a)).into());
    let after = scene.client.ps(false, Some(&scene.project)).await.expect("listed");
    let id = |list: &[carrack_engine::api::ContainerSummary], name: &str| {
        list.iter().find(|c| c.service == name).expect("a container").id.clone()
    };
    assert_eq!(id(&before, "store"), id(&after, "store"));
    assert_ne!(id(&before, "api"), id(&after, "api"));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_added_and_removed_and_all_answer_to_one_name() {
    let Some(scene) = Scene::new() else { return };
    let mut web = service("web", FOREVER);
    web.replicas = 3;
    let application = scene.application(vec![web, service("client", FOREVER)]);
    scene.up(application.clone()).await.expect("it comes up");
    let vip = scene.engine().services().borrow().iter().find(|s| s.name == "web").expect("web").vip;
    let list = scene.client.ps(false, Some(&scene.project)).await.expect("listed");
    let client = list.iter().find(|c| c.service == "client").expect("client").id.clone();
    let second = list.iter().find(|c| c.name.ends_with("web-2")).expect("web-2");
    let (_, output, _) = scene.exec(&client, "nslookup web; nslookup web-2").await;
    assert!(output.contains(&vip.to_string()), "{output}");
    assert!(output.contains(&second.address.expect("an address").to_string()), "{output}");
    let (code, output, _) = scene.exec(&client, "nslookup nobody 2>&1").await;
    assert_ne!(code, 0, "{output}");

    let mut fewer = UpRequest::new(application, BTreeMap::new());
    fewer.scale.insert("web".to_owned(), 1);
    scene.up_as(fewer).await.expect("it comes up");
    let list = scene.client.ps(false, Some(&scene.project)).await.expect("listed");
    assert_eq!(list.iter().filter(|c| c.service == "web").count(), 1);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_taken_down_leaves_its_volumes_until_they_are_asked_for() {
    let Some(scene) = Scene::new() else { return };
    let mut store = service("store", &format!("echo kept >/data/own; {FOREVER}"));
    store.mounts = vec![Mount {
        target: "/data".to_owned(),
        read_only: false,
        kind: MountKind::Volume { name: Some("data".to_owned()), nocopy: false },
    }];
    let mut application =
        scene.application(vec![store, on(service("api", FOREVER), "store", Condition::Started)]);
    let name = format!("{}_data", scene.project);
    let volume = Volume { name: name.clone(), external: false, labels: Default::default() };
    application.volumes.insert("data".to_owned(), volume);
    let events = scene.up(application.clone()).await.expect("it comes up");
    assert!(events.contains(&Event::VolumeCreated { name: name.clone() }), "{events:?}");
    assert!(events.iter().any(|event| matches!(event, Event::NetworkCreated { .. })));

    let down = scene.client.down(&scene.project, &DownRequest::default()).await.expect("down");
    let events = collect(down).await.expect("it goes down");
    let order: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            Event::Container { name, stage: Stage::Removed, .. } => Some(name.as_str()),
            _ => None,
        })
        .collect();
    assert!(order[0].contains("api") && order[1].contains("store"), "{order:?}");
    assert!(scene.engine().workloads().borrow().is_empty());
    assert!(scene.engine().services().borrow().is_empty());
    assert_eq!(scene.client.volumes().await.expect("listed").len(), 1);

    scene.up(application).await.expect("it comes up again");
    let id = format!("{}-store-1", scene.project);
    let asked = ExecRequest { command: shell("cat /data/own"), ..ExecRequest::default() };
    let session = scene.client.exec(&id, &asked).await.expect("it runs");
    assert_eq!(finish(session).await.1, "kept\n");
    let all = DownRequest { volumes: true, ..DownRequest::default() };
    collect(scene.client.down(&scene.project, &all).await.expect("down")).await.expect("down");
    assert_eq!(scene.client.volumes().await.expect("listed"), []);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_cannot_be_planned_changes_nothing_and_says_everything() {
    let Some(scene) = Scene::new() else { return };
    let mut bad = service("bad", FOREVER);
    bad.stop_signal = Some("SIGNOPE".to_owned());
    let lonely = on(service("lonely", FOREVER), "ghost", Condition::Started);
    let error = scene.up(scene.application(vec![bad.clone(), lonely])).await.expect_err("refused");
    assert!(error.to_string().contains("depends on `ghost`"), "{error}");
    bad.image = Some("nowhere".to_owned());
    let mut worse = service("worse", FOREVER);
    worse.cap_add = vec!["FLY".to_owned()];
    let error = scene.up(scene.application(vec![bad, worse])).await.expect_err("refused");
    assert!(error.to_string().contains("`bad` has no image"), "{error}");
    assert!(error.to_string().contains("`FLY` is no capability"), "{error}");
    assert_eq!(scene.client.ps(true, Some(&scene.project)).await.expect("listed"), []);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_up_whose_client_leaves_is_finished() {
    let Some(scene) = Scene::new() else { return };
    let mut web = service("web", FOREVER);
    web.restart = Restart::UnlessStopped;
    let request = UpRequest::new(scene.application(vec![web]), BTreeMap::new());
    let mut events = scene.client.up(&request).await.expect("it begins");
    events.next().await.expect("the plan").expect("is told");
    drop(events);
    let mut workloads = scene.engine().workloads();
    workloads.wait_for(|list| list.iter().any(|workload| workload.ready)).await.expect("it runs");
    scene.end().await;
}

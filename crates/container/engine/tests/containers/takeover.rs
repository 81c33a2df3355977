//! An engine that ends and one that comes after it; shims that are killed.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use carrack_engine::api::{ContainerDetail, HealthState, Status, StopRequest};
use carrack_linux::process;
use carrack_objects::compose::{HealthTest, Healthcheck, Restart};
use rustix::process::Pid;

use crate::scene::{FOREVER, Scene};

async fn detail(scene: &Scene, id: &str) -> ContainerDetail {
    scene.client.inspect(id).await.expect("the container is known")
}

fn kill(pid: Option<u32>) {
    let pid = i32::try_from(pid.expect("it has a process")).expect("a process id");
    let handle = process::open(Pid::from_raw(pid).expect("a process id")).expect("it lives");
    process::signal(handle.as_fd(), libc::SIGKILL).expect("it is killed");
}

/// Whether a process runs. One that has ended and that nobody has asked about does not.
fn lives(pid: Option<u32>) -> bool {
    let pid = pid.expect("it had a process");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some(None | Some('Z' | 'X')))
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_outlive_their_engine_and_the_next_one_holds_them() {
    let Some(mut scene) = Scene::new() else { return };
    let id = scene.start(&scene.request(FOREVER)).await;
    let before = detail(&scene, &id).await;
    scene.close().await;
    assert!(lives(before.pid), "its program runs on");
    scene.open();
    let listed = Arc::clone(&scene.engine().workloads().borrow());
    assert_eq!(listed.iter().map(|w| w.uid.as_str()).collect::<Vec<_>>(), [&id], "listed at once");
    assert!(listed[0].ready);
    let after = detail(&scene, &id).await;
    assert_eq!((after.pid, after.shim_pid), (before.pid, before.shim_pid));
    assert_eq!(after.summary.started, before.summary.started);
    assert_eq!(scene.exec(&id, "echo still here").await.1, "still here\n");
    scene.client.stop(&id, &Default::default()).await.expect("it stops");
    assert_eq!(scene.summary(&id).await.exit.map(|exit| exit.code), Some(0));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_nobody_was_there_to_see_is_seen_by_the_next_engine() {
    let Some(mut scene) = Scene::new() else { return };
    let once =
        scene.start(&scene.request("until test -e /tmp/go; do sleep 0.01; done; exit 9")).await;
    let mut again = scene.request("until test -e /tmp/go; do sleep 0.01; done; exit 9");
    again.service.restart = Restart::UnlessStopped;
    let again = scene.start(&again).await;
    let mut pids = Vec::new();
    for id in [&once, &again] {
        pids.push(detail(&scene, id).await.pid);
        // The program sees the file only after the engine is gone.
        scene.exec(id, "(sleep 0.3; touch /tmp/go) >/dev/null 2>&1 </dev/null &").await;
    }
    scene.close().await;
    for pid in pids {
        let pid = i32::try_from(pid.expect("it ran")).expect("a process id");
        if let Ok(handle) = process::open(Pid::from_raw(pid).expect("a process id")) {
            let ended = tokio::task::spawn_blocking(move || {
                let mut interest =
                    [rustix::event::PollFd::new(&handle, rustix::event::PollFlags::IN)];
                rustix::event::poll(&mut interest, None).expect("polled")
            });
            assert_eq!(ended.await.expect("waited"), 1);
        }
    }
    scene.open();
    assert_eq!(scene.client.wait(&once).await.expect("it ended").code, 9);
    scene.until(&again, "started again", |s| s.restarts >= 1).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_whose_shim_is_killed_is_lost_and_none_of_it_lives_on() {
    let Some(scene) = Scene::new() else { return };
    let id = scene.start(&scene.request(FOREVER)).await;
    let before = detail(&scene, &id).await;
    kill(before.shim_pid);
    let after = scene.until(&id, "lost", |s| s.status == Status::Lost).await;
    assert_eq!((after.exit, after.losses), (None, 1));
    assert!(!lives(before.pid), "what was left of it is ended");
    scene.client.start(&id).await.expect("it can be started again");
    assert_eq!(scene.exec(&id, "echo back").await.1, "back\n");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_container_is_started_again_by_its_policy() {
    let Some(scene) = Scene::new() else { return };
    let mut request = scene.request(FOREVER);
    request.service.restart = Restart::UnlessStopped;
    let id = scene.start(&request).await;
    let before = detail(&scene, &id).await;
    kill(before.shim_pid);
    let after =
        scene.until(&id, "running again", |s| s.losses == 1 && s.status == Status::Running).await;
    assert_eq!(after.restarts, 1);
    assert_ne!(detail(&scene, &id).await.shim_pid, before.shim_pid);
    assert!(!lives(before.pid));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_killed_while_no_engine_is_there_is_found_by_the_next_one() {
    let Some(mut scene) = Scene::new() else { return };
    let lost = scene.start(&scene.request(FOREVER)).await;
    let mut request = scene.request(FOREVER);
    request.service.restart = Restart::OnFailure { max_retries: None };
    let restarted = scene.start(&request).await;
    let (first, second) = (detail(&scene, &lost).await, detail(&scene, &restarted).await);
    scene.close().await;
    kill(first.shim_pid);
    kill(second.shim_pid);
    scene.open();
    scene.until(&lost, "lost", |s| s.status == Status::Lost).await;
    scene
        .until(&restarted, "running again", |s| s.losses == 1 && s.status == Status::Running)
        .await;
    assert!(!lives(first.pid) && !lives(second.pid));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_answered_by_the_engine_that_came_after() {
    let Some(mut scene) = Scene::new() else { return };
    let id = scene.start(&scene.request(FOREVER)).await;
    let name = scene.summary(&id).await.service;
    scene.close().await;
    scene.open();
    let ask = format!("until nslookup {name} >/dev/null 2>&1; do sleep 0.05; done; echo answered");
    assert_eq!(scene.exec(&id, &ask).await.1, "answered\n");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_of_always_starts_a_stopped_one_when_the_engine_comes_back() {
    let Some(mut scene) = Scene::new() else { return };
    let mut always = scene.request(FOREVER);
    always.service.restart = Restart::Always;
    let always = scene.start(&always).await;
    let mut unless = scene.request(FOREVER);
    unless.service.restart = Restart::UnlessStopped;
    let unless = scene.start(&unless).await;
    for id in [&always, &unless] {
        scene.client.stop(id, &Default::default()).await.expect("it stops");
    }
    scene.close().await;
    scene.open();
    scene.until(&always, "running", |s| s.status == Status::Running).await;
    assert_eq!(scene.summary(&unless).await.status, Status::Exited);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_well_stays_ready_while_engines_change() {
    let Some(mut scene) = Scene::new() else { return };
    let mut request = scene.request(FOREVER);
    request.service.healthcheck = Some(Healthcheck {
        test: Some(HealthTest::Exec(vec!["true".to_owned()])),
        // The first check comes soon, the next one after this test.
        interval: Some(Duration::from_secs(600)),
        start_period: Some(Duration::from_secs(600)),
        start_interval: Some(Duration::from_millis(20)),
        ..Healthcheck::default()
    });
    let id = scene.start(&request).await;
    scene.until(&id, "healthy", |s| s.health == Some(HealthState::Healthy)).await;
    scene.close().await;
    scene.open();
    assert!(scene.engine().workloads().borrow()[0].ready, "from the first moment");
    assert_eq!(scene.summary(&id).await.health, Some(HealthState::Healthy));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_way_does_not_hold_up_an_engine_that_closes_and_is_finished_by_the_next() {
    let Some(mut scene) = Scene::new() else { return };
    let id = scene.start(&scene.request("trap '' TERM; echo up; while :; do sleep 1; done")).await;
    let client = scene.client.clone();
    let container = id.clone();
    let grace = StopRequest { timeout: Some(Duration::from_secs(600)) };
    let stopping = tokio::spawn(async move { client.stop(&container, &grace).await });
    scene.until(&id, "stopping", |s| s.status == Status::Stopping).await;
    tokio::time::timeout(Duration::from_secs(30), scene.close()).await.expect("it closes");
    stopping.await.expect("answered").expect_err("it was not stopped");
    scene.open();
    // Its own grace period is ten seconds; then it is killed.
    scene.until(&id, "stopped", |s| s.status == Status::Exited).await;
    scene.end().await;
}

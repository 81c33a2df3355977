//! An engine killed at any moment, and the next one.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use carrack_engine::api::{Status, UpRequest};
use carrack_objects::compose::{Condition, Dependency, Restart};

use crate::scene::{FOREVER, Scene, collect, example, service};

/// How often the engine is killed while it brings the application up, and while it takes it down.
const KILLS: u32 = 16;

/// An engine in a process of its own. Dropped, it is killed.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("gone");
    }
}

/// Starts an engine at the scene's socket.
async fn daemon(scene: &Scene) -> Daemon {
    let config = &scene.config;
    let child = Command::new(example("engine_daemon"))
        .args([&config.root, &config.run, &config.runtime_program])
        .args([&config.networks.to_string(), &config.cgroup])
        .arg(scene.client.socket())
        .stdin(Stdio::null())
        .spawn()
        .expect("the daemon starts");
    let mut daemon = Daemon(child);
    while scene.client.version().await.is_err() {
        assert!(daemon.0.try_wait().expect("asked").is_none(), "the daemon ended by itself");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    daemon
}

fn application(scene: &Scene) -> UpRequest {
    let mut store = service("store", FOREVER);
    store.restart = Restart::UnlessStopped;
    let mut api = service("api", FOREVER);
    api.replicas = 2;
    let after = Dependency { condition: Condition::Started, restart: false, required: true };
    api.depends_on.insert("store".to_owned(), after);
    UpRequest::new(scene.application(vec![api, store]), BTreeMap::new())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_killed_at_any_moment_of_an_up_or_down_is_repaired_by_the_next() {
    let Some(mut scene) = Scene::new() else { return };
    scene.close().await;
    let up = application(&scene);
    for kill in 0..KILLS {
        let delay = Duration::from_millis(u64::from(kill) * 23);
        let killed = daemon(&scene).await;
        let attempt = async { collect(scene.client.up(&up).await?).await };
        tokio::time::timeout(delay, attempt).await.ok();
        drop(killed);

        let next = daemon(&scene).await;
        collect(scene.client.up(&up).await.expect("asked")).await.expect("it comes up");
        let list = scene.client.ps(true, None).await.expect("listed");
        let running: Vec<&str> = list
            .iter()
            .filter(|container| container.status == Status::Running)
            .map(|container| container.service.as_str())
            .collect();
        assert_eq!((list.len(), running), (3, vec!["api", "api", "store"]), "after {delay:?}");
        for container in &list {
            assert_eq!(scene.exec(&container.id, "echo fine").await.1, "fine\n", "{container:?}");
        }

        let attempt =
            async { collect(scene.client.down(&scene.project, &Default::default()).await?).await };
        tokio::time::timeout(delay, attempt).await.ok();
        drop(next);
        let last = daemon(&scene).await;
        if kill % 2 == 0 {
            let down = scene.client.down(&scene.project, &Default::default()).await;
            collect(down.expect("asked")).await.expect("it goes down");
            assert_eq!(scene.client.ps(true, None).await.expect("listed"), []);
        }
        drop(last);
    }
    scene.end().await;
}

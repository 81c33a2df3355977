//! One container: what it is given, how it ends, what its policy does.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carrack_engine::api::{
    KillRequest, LogsRequest, RemoveRequest, StatsRequest, Status, StopRequest,
};
use carrack_engine::{Gate, GateError};
use carrack_objects::compose::{
    HealthTest, Healthcheck, Mount, MountKind, PidsLimit, Port, Restart,
};
use futures_util::future::BoxFuture;

use crate::scene::{FOREVER, Scene, collect};

#[tokio::test(flavor = "multi_thread")]
async fn a_program_runs_and_its_exit_code_comes_back() {
    let Some(scene) = Scene::new() else { return };
    let (code, output, errors) = scene.run(&scene.request("echo out; echo err >&2; exit 3")).await;
    assert_eq!((code, output.as_str(), errors.as_str()), (3, "out\n", "err\n"));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_gets_the_environment_names_and_user_it_was_promised() {
    let Some(scene) = Scene::new() else { return };
    let mut request = scene.request(
        "echo $FROM_IMAGE $OWN $HOME; id -u; id -g; id -G; pwd; hostname; cat /etc/hostname; \
         grep -c $(hostname) /etc/hosts; head -n1 /etc/resolv.conf",
    );
    request.service.environment.insert("OWN".to_owned(), "mine".to_owned());
    request.service.user = Some("web".to_owned());
    request.service.working_dir = Some("/data".to_owned());
    request.hostname = Some("abode".to_owned());
    let (code, output, errors) = scene.run(&request).await;
    assert_eq!((code, errors.as_str()), (0, ""));
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(
        lines[..8],
        ["yes mine /tmp", "1000", "1000", "1000 2000", "/data", "abode", "abode", "1"]
    );
    assert!(lines[8].starts_with("nameserver 10."), "{output}");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_the_dropped_rights_hold_inside() {
    let Some(scene) = Scene::new() else { return };
    let mut request = scene.request(
        "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status; \
         touch /nope 2>&1; touch /scratch/yes && echo scratch; mount -t tmpfs x /tmp 2>&1 | wc -l; \
         cat /proc/self/cgroup | head -n1; cat /proc/interrupts | wc -c",
    );
    request.service.read_only = true;
    request.service.security.no_new_privileges = true;
    request.service.cap_drop = vec!["ALL".to_owned()];
    request.service.cap_add = vec!["NET_BIND_SERVICE".to_owned()];
    request.service.mem_limit = Some(32 << 20);
    request.service.nano_cpus = Some(500_000_000);
    request.service.pids_limit = Some(PidsLimit::AtMost(20));
    request.service.mounts = vec![Mount {
        target: "/scratch".to_owned(),
        read_only: false,
        kind: MountKind::Tmpfs { size: Some(1 << 20), mode: None },
    }];
    let (code, output, errors) = scene.run(&request).await;
    assert_eq!((code, errors.as_str()), (0, ""), "{output}");
    assert!(output.contains("CapEff:\t0000000000000400"), "{output}");
    assert!(output.contains("NoNewPrivs:\t1"), "{output}");
    assert!(output.contains("Seccomp:\t2"), "{output}");
    assert!(output.contains("Read-only file system"), "{output}");
    assert!(output.contains("scratch\n1\n"), "{output}");
    assert!(output.ends_with("\n0\n"), "a masked file reads as empty: {output}");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_memory_is_the_end_and_is_called_by_its_name() {
    let Some(scene) = Scene::new() else { return };
    let mut request = scene.request("head -c 200m /dev/zero | tail");
    request.service.command =
        Some(crate::scene::shell("exec dd if=/dev/zero of=/dev/null bs=200M"));
    request.service.mem_limit = Some(16 << 20);
    let id = scene.start(&request).await;
    let exit = scene.client.wait(&id).await.expect("it ends");
    assert_eq!((exit.code, exit.out_of_memory), (137, true));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_there_is_127_and_one_that_cannot_run_126() {
    let Some(scene) = Scene::new() else { return };
    for (program, code) in [("/no/such", 127), ("/data", 126)] {
        let mut request = scene.request("");
        request.service.command = Some(vec![program.to_owned()]);
        let created = scene.client.create(&request).await.expect("it is made");
        let error = scene.client.start(&created.id).await.expect_err("it does not start");
        assert_eq!(error.exit_code(), code, "{error:?}");
        let causes = error.fault().expect("the engine refused").causes.join(": ");
        assert!(causes.contains(program), "{causes}");
        assert_eq!(scene.summary(&created.id).await.status, Status::Exited);
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_there_is_said_to_be_missing() {
    let Some(scene) = Scene::new() else { return };
    let mut request = scene.request("true");
    request.service.image = Some("nowhere:1".to_owned());
    let error = scene.client.create(&request).await.expect_err("there is no such image");
    assert_eq!(error.to_string(), "no such image: nowhere:1");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_fails_is_started_again_as_often_as_its_policy_says() {
    let Some(scene) = Scene::new() else { return };
    let mut request = scene.request("echo again; exit 1");
    request.service.restart = Restart::OnFailure { max_retries: Some(2) };
    let id = scene.start(&request).await;
    let exit = scene.client.wait(&id).await.expect("it ends for good");
    assert_eq!(exit.code, 1);
    assert_eq!(scene.summary(&id).await.restarts, 2);
    assert_eq!(scene.log(&id).await, ["again"; 3]);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_always_restarted_is_not_once_it_is_stopped() {
    let Some(scene) = Scene::new() else { return };
    let mut request = scene.request("exit 0");
    request.service.restart = Restart::UnlessStopped;
    let id = scene.start(&request).await;
    scene.until(&id, "restarted twice", |summary| summary.restarts >= 2).await;
    scene.client.stop(&id, &StopRequest::default()).await.expect("it stops");
    let after = scene.summary(&id).await;
    assert_eq!(after.status, Status::Exited);
    assert_eq!(scene.client.wait(&id).await.expect("it ended").code, 0);
    assert_eq!(scene.summary(&id).await.restarts, after.restarts);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_wrote_outlives_a_restart_and_its_address_stays() {
    let Some(scene) = Scene::new() else { return };
    let request = scene.request(&format!("echo x >>/data/count; {FOREVER}"));
    let id = scene.start(&request).await;
    scene.until(&id, "it wrote", |_| true).await;
    let address = scene.summary(&id).await.address;
    scene.client.restart(&id, &StopRequest::default()).await.expect("restarted");
    assert_eq!(scene.summary(&id).await.address, address);
    let (_, output, _) =
        scene.exec(&id, "until test $(wc -l </data/count) = 2; do :; done; echo two").await;
    assert_eq!(output, "two\n");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_will_not_stop_is_killed_after_its_grace() {
    let Some(scene) = Scene::new() else { return };
    let stubborn =
        scene.start(&scene.request("trap '' TERM; echo up; while :; do sleep 1; done")).await;
    scene.until(&stubborn, "it runs", |s| s.status == Status::Running).await;
    let begun = Instant::now();
    let grace = StopRequest { timeout: Some(Duration::from_secs(1)) };
    scene.client.stop(&stubborn, &grace).await.expect("it stops");
    assert!(begun.elapsed() >= Duration::from_secs(1), "its grace is kept");
    let exit = scene.summary(&stubborn).await.exit.expect("it ended");
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_stops_when_asked_is_asked_with_its_own_signal() {
    let Some(scene) = Scene::new() else { return };
    let mut request = scene
        .request("trap 'echo quit; exit 7' QUIT; echo up; while :; do sleep 1 & wait $!; done");
    request.service.stop_signal = Some("SIGQUIT".to_owned());
    let id = scene.start(&request).await;
    let follow = LogsRequest { follow: true, ..LogsRequest::default() };
    let mut lines = scene.client.logs(&id, &follow).await.expect("followed");
    lines.next().await.expect("a line").expect("the trap is set");
    scene.client.stop(&id, &StopRequest::default()).await.expect("it stops");
    assert_eq!(scene.summary(&id).await.exit.map(|exit| exit.code), Some(7));
    assert_eq!(scene.log(&id).await, ["up", "quit"]);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_checked_and_told_to_the_mesh() {
    let Some(scene) = Scene::new() else { return };
    let mut request = scene.request(&format!("touch /tmp/well; {FOREVER}"));
    request.service.healthcheck = Some(Healthcheck {
        test: Some(HealthTest::Shell("echo checked; test -e /tmp/well".to_owned())),
        interval: Some(Duration::from_millis(50)),
        timeout: Some(Duration::from_secs(10)),
        retries: Some(2),
        ..Healthcheck::default()
    });
    let mut workloads = scene.engine().workloads();
    let id = scene.start(&request).await;
    let ready = |wanted: bool| {
        let id = id.clone();
        move |list: &Arc<Vec<carrack_objects::mesh::Workload>>| {
            list.iter().any(|workload| workload.uid == id && workload.ready == wanted)
        }
    };
    workloads.wait_for(ready(true)).await.expect("it becomes ready");
    let health = scene.client.inspect(&id).await.expect("known").health_checks.expect("checked");
    assert_eq!((health.last_code, health.last_output.as_str()), (Some(0), "checked\n"));
    scene.exec(&id, "rm /tmp/well").await;
    workloads.wait_for(ready(false)).await.expect("it becomes unready");
    scene
        .until(&id, "unhealthy", |s| s.health == Some(carrack_engine::api::HealthState::Unhealthy))
        .await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_hangs_is_cut_off() {
    let Some(scene) = Scene::new() else { return };
    let mut request = scene.request(FOREVER);
    request.service.healthcheck = Some(Healthcheck {
        test: Some(HealthTest::Exec(vec!["/bin/sleep".to_owned(), "1000".to_owned()])),
        interval: Some(Duration::from_millis(50)),
        timeout: Some(Duration::from_millis(200)),
        retries: Some(1),
        ..Healthcheck::default()
    });
    let id = scene.start(&request).await;
    scene
        .until(&id, "unhealthy", |s| s.health == Some(carrack_engine::api::HealthState::Unhealthy))
        .await;
    let health = scene.client.inspect(&id).await.expect("known").health_checks.expect("checked");
    assert_eq!(health.last_code, None);
    assert!(health.last_output.contains("longer than 200ms"), "{health:?}");
    scene.end().await;
}

/// A gate that never opens.
struct Shut;

impl Gate for Shut {
    fn captured<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), GateError>> {
        Box::pin(async move { Err(GateError::new(format!("no proxy holds {uid}"))) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_starts_before_its_capture_stands() {
    let Some(scene) = Scene::with_gate(Arc::new(Shut)) else { return };
    let created = scene.client.create(&scene.request("echo never")).await.expect("made");
    let error = scene.client.start(&created.id).await.expect_err("the gate is shut");
    assert!(error.to_string().contains("waiting for the mesh to capture"), "{error}");
    assert!(scene.log(&created.id).await.is_empty());
    assert!(scene.engine().workloads().borrow().is_empty(), "it is no part of the mesh");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_filled_once_and_outlives_its_containers() {
    let Some(scene) = Scene::new() else { return };
    let volume = format!("{}-kept", scene.project);
    let mount = |read_only| Mount {
        target: "/data".to_owned(),
        read_only,
        kind: MountKind::Volume { name: Some(volume.clone()), nocopy: false },
    };
    let mut first = scene.request("cat /data/from-image; rm /data/from-image; echo new >/data/own");
    first.service.mounts = vec![mount(false)];
    first.auto_remove = true;
    assert_eq!(scene.run(&first).await.1, "seed\n");
    let mut second = scene.request("ls /data; cat /data/own; touch /data/x 2>&1");
    second.service.mounts = vec![mount(true)];
    let (code, output, _) = scene.run(&second).await;
    assert_eq!(code, 1);
    assert_eq!(output, "own\nnew\ntouch: /data/x: Read-only file system\n");

    let error = scene.client.remove_volume(&volume).await.expect_err("it is mounted");
    assert!(error.to_string().contains("is mounted by"), "{error}");
    for container in scene.client.ps(true, Some(&scene.project)).await.expect("listed") {
        if container.service == second.service.name {
            let removed = scene.client.rm(&container.id, &RemoveRequest::default()).await;
            removed.expect("it does not run");
        }
    }
    let mut services = scene.engine().services();
    services.wait_for(|list| list.is_empty()).await.expect("the first removed itself");
    scene.client.remove_volume(&volume).await.expect("nobody mounts it any more");
    assert_eq!(scene.client.volumes().await.expect("listed"), []);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_removes_itself_leaves_nothing() {
    let Some(scene) = Scene::new() else { return };
    let mut request = scene.request("exit 0");
    request.auto_remove = true;
    let created = scene.client.create(&request).await.expect("made");
    scene.client.start(&created.id).await.expect("started");
    let mut services = scene.engine().services();
    services.wait_for(|list| list.is_empty()).await.expect("its service goes with it");
    assert!(scene.client.inspect(&created.id).await.is_err());
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_removes_itself_is_gone_when_its_end_is_told() {
    let Some(scene) = Scene::new() else { return };
    let mut request = scene.request("exit 2");
    request.auto_remove = true;
    assert_eq!(scene.run(&request).await.0, 2);
    assert_eq!(scene.client.ps(true, None).await.expect("listed"), []);
    request.service.command = Some(vec!["/no/such".to_owned()]);
    let created = scene.client.create(&request).await.expect("its name is free again");
    scene.client.start(&created.id).await.expect_err("it does not start");
    assert_eq!(scene.client.ps(true, None).await.expect("listed"), [], "nor stay");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_runs_is_removed_by_force_only() {
    let Some(scene) = Scene::new() else { return };
    let id = scene.start(&scene.request(FOREVER)).await;
    let error = scene.client.rm(&id, &RemoveRequest::default()).await.expect_err("it runs");
    assert!(error.to_string().contains("stop it first"), "{error}");
    let force = RemoveRequest { force: true, volumes: false };
    scene.client.rm(&id, &force).await.expect("removed");
    let error = scene.client.inspect(&id).await.expect_err("gone");
    assert!(matches!(error, carrack_engine::client::ClientError::NotFound(_)), "{error:?}");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_container_uses_is_measured_and_a_paused_one_uses_nothing() {
    let Some(scene) = Scene::new() else { return };
    let mut request = scene.request("while :; do :; done");
    request.service.mem_limit = Some(64 << 20);
    request.service.pids_limit = Some(PidsLimit::AtMost(50));
    let id = scene.start(&request).await;
    let once = StatsRequest { containers: vec![id.clone()], project: None, once: true };
    let measure = || async {
        let lines = scene.client.stats(&once).await.expect("measured");
        collect(lines).await.expect("lines").remove(0).remove(0)
    };
    let busy = measure().await;
    assert!(busy.cpu_percent.is_some_and(|percent| percent > 1.0), "{busy:?}");
    assert_eq!((busy.memory_limit, busy.pids_limit), (Some(64 << 20), Some(50)));
    assert!(busy.memory_bytes > 0 && busy.pids == 1, "{busy:?}");
    scene.client.pause(&id).await.expect("paused");
    assert_eq!(scene.summary(&id).await.status, Status::Paused);
    let still = measure().await;
    assert!(still.cpu_percent.is_some_and(|percent| percent < 1.0), "{still:?}");
    scene.client.resume(&id).await.expect("resumed");
    let kill = KillRequest { signal: Some("KILL".to_owned()) };
    scene.client.kill(&id, &kill).await.expect("killed");
    assert_eq!(scene.client.wait(&id).await.expect("it ends").code, 137);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_port_has_one_holder_and_is_told_to_the_mesh() {
    let Some(scene) = Scene::new() else { return };
    let host = Ipv4Addr::LOCALHOST.into();
    let port = |host_port| Port { host, host_port, container_port: 80, protocol: None };
    let mut first = scene.request(FOREVER);
    first.service.ports = vec![port(None)];
    let id = scene.start(&first).await;
    let published = scene.summary(&id).await.published;
    assert_eq!((published.len(), published[0].container_port), (1, 80));
    let listed = Arc::clone(&scene.engine().workloads().borrow());
    assert_eq!(listed[0].published, published);
    let mut second = scene.request(FOREVER);
    second.service.ports = vec![port(Some(published[0].host_port))];
    let error = scene.client.create(&second).await.expect_err("the port is taken");
    assert!(error.to_string().contains("is published by"), "{error}");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_port_another_program_holds_is_refused_and_one_let_go_of_is_taken() {
    let Some(scene) = Scene::new() else { return };
    let foreign = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let host_port = Some(foreign.local_addr().expect("its address").port());
    let mut request = scene.request(FOREVER);
    let host = Ipv4Addr::LOCALHOST.into();
    request.service.ports = vec![Port { host, host_port, container_port: 80, protocol: None }];
    let error = scene.client.create(&request).await.expect_err("it is held");
    assert!(error.to_string().contains("another program may use it"), "{error}");
    // Let go of while it is being asked for.
    let asking = tokio::spawn({
        let (client, request) = (scene.client.clone(), request.clone());
        async move { client.create(&request).await }
    });
    drop(foreign);
    asking.await.expect("asked").expect("it is free");
    scene.end().await;
}

//! The control plane between a world that changes and a proxy that answers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carrack_control::api::{ApplyRequest, Enforcement, PolicyFile};
use carrack_control::client::{ClientError, ControlClient};
use carrack_control::{ApplyError, CaptureError, Control, ControlConfig};
use carrack_net::{serve, unix};
use carrack_objects::mesh::{Service, Workload};
use carrack_store::{MemoryRecords, RecordStore};
use carrack_xds::{Problem, Receipt, Resources, WorkloadReceipt};
use http::StatusCode;
use tokio::sync::watch;

type Sent<T> = watch::Sender<Arc<Vec<T>>>;

/// A control plane, its world, and the directory it meets the proxy in.
struct Scene {
    directory: tempfile::TempDir,
    records: Arc<dyn RecordStore>,
    control: Arc<Control>,
    workloads: Sent<Workload>,
    services: Sent<Service>,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let records: Arc<dyn RecordStore> = Arc::new(MemoryRecords::new());
        let (workloads, _) = watch::channel(Arc::new(vec![workload("a", "api", 2)]));
        let (services, _) = watch::channel(Arc::new(Vec::new()));
        let control = open(directory.path(), &records, &workloads, &services, PATIENT);
        Self { directory, records, control, workloads, services }
    }

    fn resources(&self) -> Resources {
        let bytes = std::fs::read(self.path("resources.json")).expect("resources are there");
        Resources::from_json(&bytes).expect("resources are understood")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Answers `GET /config` with what `receipt` makes of the resources on disk.
    fn proxy(&self, receipt: impl Fn(Resources) -> Receipt + Send + Sync + 'static) {
        let listener = unix::bind(&self.path("proxy.sock")).expect("binds");
        let resources = self.path("resources.json");
        let receipt = Arc::new(receipt);
        let handler = move |_| {
            let told = std::fs::read(&resources).expect("resources are there");
            let told = Resources::from_json(&told).expect("resources are understood");
            let body = serde_json::to_vec(&receipt(told)).expect("a receipt is written");
            async move { serve::json(StatusCode::OK, Bytes::from(body)) }
        };
        tokio::spawn(serve::unix(listener, handler, std::future::pending()));
    }
}

const PATIENT: Duration = Duration::from_secs(20);

fn open(
    directory: &Path,
    records: &Arc<dyn RecordStore>,
    workloads: &Sent<Workload>,
    services: &Sent<Service>,
    patience: Duration,
) -> Arc<Control> {
    let config = ControlConfig {
        resources: directory.join("resources.json"),
        proxy: directory.join("proxy.sock"),
        trust_domain: "carrack.local".parse().expect("a trust domain"),
        patience,
    };
    Control::open(config, Arc::clone(records), workloads.subscribe(), services.subscribe())
        .expect("opens")
}

fn workload(uid: &str, service: &str, address: u8) -> Workload {
    Workload {
        uid: uid.to_owned(),
        name: format!("shop-{service}-1"),
        project: "shop".to_owned(),
        service: service.to_owned(),
        address: [10, 89, 0, address].into(),
        netns: PathBuf::from("/run/netns").join(uid),
        labels: [].into(),
        ready: true,
        protocols: [].into(),
        published: Vec::new(),
    }
}

fn policy(name: &str, action: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}}}\nspec: {{action: {action}, selector: {{matchLabels: {{app: api}}}}, rules: [{{}}]}}\n"
    )
}

fn obedient(told: Resources) -> Receipt {
    let workloads = told
        .workloads
        .into_iter()
        .map(|workload| WorkloadReceipt { uid: workload.uid, captured: true })
        .collect();
    Receipt { version: told.version, workloads, ..Receipt::default() }
}

fn names(resources: &Resources) -> Vec<&str> {
    resources.authorizations.iter().map(|a| a.name.as_str()).collect()
}

#[tokio::test]
async fn an_applied_policy_is_in_force_when_apply_returns() {
    let scene = Scene::new();
    scene.proxy(obedient);
    let applied =
        scene.control.apply_file(&policy("p", "DENY"), "p.yaml", "shop").await.expect("applies");
    assert_eq!(applied.enforcement, Enforcement::InForce);
    assert_eq!(applied.policies[0].workloads, ["shop-api-1"]);
    assert_eq!(applied.policies[0].action, "DENY");
    let resources = scene.resources();
    assert_eq!(resources.version, applied.version);
    assert_eq!(resources.authorizations[0].workloads, ["a"]);
    assert_eq!(resources.authorizations[0].origin.file, "p.yaml");
}

#[tokio::test]
async fn a_bad_policy_changes_nothing_and_names_every_problem() {
    let scene = Scene::new();
    scene.proxy(obedient);
    scene.control.apply_file(&policy("p", "DENY"), "p.yaml", "shop").await.expect("applies");
    let before = scene.resources();
    let files = vec![
        PolicyFile { file: "q.yaml".into(), text: policy("q", "DENY") },
        PolicyFile { file: "r.yaml".into(), text: policy("r", "AUDIT") },
        PolicyFile { file: "s.yaml".into(), text: policy("p", "DENY") },
    ];
    let request = ApplyRequest { project: "shop".into(), files, replace: false };
    let error = scene.control.apply(request).await.expect_err("is refused");
    let ApplyError::Problems { problems, .. } = error else { panic!("{error}") };
    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "r.yaml:4:16: `spec.action` is `AUDIT`, which is not supported yet",
            "s.yaml:1:1: the policy `p` is also written at p.yaml:1:1",
        ]
    );
    assert_eq!(scene.resources(), before);
}

#[tokio::test]
async fn a_policy_of_another_namespace_is_refused() {
    let scene = Scene::new();
    let text = policy("p", "DENY").replace("{name: p}", "{name: p, namespace: bank}");
    let error = scene.control.apply_file(&text, "p.yaml", "shop").await.expect_err("is refused");
    assert!(matches!(error, ApplyError::Problems { .. }), "{error}");
}

#[tokio::test]
async fn replace_leaves_only_what_is_in_the_request() {
    let scene = Scene::new();
    scene.proxy(obedient);
    for (name, project) in [("one", "shop"), ("two", "shop"), ("other", "blog")] {
        let file = format!("{name}.yaml");
        scene.control.apply_file(&policy(name, "DENY"), &file, project).await.expect("applies");
    }
    let files = vec![PolicyFile { file: "three.yaml".into(), text: policy("three", "ALLOW") }];
    let request = ApplyRequest { project: "shop".into(), files, replace: true };
    scene.control.apply(request).await.expect("applies");
    assert_eq!(names(&scene.resources()), ["other", "three"]);
    scene.control.delete("shop", None).await.expect("deletes");
    assert_eq!(names(&scene.resources()), ["other"]);
}

#[tokio::test]
async fn policies_outlive_the_control_plane() {
    let scene = Scene::new();
    scene.proxy(obedient);
    scene.control.apply_file(&policy("p", "DENY"), "p.yaml", "shop").await.expect("applies");
    let before = scene.resources();
    std::fs::remove_file(scene.path("resources.json")).expect("removes");
    let Scene { directory, records, control, workloads, services } = scene;
    drop(control);
    let control = open(directory.path(), &records, &workloads, &services, PATIENT);
    let bytes = std::fs::read(directory.path().join("resources.json")).expect("is there again");
    assert_eq!(Resources::from_json(&bytes).expect("reads"), before);
    assert_eq!(control.list().len(), 1);
}

#[tokio::test]
async fn what_starts_to_run_is_told_and_let_through_once_captured() {
    let scene = Scene::new();
    let (capture, captured) = watch::channel(false);
    scene.proxy(move |told| {
        let mut receipt = obedient(told);
        receipt.workloads.iter_mut().for_each(|w| w.captured = *captured.borrow());
        receipt
    });
    scene.workloads.send_modify(|list| {
        *list = Arc::new(vec![workload("a", "api", 2), workload("b", "store", 3)]);
    });
    let control = Arc::clone(&scene.control);
    let gate = tokio::spawn(async move { control.captured("b").await });
    tokio::task::yield_now().await;
    assert!(!gate.is_finished());
    capture.send_replace(true);
    gate.await.expect("ends").expect("is captured");
    assert_eq!(scene.resources().workloads.len(), 2);
}

#[tokio::test]
async fn a_workload_the_proxy_refuses_is_not_let_through_and_the_reason_is_told() {
    let scene = Scene::new();
    scene.proxy(|told| Receipt {
        version: "old".to_owned(),
        refused: Some(told.version),
        problems: vec![Problem {
            resource: "workload shop-api-1".to_owned(),
            path: "netns".to_owned(),
            message: "is gone".to_owned(),
        }],
        ..Receipt::default()
    });
    let patience = Duration::from_millis(100);
    let control =
        open(scene.directory.path(), &scene.records, &scene.workloads, &scene.services, patience);
    let error = control.captured("a").await.expect_err("is refused");
    assert_eq!(
        error.to_string(),
        "capturing the traffic of a: the node proxy refused the resources: workload shop-api-1 netns is gone; see the log of the node proxy"
    );
}

#[tokio::test]
async fn a_workload_that_makes_no_sense_is_refused_at_once() {
    let scene = Scene::new();
    scene.workloads.send_modify(|list| {
        *list = Arc::new(vec![workload("a", "api", 2), workload("b", "store", 2)]);
    });
    let error = scene.control.captured("b").await.expect_err("is refused");
    assert!(matches!(error, CaptureError::LeftOut { .. }), "{error}");
}

#[tokio::test]
async fn without_a_proxy_a_policy_is_kept_but_not_yet_in_force() {
    let scene = Scene::new();
    let patience = Duration::from_millis(50);
    let control =
        open(scene.directory.path(), &scene.records, &scene.workloads, &scene.services, patience);
    let applied =
        control.apply_file(&policy("p", "DENY"), "p.yaml", "shop").await.expect("applies");
    assert!(matches!(applied.enforcement, Enforcement::NotYet { .. }));
    assert_eq!(names(&scene.resources()), ["p"]);
}

#[tokio::test]
async fn a_change_of_the_world_is_written_while_it_runs() {
    let scene = Scene::new();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let control = Arc::clone(&scene.control);
    let running = tokio::spawn(async move {
        control.run(async { stopped.await.unwrap_or(()) }).await;
    });
    let service = Service {
        name: "api".to_owned(),
        project: "shop".to_owned(),
        vip: [10, 90, 0, 1].into(),
        protocols: [].into(),
        published: Vec::new(),
    };
    scene.services.send_replace(Arc::new(vec![service]));
    let written = async {
        while scene.resources().services.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENT, written).await.expect("is written");
    drop(stop);
    running.await.expect("ends");
}

#[tokio::test]
async fn a_client_applies_lists_and_deletes_over_the_socket() {
    let scene = Scene::new();
    scene.proxy(obedient);
    let socket = scene.path("control.sock");
    let listener = unix::bind(&socket).expect("binds");
    tokio::spawn(Arc::clone(&scene.control).serve(listener, std::future::pending()));
    let client = ControlClient::new(&socket);
    let request = |text: String| ApplyRequest {
        project: "shop".into(),
        files: vec![PolicyFile { file: "p.yaml".into(), text }],
        replace: true,
    };
    let applied = client.apply(&request(policy("p", "DENY"))).await.expect("applies");
    assert_eq!(applied.enforcement, Enforcement::InForce);
    assert_eq!(client.list().await.expect("lists"), applied.policies);
    assert_eq!(client.status().await.expect("says").version, applied.version);
    let error = client.apply(&request(policy("p", "CUSTOM"))).await.expect_err("is refused");
    let ClientError::Refused { problems, .. } = error else { panic!("{error}") };
    assert_eq!(problems.len(), 1);
    assert!(client.delete("shop", None).await.expect("deletes").policies.is_empty());
}

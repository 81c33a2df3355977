//! The authority behind its socket, asked as the node proxy asks it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its own functions too")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carrack_identity::{CertificateClient, FetchError, IdentityConfig, run};
use carrack_spiffe::{SpiffeId, TrustDomain, X509Svid};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

fn id(service: &str) -> SpiffeId {
    SpiffeId::workload(&TrustDomain::new("shop.test").unwrap(), "shop", service).unwrap()
}

struct Running {
    socket: PathBuf,
    listed: Arc<Mutex<BTreeSet<SpiffeId>>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    directory: tempfile::TempDir,
}

impl Running {
    fn start(directory: tempfile::TempDir) -> Self {
        let socket = directory.path().join("identity.sock");
        let config = IdentityConfig {
            directory: directory.path().join("identity"),
            socket: socket.clone(),
            trust_domain: TrustDomain::new("shop.test").unwrap(),
            lifetime: IdentityConfig::DEFAULT_LIFETIME,
        };
        let listed = Arc::new(Mutex::new(BTreeSet::from([id("api")])));
        let entries = listed.clone();
        let entries = Arc::new(move |id: &SpiffeId| entries.lock().unwrap().contains(id));
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            run(config, entries, async { stopped.await.unwrap_or(()) }).await.unwrap();
        });
        Self { socket, listed, stop, task, directory }
    }

    async fn client(&self) -> CertificateClient {
        while !self.socket.exists() {
            tokio::task::yield_now().await;
        }
        CertificateClient::connect(&self.socket)
    }

    async fn stop(self) -> tempfile::TempDir {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
        self.directory
    }
}

#[tokio::test]
async fn a_listed_workload_gets_its_certificate_and_another_does_not() {
    let running = Running::start(tempfile::tempdir().unwrap());
    let client = running.client().await;
    let svid = client.fetch(&id("api"), Some(Duration::from_secs(300))).await.unwrap();
    assert_eq!(X509Svid::parse(&svid.chain_der[0]).unwrap().id(), &id("api"));
    assert!(!format!("{svid:?}").contains("key"));

    let refused = client.fetch(&id("store"), None).await.unwrap_err();
    assert!(!refused.is_transient());
    assert!(refused.to_string().contains("no workload with the identity"), "{refused}");

    running.listed.lock().unwrap().insert(id("store"));
    client.fetch(&id("store"), None).await.unwrap();
    drop(client);
    running.stop().await;
}

#[tokio::test]
async fn a_client_outlives_a_restart_of_the_authority_and_sees_the_same_root() {
    let running = Running::start(tempfile::tempdir().unwrap());
    let client = running.client().await;
    let before = client.fetch(&id("api"), None).await.unwrap();
    let directory = running.stop().await;
    let away = client.fetch(&id("api"), None).await.unwrap_err();
    assert!(matches!(away, FetchError::Unreachable { .. }) && away.is_transient(), "{away}");

    let running = Running::start(directory);
    running.client().await;
    // The old socket file may still have been there for a moment.
    let after = loop {
        match client.fetch(&id("api"), None).await {
            Ok(svid) => break svid,
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
    };
    assert_eq!(before.bundle, after.bundle);
    assert_ne!(before.key_der, after.key_der);
    running.stop().await;
}

#[tokio::test]
async fn another_user_is_refused_by_the_kernels_word() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root to call as another user");
        return;
    }
    let running = Running::start(tempfile::tempdir().unwrap());
    running.client().await;
    open_to_all(&running);
    let output = tokio::process::Command::new("/proc/self/exe")
        .args(["--ignored", "--exact", "as_another_user", "--nocapture"])
        .env("IDENTITY_SOCKET", &running.socket)
        .uid(65534)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("user 65534 may not ask for certificates"), "{text}");
    running.stop().await;
}

/// The permissions of the socket are the first wall; this takes it away to show the
/// second.
fn open_to_all(running: &Running) {
    use std::os::unix::fs::PermissionsExt as _;
    for (path, mode) in [(running.directory.path(), 0o755), (running.socket.as_path(), 0o666)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
}

#[tokio::test]
#[ignore = "run by another_user_is_refused_by_the_kernels_word"]
async fn as_another_user() {
    let Some(socket) = std::env::var_os("IDENTITY_SOCKET") else { return };
    let client = CertificateClient::connect(&PathBuf::from(socket));
    println!("{}", client.fetch(&id("api"), None).await.unwrap_err());
}

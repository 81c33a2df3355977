//! An engine on directories, addresses and cgroups of its own, and an image to run on it.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use carrack_content::Images;
use carrack_engine::api::{
    AttachRequest, ContainerSummary, DownRequest, Event, ExecRequest, Frame, LogsRequest,
    RemoveRequest, RunRequest, UpRequest, plain_service,
};
use carrack_engine::client::{ClientError, EngineClient, Session};
use carrack_engine::{Engine, EngineConfig, Gate, OpenGate};
use carrack_linux::cgroup::{Group, Layout};
use carrack_objects::compose::{Application, Service};
use carrack_oci::archive::{Entry, Kind, Writer};
use carrack_oci::{Compression, ImageConfig, Platform};
use carrack_spiffe::TrustDomain;
use indexmap::IndexMap;
use ipnet::Ipv4Net;
use tokio::task::JoinHandle;

/// The image's name.
pub(crate) const IMAGE: &str = "busybox:test";
/// Longer than anything here takes unless it never happens.
const PATIENCE: Duration = Duration::from_secs(60);

/// A number nobody else here has.
fn unique() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

/// An engine, its client, and everything it may leave behind.
pub(crate) struct Scene {
    pub(crate) config: EngineConfig,
    pub(crate) client: EngineClient,
    pub(crate) project: String,
    engine: Option<(Arc<Engine>, JoinHandle<()>)>,
    directory: tempfile::TempDir,
    ended: bool,
}

impl Scene {
    /// An engine with the image loaded; `None`, with the reason printed, where containers cannot
    /// be made.
    pub(crate) fn new() -> Option<Self> {
        Self::with_gate(Arc::new(OpenGate))
    }

    pub(crate) fn with_gate(gate: Arc<dyn Gate>) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: making containers needs root");
            return None;
        }
        if !Path::new("/bin/busybox").exists() {
            eprintln!("skipped: no /bin/busybox here; install busybox-static");
            return None;
        }
        let (pid, number) = (std::process::id(), unique());
        let directory = tempfile::Builder::new().prefix("ck").tempdir().expect("a directory");
        let trust_domain = TrustDomain::new("test.example").expect("a trust domain");
        let (root, run) = (directory.path().join("root"), directory.path().join("run"));
        let mut config = EngineConfig::new(root, run, example("engine_shim"), trust_domain);
        config.networks = pool(pid, number);
        config.interface_prefix = "ckt".to_owned();
        config.cgroup = format!("/carrack-test-{pid}-{number}");
        load_image(&config.root.join("store"));
        let socket = directory.path().join("engine.sock");
        let mut scene = Self {
            config,
            client: EngineClient::new(&socket),
            project: format!("t{pid}-{number}"),
            engine: None,
            directory,
            ended: false,
        };
        scene.open_with(gate);
        Some(scene)
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine.as_ref().expect("the engine is open").0
    }

    /// Opens an engine on what there is.
    pub(crate) fn open(&mut self) {
        self.open_with(Arc::new(OpenGate));
    }

    fn open_with(&mut self, gate: Arc<dyn Gate>) {
        let engine = Engine::open(self.config.clone(), gate).expect("the engine opens");
        let listener = carrack_net::unix::bind(self.client.socket()).expect("the socket is bound");
        let served = Arc::clone(&engine).serve(listener, std::future::pending());
        self.engine = Some((engine, tokio::spawn(served)));
    }

    /// Ends the engine as if its process had ended. Containers live on.
    pub(crate) async fn close(&mut self) {
        if let Some((engine, serving)) = self.engine.take() {
            engine.close().await;
            serving.await.expect("serving ends");
        }
    }

    /// Removes everything and looks whether anything is left. Ends a test that went well.
    pub(crate) async fn end(mut self) {
        self.remove_all().await.expect("everything is removed");
        self.ended = true;
        for kept in ["run/containers", "run/netns", "root/containers"] {
            assert_eq!(entries(&self.directory.path().join(kept)), [""; 0], "left in {kept}");
        }
    }

    async fn remove_all(&mut self) -> Result<(), ClientError> {
        if self.engine.is_none() {
            self.open();
        }
        for container in self.client.ps(true, None).await? {
            let request = RemoveRequest { force: true, volumes: true };
            match self.client.rm(&container.id, &request).await {
                // It may have removed itself meanwhile.
                Ok(()) | Err(ClientError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        for project in self.client.projects().await?.into_iter().map(|project| project.name) {
            collect(self.client.down(&project, &DownRequest::default()).await?).await?;
        }
        collect(self.client.down(&self.project, &DownRequest::default()).await?).await?;
        self.close().await;
        let layout = Layout::detect().expect("cgroups are mounted");
        let group = Group::new(layout, Path::new(&self.config.cgroup)).expect("a cgroup");
        group.delete().expect("nothing is in it any more");
        Ok(())
    }

    pub(crate) fn application(&self, services: Vec<Service>) -> Application {
        Application {
            name: self.project.clone(),
            directory: self.directory.path().to_owned(),
            services: services.into_iter().map(|s| (s.name.clone(), s)).collect(),
            volumes: IndexMap::new(),
            warnings: Vec::new(),
        }
    }

    pub(crate) async fn up(&self, application: Application) -> Result<Vec<Event>, ClientError> {
        self.up_as(UpRequest::new(application, Default::default())).await
    }

    pub(crate) async fn up_as(&self, request: UpRequest) -> Result<Vec<Event>, ClientError> {
        collect(self.client.up(&request).await?).await
    }

    /// A request for one container that runs `script`.
    pub(crate) fn request(&self, script: &str) -> RunRequest {
        let mut request = RunRequest::new(&format!("{}-c{}", self.project, unique()), IMAGE);
        request.service.command = Some(shell(script));
        request.project = Some(self.project.clone());
        request
    }

    /// Makes and starts a container, and returns its id.
    pub(crate) async fn start(&self, request: &RunRequest) -> String {
        let created = self.client.create(request).await.expect("the container is made");
        self.client.start(&created.id).await.expect("the container starts");
        created.id
    }

    pub(crate) async fn summary(&self, id: &str) -> ContainerSummary {
        self.client.inspect(id).await.expect("the container is known").summary
    }

    /// Asks until a container is as wanted.
    pub(crate) async fn until(
        &self,
        id: &str,
        what: &str,
        wanted: impl Fn(&ContainerSummary) -> bool,
    ) -> ContainerSummary {
        let mut workloads = self.engine().workloads();
        let waiting = async {
            loop {
                let summary = self.summary(id).await;
                if wanted(&summary) {
                    return summary;
                }
                // Most changes show in the workloads; the others are asked for now and then.
                let changed = workloads.changed();
                tokio::time::timeout(Duration::from_millis(20), changed).await.ok();
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(summary) => summary,
            Err(_) => panic!("{what}: never; it is {:#?}", self.client.inspect(id).await),
        }
    }

    /// Lines of a container's log.
    pub(crate) async fn log(&self, id: &str) -> Vec<String> {
        let lines = self.client.logs(id, &LogsRequest::default()).await.expect("the log is read");
        collect(lines).await.expect("lines").into_iter().map(|line| line.text).collect()
    }

    /// Runs a program in a container: exit code, output, errors.
    pub(crate) async fn exec(&self, id: &str, script: &str) -> (i32, String, String) {
        let request = ExecRequest { command: shell(script), ..ExecRequest::default() };
        let session = self.client.exec(id, &request).await.expect("the program runs");
        finish(session).await
    }

    /// Makes, attaches to and starts a container, and waits for its end.
    pub(crate) async fn run(&self, request: &RunRequest) -> (i32, String, String) {
        let created = self.client.create(request).await.expect("the container is made");
        let attach = AttachRequest { start: true, ..AttachRequest::default() };
        let session = self.client.attach(&created.id, &attach).await.expect("it starts");
        finish(session).await
    }
}

/// What a failed test leaves is removed by an engine opened for it.
impl Drop for Scene {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Runtime::new().expect("a runtime");
                runtime.block_on(async {
                    if let Some((engine, _)) = self.engine.take() {
                        engine.close().await;
                    }
                    let removed = tokio::time::timeout(PATIENCE, self.remove_all()).await;
                    if !matches!(removed, Ok(Ok(()))) {
                        eprintln!(
                            "left behind in {}: {removed:?}",
                            self.directory.path().display()
                        );
                    }
                });
            });
        });
    }
}

/// Reads a session to its end.
pub(crate) async fn finish(mut session: Session) -> (i32, String, String) {
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let reading = async {
        loop {
            match session.next().await.expect("frames arrive") {
                Some(Frame::Stdout(bytes)) => output.extend_from_slice(&bytes),
                Some(Frame::Stderr(bytes)) => errors.extend_from_slice(&bytes),
                Some(Frame::Exited(exit)) => return exit.code,
                other => panic!("unexpected {other:?}"),
            }
        }
    };
    let code = tokio::time::timeout(PATIENCE, reading).await.expect("the program ends");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (code, text(output), text(errors))
}

/// All values of an answer.
pub(crate) async fn collect<T: serde::de::DeserializeOwned>(
    mut lines: carrack_engine::client::Lines<T>,
) -> Result<Vec<T>, ClientError> {
    let mut list = Vec::new();
    let reading = async {
        while let Some(value) = lines.next().await? {
            list.push(value);
        }
        Ok(list)
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the answer ends")
}

pub(crate) fn shell(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
}

/// A service that runs `script`.
pub(crate) fn service(name: &str, script: &str) -> Service {
    let mut service = plain_service(name, IMAGE);
    service.command = Some(shell(script));
    service.stop_grace_period = Duration::from_secs(5);
    service
}

/// A script that runs until it is asked to stop.
pub(crate) const FOREVER: &str = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done";

/// The names in a directory.
pub(crate) fn entries(directory: &Path) -> Vec<String> {
    let Ok(list) = fs::read_dir(directory) else { return Vec::new() };
    let names = list.map(|entry| entry.expect("an entry").file_name());
    names.map(|name| name.to_string_lossy().into_owned()).collect()
}

/// An example next to this test program.
pub(crate) fn example(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("own path");
    own.ancestors().nth(2).expect("the profile's directory").join("examples").join(name)
}

/// Addresses that no other test's networks are cut from.
fn pool(pid: u32, number: u32) -> Ipv4Net {
    let octet = |number: u32| u8::try_from(number % 64 * 4).expect("below 256");
    let second = 64 + u8::try_from(pid % 16).expect("below 16");
    Ipv4Net::new(Ipv4Addr::new(10, second, octet(pid / 16 + number), 0), 22).expect("a prefix")
}

/// An image with nothing but a static busybox and its names.
fn load_image(store: &Path) {
    let images = Images::open(store).expect("a store");
    let _lease = images.lease().expect("a lease");
    let mut layer = images.layer(Compression::None).expect("a layer");
    layer.write_all(&busybox_layer()).expect("written");
    let layer = layer.finish().expect("kept");
    let mut config = ImageConfig::new(&Platform::host());
    config.config.env = vec!["PATH=/bin".to_owned(), "FROM_IMAGE=yes".to_owned()];
    config.config.cmd = vec!["sh".to_owned()];
    let image = images.put_image(config, &[layer]).expect("an image");
    images.tag(&IMAGE.parse().expect("a name"), &image.digest).expect("tagged");
}

fn busybox_layer() -> Vec<u8> {
    let busybox = fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut writer = Writer::new(Vec::new());
    for (directory, mode) in
        [("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("data", 0o755), ("root", 0o700)]
    {
        writer.append_empty(&Entry::new(directory, Kind::Directory, mode)).expect("written");
    }
    let file = |path: &str, mode, bytes: &[u8], writer: &mut Writer<Vec<u8>>| {
        let size = u64::try_from(bytes.len()).expect("a length");
        writer.append(&Entry::file(path, mode, size), bytes).expect("written");
    };
    file("bin/busybox", 0o755, &busybox, &mut writer);
    let passwd = b"root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/tmp:/bin/sh\n";
    file("etc/passwd", 0o644, passwd, &mut writer);
    file("etc/group", 0o644, b"root:x:0:\nweb:x:1000:\nextra:x:2000:web\n", &mut writer);
    file("data/from-image", 0o640, b"seed\n", &mut writer);
    for name in NAMES.split_ascii_whitespace() {
        let link = Kind::Symlink(b"busybox".to_vec());
        writer.append_empty(&Entry::new(format!("bin/{name}"), link, 0o777)).expect("written");
    }
    writer.finish().expect("a layer")
}

/// What busybox is called by here.
const NAMES: &str = "sh cat echo ls sleep id env pwd true false kill mount head tail wc grep seq \
     stty tty nslookup hostname ps touch mkdir rm stat dd yes tr ip test printf ln wget nc sync";

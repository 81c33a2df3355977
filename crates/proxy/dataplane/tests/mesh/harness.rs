//! Workloads in network namespaces of their own, joined by a bridge, with one node proxy.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use carrack_dataplane::{Config, RunError, Timeouts};
use carrack_net::namespace::NetworkNamespace;
use carrack_network::{Attachment, Capture, Network};
use carrack_spiffe::TrustDomain;
use carrack_telemetry::access::{Reader, Record};
use carrack_xds::{Ingress, Protocol, Receipt, Resources, Service, Workload};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::authority::Authority;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const TRUST_DOMAIN: &str = "mesh.test";

/// A mesh of one project, `shop`; every service has one workload.
pub(crate) struct Mesh {
    pub(crate) directory: TempDir,
    pub(crate) authority: Authority,
    network: Network,
    hosts: Vec<Host>,
    pub(crate) resources: Resources,
    version: u32,
    proxy: Option<Running>,
    authority_task: JoinHandle<()>,
}

struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

struct Host {
    service: String,
    address: Ipv4Addr,
    namespace: PathBuf,
    interface: String,
}

/// Whether this machine lets us build a mesh; says so when it does not.
pub(crate) fn possible() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: making network namespaces needs root");
    }
    root
}

impl Mesh {
    pub(crate) async fn start(services: &[&str]) -> Self {
        Self::with(services, Duration::from_secs(3600), |_| {}).await
    }

    /// A mesh whose certificates live for `lifetime` and whose resources `change` has seen.
    pub(crate) async fn with(
        services: &[&str],
        lifetime: Duration,
        change: impl FnOnce(&mut Resources),
    ) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = tempfile::tempdir().expect("directory");
        let network = network(count);
        carrack_network::ensure(&network).expect("a bridge");
        let hosts: Vec<_> = (2_u8..)
            .zip(services)
            .map(|(last, service)| Host::new(directory.path(), &network, count, last, service))
            .collect();
        let authority = Authority::new(lifetime);
        let authority_task = authority.serve(&directory.path().join("identity.sock"));
        let mut resources = resources(&hosts, &network);
        change(&mut resources);
        let mut mesh = Self {
            directory,
            authority,
            network,
            hosts,
            resources,
            version: 0,
            proxy: None,
            authority_task,
        };
        mesh.run_proxy();
        mesh.apply(|_| {}).await;
        mesh.captured().await;
        mesh
    }

    pub(crate) fn run_proxy(&mut self) {
        let at = |name: &str| self.directory.path().join(name);
        let config = Config {
            resources: at("resources.json"),
            identity: at("identity.sock"),
            admin: at("proxy.sock"),
            access_log: at("access.log"),
            trust_domain: TrustDomain::new(TRUST_DOMAIN).expect("trust domain"),
            timeouts: Timeouts { drain: Duration::from_secs(1), ..Timeouts::default() },
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(carrack_dataplane::run(config, stop.clone().cancelled_owned()));
        self.proxy = Some(Running { stop, task });
    }

    pub(crate) async fn stop_proxy(&mut self) {
        if let Some(running) = self.proxy.take() {
            running.stop.cancel();
            running.task.await.expect("no panic").expect("stops in order");
        }
    }

    /// Changes the resources and waits until they are in force.
    pub(crate) async fn apply(&mut self, change: impl FnOnce(&mut Resources)) {
        let version = self.write(change);
        self.until("the resources in force", |receipt| receipt.version == version).await;
    }

    /// Changes the resources and waits until they are refused.
    pub(crate) async fn apply_refused(&mut self, change: impl FnOnce(&mut Resources)) -> Receipt {
        let version = self.write(change);
        self.until("the resources refused", |receipt| receipt.refused.as_ref() == Some(&version))
            .await
    }

    fn write(&mut self, change: impl FnOnce(&mut Resources)) -> String {
        self.version += 1;
        change(&mut self.resources);
        self.resources.version = format!("v{}", self.version);
        let fresh = self.directory.path().join("fresh.json");
        std::fs::write(&fresh, self.resources.to_json().expect("writes")).expect("writes");
        std::fs::rename(fresh, self.directory.path().join("resources.json")).expect("renames");
        self.resources.version.clone()
    }

    pub(crate) async fn captured(&self) {
        let all = self.resources.workloads.iter().filter(|one| one.netns.is_some()).count();
        self.until("every workload captured", |receipt| {
            receipt.workloads.iter().filter(|one| one.captured).count() == all
        })
        .await;
    }

    async fn until(&self, what: &str, wanted: impl Fn(&Receipt) -> bool) -> Receipt {
        let ask = async || {
            let answer = self.ask("/config").await?;
            serde_json::from_str::<Receipt>(&answer).ok().filter(|receipt| wanted(receipt))
        };
        eventually(what, ask).await
    }

    /// Asks the proxy's admin socket.
    pub(crate) async fn ask(&self, target: &str) -> Option<String> {
        let socket = self.directory.path().join("proxy.sock");
        let answer = carrack_net::unix::get(&socket, target).await.ok()?;
        String::from_utf8(answer.body.to_vec()).ok()
    }

    fn host(&self, service: &str) -> &Host {
        self.hosts.iter().find(|host| host.service == service).expect("such a service")
    }

    pub(crate) fn address(&self, service: &str) -> Ipv4Addr {
        self.host(service).address
    }

    pub(crate) fn uid(&self, service: &str) -> String {
        uid(service)
    }

    pub(crate) fn vip(&self, service: &str) -> Ipv4Addr {
        let named = |one: &&Service| one.name == service;
        self.resources.services.iter().find(named).expect("such a service").vip
    }

    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.network.gateway
    }

    pub(crate) fn inside(&self, service: &str) -> NetworkNamespace {
        NetworkNamespace::open(&self.host(service).namespace).expect("a namespace")
    }

    /// Listens where the application of `service` would.
    pub(crate) fn listen(&self, service: &str, port: u16) -> TcpListener {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        self.inside(service).listen(any).expect("listens")
    }

    /// Connects as the application of `from` would, to the service's name.
    pub(crate) async fn connect(&self, from: &str, to: &str, port: u16) -> TcpStream {
        self.connect_to(from, self.vip(to), port).await
    }

    pub(crate) async fn connect_to(&self, from: &str, to: Ipv4Addr, port: u16) -> TcpStream {
        let to = SocketAddr::from((to, port));
        self.inside(from).connect(to, 0).await.expect("connects")
    }

    /// Tries to connect; a connection that is reset at once has not come about.
    pub(crate) async fn try_connect(
        &self,
        from: &str,
        to: Ipv4Addr,
        port: u16,
    ) -> Option<TcpStream> {
        let to = SocketAddr::from((to, port));
        self.inside(from).connect(to, 0).await.ok()
    }

    /// One HTTP/1.1 request on a connection of its own; the whole answer.
    pub(crate) async fn http(&self, from: &str, to: &str, port: u16, request: &str) -> String {
        let stream = self.connect(from, to, port).await;
        exchange(stream, request).await
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        Reader::new(self.directory.path().join("access.log")).tail(1000).expect("reads")
    }

    /// Waits for a record.
    pub(crate) async fn record(&self, what: &str, wanted: impl Fn(&Record) -> bool) -> Record {
        eventually(what, async || self.records().into_iter().find(|record| wanted(record))).await
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if let Some(running) = self.proxy.take() {
            running.stop.cancel();
            running.task.abort();
        }
        self.authority_task.abort();
        for host in &self.hosts {
            carrack_network::detach(&host.interface).ok();
            carrack_network::remove_namespace(&host.namespace).ok();
        }
        carrack_network::remove(&self.network).ok();
    }
}

impl Host {
    fn new(directory: &Path, network: &Network, count: u32, last: u8, service: &str) -> Self {
        let [a, b, c, _] = network.gateway.octets();
        let host = Self {
            service: service.to_owned(),
            address: Ipv4Addr::new(a, b, c, last),
            namespace: directory.join(format!("netns-{service}")),
            interface: format!("ct{}x{count}v{last}", std::process::id()),
        };
        carrack_network::create_namespace(&host.namespace).expect("a namespace");
        carrack_network::attach(&Attachment {
            namespace: &host.namespace,
            network,
            address: host.address,
            interface: "eth0",
            host_interface: &host.interface,
            mac: carrack_network::hardware_address(host.address),
        })
        .expect("an interface");
        carrack_network::capture(&host.namespace, &Capture::default()).expect("a capture");
        host
    }
}

fn network(count: u32) -> Network {
    let [high, low] = u16::try_from(std::process::id() % 0xffff).expect("small").to_be_bytes();
    // A private /24 of this process's own: 10.128.0.0/9 by process and count.
    let second = 128 | high & 0x7f;
    let third = low.wrapping_mul(13).wrapping_add(u8::try_from(count % 256).expect("small"));
    let gateway = Ipv4Addr::new(10, second, third, 1);
    Network {
        name: "shop".into(),
        bridge: format!("ct{}x{count}", std::process::id()),
        subnet: format!("10.{second}.{third}.0/24").parse().expect("subnet"),
        gateway,
        masquerade: false,
    }
}

fn uid(service: &str) -> String {
    format!("uid-{service}")
}

fn resources(hosts: &[Host], network: &Network) -> Resources {
    let [_, second, third, _] = network.gateway.octets();
    let workload = |host: &Host| Workload {
        uid: uid(&host.service),
        name: format!("shop-{}-1", host.service),
        namespace: "shop".into(),
        service_account: host.service.clone(),
        address: host.address,
        netns: Some(host.namespace.clone()),
        ready: true,
        protocols: [].into(),
    };
    let service = |host: &Host| Service {
        name: host.service.clone(),
        namespace: "shop".into(),
        vip: Ipv4Addr::new(11, second, third, host.address.octets()[3]),
        endpoints: vec![uid(&host.service)],
        protocols: [].into(),
    };
    Resources {
        version: String::new(),
        trust_domain: TRUST_DOMAIN.into(),
        workloads: hosts.iter().map(workload).collect(),
        services: hosts.iter().map(service).collect(),
        authorizations: Vec::new(),
        ingress: Vec::new(),
    }
}

/// A door on loopback to a service, on a port that is free.
pub(crate) fn ingress(service: &str, port: u16, protocol: Option<Protocol>) -> Ingress {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    Ingress {
        listen: free.local_addr().expect("address"),
        namespace: "shop".into(),
        service: service.into(),
        port,
        protocol,
    }
}

/// Sends a request and reads until the other end closes.
pub(crate) async fn exchange(mut stream: TcpStream, request: &str) -> String {
    let conversation = async {
        stream.write_all(request.as_bytes()).await.expect("writes");
        let mut answer = Vec::new();
        // A connection reset is an answer too: what came before it.
        stream.read_to_end(&mut answer).await.ok();
        String::from_utf8_lossy(&answer).into_owned()
    };
    tokio::time::timeout(PATIENCE, conversation).await.expect("an answer in time")
}

/// Asserts that a connection, if it came about, yields nothing.
pub(crate) async fn yields_nothing(stream: Option<TcpStream>) {
    if let Some(stream) = stream {
        assert_eq!(exchange(stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await, "");
    }
}

/// Asks until there is an answer.
pub(crate) async fn eventually<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        // What another process or thread does raises no event here.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

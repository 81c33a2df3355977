//! The daemon as a program: engine, identity, control and observe in one
//! process, each on its own socket.
//!
//! The engine is opened first, because it alone knows what runs; the others are
//! told from it. Its gate opens once the control plane stands.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use carrack_control::{Control, ControlConfig};
use carrack_engine::{Engine, EngineConfig, Gate, GateError};
use carrack_identity::IdentityConfig;
use carrack_objects::mesh::{Service, Workload};
use carrack_observe::{Observe, ObserveConfig};
use carrack_spiffe::{SpiffeId, TrustDomain};
use carrack_store::LocalRecords;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use crate::settings::Settings;

/// How long a container may wait for its capture, and a policy for its receipt.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);
/// Published ports are carried under this name (see `docs/decisions/0002`).
const INGRESS: &str = "carrack-ingress";

/// Runs until asked to end.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    super::start_logging()?;
    let _lock = super::take_role(settings, "daemon")?;
    let executor = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the executor")?;
    executor.block_on(serve(settings))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(settings: &Settings) -> anyhow::Result<()> {
    let trust_domain = settings.trust_domain()?;
    let gate = Arc::new(ControlGate::default());
    // One copy nobody can write, made once: every shim is started from it (CVE-2019-5736).
    let sealed = carrack_linux::seal::copy(&settings.runtime_program)
        .with_context(|| format!("copying {}", settings.runtime_program.display()))?;
    let config = engine_config(settings, &sealed, trust_domain.clone())?;
    let opening = Arc::clone(&gate);
    let engine = tokio::task::spawn_blocking(move || Engine::open(config, opening)).await??;
    let (workloads, services) = (engine.workloads(), engine.services());
    let control = control(settings, &trust_domain, workloads.clone(), services.clone())?;
    gate.opens_by(Arc::clone(&control));

    let (end, ended) = watch::channel(false);
    let until_end = move || {
        let mut ended = ended.clone();
        async move {
            ended.wait_for(|ended| *ended).await.ok(); // The sender gone is an end, too.
        }
    };
    let identity = IdentityConfig {
        directory: settings.root.join("identity"),
        socket: settings.identity_socket(),
        trust_domain: trust_domain.clone(),
        lifetime: IdentityConfig::DEFAULT_LIFETIME,
    };
    let entries = Arc::new(entries(trust_domain, workloads, services));
    let page = SocketAddr::from((Ipv4Addr::LOCALHOST, settings.page_port));
    let observe = Observe::new(ObserveConfig::new(settings.proxy_socket(), settings.access_log()));

    let mut roles = tokio::task::JoinSet::new();
    roles.spawn(
        carrack_identity::run(identity, entries, until_end())
            .map(|outcome| outcome.context("the authority")),
    );
    serve_observe(settings, page, &observe, &mut roles, &until_end).await?;
    let publishing = Arc::clone(&control);
    let shutdown = until_end();
    roles.spawn(async move {
        publishing.run(shutdown).await;
        Ok(())
    });
    let listener = listen(&settings.control_socket())?;
    let shutdown = until_end();
    roles.spawn(async move {
        control.serve(listener, shutdown).await;
        Ok(())
    });
    let listener = listen(&settings.engine_socket())?;
    let serving = Arc::clone(&engine);
    let shutdown = until_end();
    roles.spawn(async move {
        serving.serve(listener, shutdown).await;
        Ok(())
    });
    tracing::info!(run = %settings.run.display(), page = %page, "the daemon is up");

    tokio::select! {
        asked = super::asked_to_end() => asked?,
        Some(ended) = roles.join_next() => {
            // No role ends by itself: say which did, and let the keeper start all again.
            ended.context("a role panicked")??;
            anyhow::bail!("a role ended before it was asked to");
        }
    }
    end.send(true).ok(); // Nobody left to tell is what we want.
    engine.close().await;
    while let Some(ended) = roles.join_next().await {
        ended.context("a role panicked")??;
    }
    Ok(())
}

/// Looks, and serves what it saw: the page on loopback, the same to programs on a socket.
async fn serve_observe<End: Future<Output = ()> + Send + 'static>(
    settings: &Settings,
    page: SocketAddr,
    observe: &Arc<Observe>,
    roles: &mut tokio::task::JoinSet<anyhow::Result<()>>,
    until_end: &impl Fn() -> End,
) -> anyhow::Result<()> {
    let looking = Arc::clone(observe);
    let shutdown = until_end();
    roles.spawn(async move {
        looking.run(shutdown).await;
        Ok(())
    });
    let listener = listen(&settings.observe_socket())?;
    let shutdown = until_end();
    let answering = Arc::clone(observe);
    roles.spawn(async move {
        answering.serve_unix(listener, shutdown).await;
        Ok(())
    });
    // The page is for looking; that its port is taken must not stop containers.
    match TcpListener::bind(page).await {
        Ok(listener) => {
            let shutdown = until_end();
            let showing = Arc::clone(observe);
            roles.spawn(async move {
                showing.serve(listener, shutdown).await;
                Ok(())
            });
        }
        Err(error) => {
            tracing::error!(%page, %error, "the page has no port; choose another with --page-port")
        }
    }
    Ok(())
}

fn engine_config(
    settings: &Settings,
    sealed_runtime: &OwnedFd,
    trust_domain: TrustDomain,
) -> anyhow::Result<EngineConfig> {
    // A child looks itself up, and has the descriptor until it is another program.
    let program = format!("/proc/self/fd/{}", sealed_runtime.as_raw_fd());
    let mut config = EngineConfig::new(&settings.root, &settings.run, program, trust_domain);
    config.name_servers = name_servers(Path::new("/etc/resolv.conf"));
    config.interface_prefix = interface_prefix(&settings.run);
    Ok(config)
}

/// Two daemons on one host have interfaces of different names.
fn interface_prefix(run: &Path) -> String {
    if run == Path::new("/run/carrack") {
        return "ck".to_owned();
    }
    let digest = carrack_oci::Digest::of(run.as_os_str().as_encoded_bytes());
    let two: String = digest.hex().chars().take(2).collect();
    format!("c{two}")
}

/// The name servers of the host, for names that are no service's.
fn name_servers(file: &Path) -> Vec<SocketAddr> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.strip_prefix("nameserver "));
    lines.filter_map(|word| Some(SocketAddr::new(word.trim().parse().ok()?, 53))).collect()
}

fn control(
    settings: &Settings,
    trust_domain: &TrustDomain,
    workloads: watch::Receiver<Arc<Vec<Workload>>>,
    services: watch::Receiver<Arc<Vec<Service>>>,
) -> anyhow::Result<Arc<Control>> {
    let directory = settings.root.join("mesh");
    super::make_private(&directory)?;
    let records = Arc::new(LocalRecords::open(directory.join("records.db"))?);
    let config = ControlConfig {
        resources: settings.resources(),
        proxy: settings.proxy_socket(),
        trust_domain: trust_domain.clone(),
        patience: PATIENCE,
    };
    Ok(Control::open(config, records, workloads, services)?)
}

/// Which identities may be issued: those of containers that exist, and of the
/// ingress of each project they are in.
fn entries(
    trust_domain: TrustDomain,
    workloads: watch::Receiver<Arc<Vec<Workload>>>,
    services: watch::Receiver<Arc<Vec<Service>>>,
) -> impl Fn(&SpiffeId) -> bool + Send + Sync {
    move |id| {
        let (Some(namespace), Some(account)) = (id.namespace(), id.service_account()) else {
            return false;
        };
        let is_workload =
            workloads.borrow().iter().any(|one| one.project == namespace && one.service == account);
        let is_ingress = account == INGRESS
            && (services.borrow().iter().any(|one| one.project == namespace)
                || workloads.borrow().iter().any(|one| one.project == namespace));
        *id.trust_domain() == trust_domain && (is_workload || is_ingress)
    }
}

fn listen(socket: &Path) -> anyhow::Result<UnixListener> {
    Ok(carrack_net::unix::bind(socket)?)
}

/// The engine's gate: opens when the control plane has the proxy's word.
struct ControlGate {
    control: watch::Sender<Option<Arc<Control>>>,
}

impl Default for ControlGate {
    fn default() -> Self {
        Self { control: watch::Sender::new(None) }
    }
}

impl ControlGate {
    fn opens_by(&self, control: Arc<Control>) {
        self.control.send_replace(Some(control));
    }
}

impl Gate for ControlGate {
    fn captured<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), GateError>> {
        Box::pin(async move {
            let mut control = self.control.subscribe();
            let known = control.wait_for(Option::is_some).await;
            let control =
                known.map_err(|error| GateError::caused("the daemon is ending", error))?.clone();
            let Some(control) = control else {
                return Err(GateError::new("the control plane is not there"));
            };
            let captured = control.captured(uid).await;
            captured.map_err(|error| {
                GateError::caused("its traffic is not captured by the node proxy", error)
            })
        })
    }
}

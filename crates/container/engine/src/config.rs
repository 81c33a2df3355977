//! What an engine is told, and whom it asks.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use carrack_spiffe::TrustDomain;
use futures_util::future::BoxFuture;
use ipnet::Ipv4Net;

/// What an engine is told.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Where what outlives a boot is kept: images, volumes, logs, records.
    pub root: PathBuf,
    /// Where what does not is kept: sockets, bundles, mounts, network namespaces.
    pub run: PathBuf,
    /// The program that becomes shims.
    pub runtime_program: PathBuf,
    /// The trust domain of the containers' identities.
    pub trust_domain: TrustDomain,
    /// Addresses that projects' networks are cut from, a `/24` each.
    pub networks: Ipv4Net,
    /// Addresses of services.
    pub service_addresses: Ipv4Net,
    /// Where names that are not the project's are looked up.
    pub name_servers: Vec<SocketAddr>,
    /// Bytes one log file may have before it is rotated.
    pub log_bytes: u64,
    /// Log files kept of one container.
    pub log_files: u32,
    /// What bridges and interfaces on the host are called first. At most three characters, so
    /// that what follows fits.
    pub interface_prefix: String,
    /// The cgroup that containers' cgroups are in.
    pub cgroup: String,
}

impl EngineConfig {
    /// The usual, for an engine that keeps its things in `root` and `run`.
    pub fn new(
        root: impl Into<PathBuf>,
        run: impl Into<PathBuf>,
        runtime_program: impl Into<PathBuf>,
        trust_domain: TrustDomain,
    ) -> Self {
        Self {
            root: root.into(),
            run: run.into(),
            runtime_program: runtime_program.into(),
            trust_domain,
            networks: Ipv4Net::new_assert(Ipv4Addr::new(10, 89, 0, 0), 16),
            service_addresses: Ipv4Net::new_assert(Ipv4Addr::new(10, 90, 0, 0), 16),
            name_servers: Vec::new(),
            log_bytes: 16 << 20,
            log_files: 4,
            interface_prefix: "ck".to_owned(),
            cgroup: "/carrack".to_owned(),
        }
    }
}

/// Answers when a container's capture stands.
///
/// The engine asks after the container's network namespace is attached and its workload is
/// listed, and before its program starts. A container whose gate does not open does not start:
/// nothing it sends can go around the mesh.
pub trait Gate: Send + Sync {
    /// Resolves once the node proxy holds the capture sockets of the workload `uid`.
    ///
    /// # Errors
    ///
    /// When it does not within reasonable time.
    fn captured<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), GateError>>;
}

/// A gate that is always open, for an engine without a mesh.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenGate;

impl Gate for OpenGate {
    fn captured<'a>(&'a self, _uid: &'a str) -> BoxFuture<'a, Result<(), GateError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Why a container's capture does not stand.
#[derive(Debug)]
pub struct GateError {
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl GateError {
    /// Says why, without a cause.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }

    /// Says why, and what caused it.
    pub fn caused(
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { message: message.into(), source: Some(source.into()) }
    }
}

impl fmt::Display for GateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for GateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as &(dyn std::error::Error + 'static))
    }
}

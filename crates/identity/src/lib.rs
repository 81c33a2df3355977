//! Who is calling: the authority that issues certificates, and the client that
//! asks it for one.
//!
//! ```text
//! key + CSR ──CertificateClient──▶ unix socket ──▶ peer is root or us?
//!                                                 id is a listed workload's?
//!                                                 Authority::issue ──▶ leaf, root
//! ```
//!
//! The protocol is Istio's `istio.v1.auth.IstioCertificateService`, so whoever
//! speaks to a mesh's authority can speak to this one. What a certificate says is
//! decided here: from the request only the public key is taken, from the metadata
//! the name, and the name must be one that [`Entries`] knows.
//!
//! A workload's private key never comes here; the authority's own key never
//! leaves its directory.

mod authority;
mod client;
mod root;
mod server;
mod wire;

pub use authority::{Authority, IssueError, Issued, MAXIMUM_LIFETIME, OpenError};
pub use client::{CertificateClient, FetchError, Svid};
pub use server::{Entries, ServeError, serve};

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use carrack_spiffe::TrustDomain;

/// How the authority of one trust domain is run.
#[derive(Clone, Debug)]
pub struct IdentityConfig {
    /// Where the authority keeps its key; made with mode 0700 when absent.
    pub directory: PathBuf,
    /// The unix socket that answers certificate requests.
    pub socket: PathBuf,
    /// Whose certificates are issued.
    pub trust_domain: TrustDomain,
    /// How long a certificate lives; at most [`MAXIMUM_LIFETIME`].
    pub lifetime: Duration,
}

impl IdentityConfig {
    /// How long a certificate lives where nobody says otherwise.
    pub const DEFAULT_LIFETIME: Duration = Duration::from_hours(12);
}

/// Why the authority stopped, or did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The authority's directory could not be opened.
    #[error("starting the authority of `{trust_domain}`")]
    Open {
        /// Whose authority.
        trust_domain: TrustDomain,
        /// What went wrong.
        source: OpenError,
    },
    /// The socket could not be made.
    #[error("listening on {}", socket.display())]
    Listen {
        /// The socket.
        socket: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// Serving failed.
    #[error("answering certificate requests on {}", socket.display())]
    Serve {
        /// The socket.
        socket: PathBuf,
        /// What went wrong.
        source: ServeError,
    },
}

/// Runs the authority until `shutdown` resolves.
///
/// A socket file left behind by an earlier run is replaced. The new one is open to
/// its owner only, and each caller is asked who it is besides.
///
/// # Errors
///
/// [`RunError`] when the authority cannot be opened or the socket not be served.
pub async fn run(
    config: IdentityConfig,
    entries: Arc<dyn Entries>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), RunError> {
    let IdentityConfig { directory, socket, trust_domain, lifetime } = config;
    let authority = Authority::open(&directory, &trust_domain)
        .and_then(|authority| authority.with_lifetime(lifetime))
        .map_err(|source| RunError::Open { trust_domain, source })?;
    let listener = server::listen(&socket)
        .map_err(|source| RunError::Listen { socket: socket.clone(), source })?;
    serve(listener, Arc::new(authority), entries, shutdown)
        .await
        .map_err(|source| RunError::Serve { socket, source })
}

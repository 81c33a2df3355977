//! Getting files over http, https and from the file system.
//!
//! The rest of this frontend blocks, and so does what is offered here: a small
//! executor of its own carries the downloads, several at a time. Nothing that
//! arrives is believed; a download has a size and a digest it must come to.

use std::cell::OnceCell;
use std::future::Future;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carrack_oci::{Algorithm, Digest, Hasher};
use http::header::LOCATION;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::cache::{Cache, Unfinished};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a server may say nothing.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
const ATTEMPTS: u32 = 3;
const RETRY_DELAY: Duration = Duration::from_millis(500);
const MAXIMUM_REDIRECTS: usize = 5;
const AT_ONCE: usize = 6;

/// Something to download, and how to know that it is the right thing.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// What it is, for people.
    pub(crate) name: String,
    /// Where it may be had, the best first.
    pub(crate) addresses: Vec<String>,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// Why a file was not had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Certificates for https could not be read.
    #[error("reading the certificate authorities to trust for https")]
    Certificates(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The downloads' own executor could not start.
    #[error("starting downloads")]
    Start(#[source] io::Error),
    /// The address is none we fetch from.
    #[error("`{address}` is not an http, https or file address")]
    Address {
        /// The address.
        address: String,
    },
    /// No connection, or it broke.
    #[error("fetching {address}")]
    Connection {
        /// The address.
        address: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server said nothing for too long.
    #[error("{address} did not go on for {} s", SILENCE_TIMEOUT.as_secs())]
    Silence {
        /// The address.
        address: String,
    },
    /// The server answered something other than the file.
    #[error("{address} answered {status}")]
    Status {
        /// The address.
        address: String,
        /// The answer.
        status: u16,
    },
    /// The server sends one elsewhere, and on.
    #[error("{address} redirects too often, or from https to http")]
    Redirect {
        /// The address.
        address: String,
    },
    /// There is more than there should be.
    #[error("{address} is larger than the {limit} bytes it should have")]
    TooLarge {
        /// The address.
        address: String,
        /// How large it may be.
        limit: u64,
    },
    /// What arrived is not what was wanted.
    #[error(
        "{address} was tampered with or damaged: its digest is {found}, and should be {wanted}"
    )]
    Corrupt {
        /// The address.
        address: String,
        /// The digest of what arrived.
        found: Digest,
        /// The digest it should have.
        wanted: Digest,
    },
    /// It could not be written down.
    #[error("keeping what {address} sent")]
    Keep {
        /// The address.
        address: String,
        /// What went wrong.
        source: io::Error,
    },
}

impl FetchError {
    /// Whether the same download, tried again, may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connection { .. } | Self::Silence { .. } => true,
            Self::Status { status, .. } => *status >= 500 || *status == 429,
            _ => false,
        }
    }
}

type HttpClient = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// Fetches files. Nothing is set up before the first one is asked for: most builds
/// find everything in the cache.
pub(crate) struct Fetcher {
    /// Certificate authorities to trust beside the system's.
    more: Option<PathBuf>,
    network: OnceCell<Network>,
}

struct Network {
    runtime: Runtime,
    client: HttpClient,
}

impl Network {
    fn new(more: Option<&Path>) -> Result<Self, FetchError> {
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(FetchError::Start)?;
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(more)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { runtime, client })
    }
}

impl Fetcher {
    /// A fetcher that trusts the system's certificate authorities, and those in the
    /// file `more`.
    pub(crate) fn new(more: Option<&Path>) -> Self {
        Self { more: more.map(Path::to_owned), network: OnceCell::new() }
    }

    fn network(&self) -> Result<&Network, FetchError> {
        if let Some(network) = self.network.get() {
            return Ok(network);
        }
        let network = Network::new(self.more.as_deref())?;
        Ok(self.network.get_or_init(|| network))
    }

    /// Fetches a text of at most `limit` bytes.
    pub(crate) fn text(&self, address: &str, limit: u64) -> Result<String, FetchError> {
        let Network { runtime, client } = self.network()?;
        let bytes = runtime.block_on(retried(|| async {
            let mut bytes = Vec::new();
            stream(client, address, limit, |part| {
                bytes.extend_from_slice(part);
                Ok(())
            })
            .await?;
            Ok(bytes)
        }))?;
        String::from_utf8(bytes).map_err(|error| FetchError::Connection {
            address: address.to_owned(),
            source: error.into(),
        })
    }

    /// Downloads what the cache does not have yet; `progress` hears the index of a
    /// file and how much of it has arrived.
    pub(crate) fn download(
        &self,
        wanted: Vec<Wanted>,
        cache: &Cache,
        mut progress: impl FnMut(usize, u64),
    ) -> Result<(), FetchError> {
        if wanted.is_empty() {
            return Ok(());
        }
        let Network { runtime, client } = self.network()?;
        runtime.block_on(async {
            let slots = Arc::new(Semaphore::new(AT_ONCE));
            let (sender, mut arrived) = mpsc::unbounded_channel();
            let mut downloads = JoinSet::new();
            for (index, wanted) in wanted.into_iter().enumerate() {
                let (client, cache) = (client.clone(), cache.clone());
                let (slots, sender) = (Arc::clone(&slots), sender.clone());
                downloads.spawn(async move {
                    let _slot = slots.acquire_owned().await;
                    let told = |done| {
                        // Nobody listens once another download has failed.
                        sender.send((index, done)).ok();
                    };
                    download(&client, &wanted, &cache, &told).await
                });
            }
            drop(sender);
            loop {
                tokio::select! {
                    Some((index, done)) = arrived.recv() => progress(index, done),
                    finished = downloads.join_next() => match finished {
                        None => return Ok(()),
                        Some(Ok(outcome)) => outcome?,
                        Some(Err(panicked)) => {
                            return Err(FetchError::Start(io::Error::other(panicked)));
                        }
                    },
                }
            }
        })
    }
}

/// Tries one address after another.
async fn download(
    client: &HttpClient,
    wanted: &Wanted,
    cache: &Cache,
    told: &impl Fn(u64),
) -> Result<(), FetchError> {
    let mut failure = None;
    for address in &wanted.addresses {
        match retried(|| download_from(client, address, wanted, cache, told)).await {
            Ok(()) => return Ok(()),
            Err(error @ FetchError::Status { .. }) => failure = failure.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    Err(failure.unwrap_or_else(|| FetchError::Address { address: wanted.name.clone() }))
}

async fn download_from(
    client: &HttpClient,
    address: &str,
    wanted: &Wanted,
    cache: &Cache,
    told: &impl Fn(u64),
) -> Result<(), FetchError> {
    let keep = |source| FetchError::Keep { address: address.to_owned(), source };
    let mut file = cache.unfinished().map_err(keep)?;
    let found = receive(client, address, wanted.size, &mut file, told).await?;
    if found != wanted.digest {
        let wanted = wanted.digest.clone();
        return Err(FetchError::Corrupt { address: address.to_owned(), found, wanted });
    }
    cache.keep_blob(file, &wanted.digest).map_err(keep)
}

/// Writes what arrives to `file`, and says what it hashes to.
async fn receive(
    client: &HttpClient,
    address: &str,
    limit: u64,
    file: &mut Unfinished,
    told: &impl Fn(u64),
) -> Result<Digest, FetchError> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut done = 0;
    stream(client, address, limit, |part| {
        hasher.update(part);
        done += length(part);
        told(done);
        file.write_all(part)
    })
    .await?;
    Ok(hasher.finish())
}

/// Tries again what may succeed the next time.
async fn retried<T, F: Future<Output = Result<T, FetchError>>>(
    mut attempt: impl FnMut() -> F,
) -> Result<T, FetchError> {
    let mut delay = RETRY_DELAY;
    for _ in 1..ATTEMPTS {
        match attempt().await {
            Err(error) if error.is_transient() => {
                tokio::time::sleep(delay).await;
                delay *= 2;
            }
            outcome => return outcome,
        }
    }
    attempt().await
}

/// Hands every part of a file to `take`, and refuses more than `limit` bytes.
async fn stream(
    client: &HttpClient,
    address: &str,
    limit: u64,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), FetchError> {
    let keep = |source| FetchError::Keep { address: address.to_owned(), source };
    let too_large = || FetchError::TooLarge { address: address.to_owned(), limit };
    if let Some(path) = address.strip_prefix("file:") {
        return read_file(address, path, limit, take);
    }
    let mut body = open(client, address).await?;
    let mut left = limit;
    while let Some(frame) = heard(address, body.frame()).await? {
        let frame = frame.map_err(|error| connection(address, error))?;
        let Ok(part) = frame.into_data() else { continue };
        left = left.checked_sub(length(&part)).ok_or_else(too_large)?;
        take(&part).map_err(keep)?;
    }
    Ok(())
}

/// Reads `file:/path` and `file:///path`.
fn read_file(
    address: &str,
    path: &str,
    limit: u64,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), FetchError> {
    let path = PathBuf::from(format!("/{}", path.trim_start_matches('/')));
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => FetchError::Status { address: address.to_owned(), status: 404 },
        _ => connection(address, error),
    };
    let mut bytes = Vec::new();
    std::fs::File::open(&path)
        .and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(failed)?;
    if length(&bytes) > limit {
        return Err(FetchError::TooLarge { address: address.to_owned(), limit });
    }
    take(&bytes).map_err(|source| FetchError::Keep { address: address.to_owned(), source })
}

/// Asks for a file and follows redirects, but never from https to http.
async fn open(client: &HttpClient, address: &str) -> Result<Incoming, FetchError> {
    let refused = || FetchError::Address { address: address.to_owned() };
    let redirected = || FetchError::Redirect { address: address.to_owned() };
    let mut uri: Uri = address.parse().map_err(|_| refused())?;
    for _ in 0..=MAXIMUM_REDIRECTS {
        let request = Request::get(&uri).body(Empty::new()).map_err(|_| refused())?;
        let answer = heard(address, client.request(request))
            .await?
            .map_err(|error| connection(address, error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.into_body());
        }
        let location = answer.headers().get(LOCATION).filter(|_| status.is_redirection());
        let Some(location) = location else {
            return Err(FetchError::Status {
                address: address.to_owned(),
                status: status.as_u16(),
            });
        };
        uri = follow(&uri, location).ok_or_else(redirected)?;
    }
    Err(redirected())
}

/// Where a redirect leads, when it may be followed.
fn follow(from: &Uri, location: &HeaderValue) -> Option<Uri> {
    let location = location.to_str().ok()?;
    let to: Uri = if location.starts_with('/') {
        format!("{}://{}{location}", from.scheme_str()?, from.authority()?).parse().ok()?
    } else {
        location.parse().ok()?
    };
    match (from.scheme_str()?, to.scheme_str()?) {
        ("http", "http" | "https") | ("https", "https") => Some(to),
        _ => None,
    }
}

async fn heard<T>(address: &str, future: impl Future<Output = T>) -> Result<T, FetchError> {
    timeout(SILENCE_TIMEOUT, future)
        .await
        .map_err(|_| FetchError::Silence { address: address.to_owned() })
}

fn connection(
    address: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> FetchError {
    FetchError::Connection { address: address.to_owned(), source: source.into() }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// TLS with the system's authorities. A system without any may still fetch over
/// http, where signatures are what counts anyway.
fn tls(more: Option<&Path>) -> Result<ClientConfig, FetchError> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| FetchError::Certificates(error);
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = more {
        let certificates = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| failed(error.into()))?;
        roots.add_parsable_certificates(certificates);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.into()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn followed(from: &str, location: &str) -> Option<String> {
        follow(&from.parse().unwrap(), &HeaderValue::from_str(location).unwrap())
            .map(|uri| uri.to_string())
    }

    #[test]
    fn a_redirect_never_leaves_https() {
        assert_eq!(followed("http://a/x", "https://b/y").as_deref(), Some("https://b/y"));
        assert_eq!(followed("https://a/x", "/y?z").as_deref(), Some("https://a/y?z"));
        assert_eq!(followed("https://a/x", "http://b/y"), None);
        assert_eq!(followed("http://a/x", "file:///etc/passwd"), None);
        assert_eq!(followed("http://a/x", "ftp://b/y"), None);
    }
}

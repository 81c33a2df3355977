//! What the proxy is told at start, and the file it watches from then on.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use carrack_net::{tls, unix};
use carrack_spiffe::TrustDomain;
use carrack_telemetry::access::LogError;
use futures_util::StreamExt;
use inotify::{EventStream, Inotify, WatchMask};

/// The mark on the proxy's own packets, which the redirect leaves alone.
pub const MARK: u32 = 0x539;

/// Where the proxy finds what it needs.
#[derive(Clone, Debug)]
pub struct Config {
    /// The resources, as JSON; replaced whole, by rename. Need not exist yet; its directory must.
    pub resources: PathBuf,
    /// The Unix socket of the certificate authority.
    pub identity: PathBuf,
    /// The Unix socket to answer questions about this proxy on.
    pub admin: PathBuf,
    /// The newest file of the access log.
    pub access_log: PathBuf,
    /// Whose identities are accepted.
    pub trust_domain: TrustDomain,
    /// How long things may take.
    pub timeouts: Timeouts,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Reaching the other end: TCP, TLS and the tunnel, each.
    pub connect: Duration,
    /// What is underway when the proxy is asked to stop.
    pub drain: Duration,
    /// A client that was refused may still say that it speaks HTTP, to be told so in HTTP.
    pub refusal: Duration,
    /// The lifetime to ask of the authority for certificates; none leaves it to the authority.
    pub certificate: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            drain: Duration::from_secs(5),
            refusal: Duration::from_secs(1),
            certificate: None,
        }
    }
}

/// Why the proxy could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The admin socket cannot be opened.
    #[error("starting the node proxy: its admin socket")]
    Admin {
        /// Why.
        source: unix::BindError,
    },
    /// The access log cannot be opened.
    #[error("starting the node proxy: its access log")]
    AccessLog {
        /// Why.
        source: LogError,
    },
    /// The directory of the resources cannot be watched.
    #[error("watching {}: create the directory first", directory.display())]
    Watch {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error("starting the node proxy")]
    Tls {
        /// Why.
        source: tls::ConfigError,
    },
}

/// Tells when the resources have been replaced.
pub(crate) struct Watch {
    path: PathBuf,
    name: OsString,
    events: EventStream<[u8; 4096]>,
}

impl Watch {
    pub(crate) fn start(path: &Path) -> Result<Self, RunError> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let name = path.file_name().unwrap_or_default().to_owned();
        match watch(&directory) {
            Ok(events) => Ok(Self { path: path.to_owned(), name, events }),
            Err(source) => Err(RunError::Watch { directory, source }),
        }
    }

    /// The file that is watched.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until the file may have changed.
    pub(crate) async fn changed(&mut self) -> io::Result<()> {
        while let Some(event) = self.events.next().await {
            // An event without a name speaks of the directory, or of events that were lost.
            if event?.name.is_none_or(|changed| changed == self.name) {
                return Ok(());
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

fn watch(directory: &Path) -> io::Result<EventStream<[u8; 4096]>> {
    let inotify = Inotify::init()?;
    inotify.watches().add(directory, WatchMask::MOVED_TO | WatchMask::CLOSE_WRITE)?;
    inotify.into_event_stream([0; 4096])
}

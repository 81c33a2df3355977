//! Certificates for the identities this proxy speaks for, renewed at half their life.
//!
//! A renewal replaces what the next handshake shows. Connections that stand stay; new tunnels no
//! longer use those made under the old certificate, and a tunnel ends for new streams when the
//! certificate of its peer does.

mod client;
mod wire;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use carrack_net::tls::{self, ConfigError, Credentials};
use carrack_spiffe::{SpiffeId, Validity};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use client::Client;

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(10);
/// A clock that jumps must not make renewals spin.
const SOONEST: Duration = Duration::from_millis(500);

/// One identity, and the TLS it shows itself by.
pub(crate) struct Identity {
    pub(crate) id: SpiffeId,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) connector: TlsConnector,
    pub(crate) acceptor: TlsAcceptor,
    certified: watch::Sender<bool>,
}

impl Identity {
    /// Waits until there is a certificate.
    pub(crate) async fn certified(&self) {
        // The sender is our own, so waiting cannot fail.
        self.certified.subscribe().wait_for(|certified| *certified).await.ok();
    }
}

/// Every identity in use. One that nobody uses any more is forgotten.
pub(crate) struct Identities {
    client: Client,
    known: Mutex<HashMap<SpiffeId, Weak<Identity>>>,
}

impl Identities {
    /// Must be called within a tokio runtime.
    pub(crate) fn new(socket: &Path, lifetime: Option<Duration>) -> Self {
        Self { client: Client::new(socket, lifetime), known: Mutex::default() }
    }

    /// The identity, which is being certified from the first call on.
    pub(crate) fn get(&self, id: &SpiffeId) -> Result<Arc<Identity>, ConfigError> {
        let mut known = self.known.lock();
        if let Some(identity) = known.get(id).and_then(Weak::upgrade) {
            return Ok(identity);
        }
        known.retain(|_, identity| identity.strong_count() > 0);
        let credentials = Arc::new(Credentials::empty());
        let server = tls::server_config(Arc::clone(&credentials), &[b"h2"])?;
        let client = tls::client_config(Arc::clone(&credentials), &[b"h2"])?;
        let identity = Arc::new(Identity {
            id: id.clone(),
            credentials,
            connector: TlsConnector::from(Arc::new(client)),
            acceptor: TlsAcceptor::from(Arc::new(server)),
            certified: watch::Sender::new(false),
        });
        known.insert(id.clone(), Arc::downgrade(&identity));
        tokio::spawn(renew(self.client.clone(), id.clone(), Arc::downgrade(&identity)));
        Ok(identity)
    }

    /// Every identity in use, by name.
    pub(crate) fn all(&self) -> Vec<Arc<Identity>> {
        let mut all: Vec<_> = self.known.lock().values().filter_map(Weak::upgrade).collect();
        all.sort_by_cached_key(|identity| identity.id.to_string());
        all
    }
}

/// Keeps one identity certified for as long as somebody uses it.
async fn renew(client: Client, id: SpiffeId, identity: Weak<Identity>) {
    let mut retry = RETRY_FIRST;
    loop {
        let fetched = client.fetch(&id).await;
        let Some(identity) = identity.upgrade() else { return };
        let pause = match fetched {
            Ok(held) => {
                let pause = until_half_life(held.validity());
                tracing::info!(%id, serial = held.svid().serial(), "certificate taken up");
                identity.credentials.put(held);
                identity.certified.send_replace(true);
                retry = RETRY_FIRST;
                pause
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%id, %error, cause, "no certificate, trying again");
                let pause = retry;
                retry = (retry * 2).min(RETRY_LAST);
                pause
            }
        };
        drop(identity);
        tokio::time::sleep(pause).await;
    }
}

fn until_half_life(validity: Validity) -> Duration {
    let now = jiff::Timestamp::now().as_second();
    let middle = validity.not_before + (validity.not_after - validity.not_before) / 2;
    let seconds = u64::try_from(middle - now).unwrap_or(0);
    // Spread out, so that workloads started together do not renew together for ever.
    let spread = rand::random_range(0.9..=1.0);
    Duration::from_secs(seconds).mul_f64(spread).max(SOONEST)
}

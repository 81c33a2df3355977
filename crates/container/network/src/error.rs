//! What can go wrong while a network is made.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a network is not as it was asked to be.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A link of the name exists and is something else.
    #[error(
        "`{name}` is taken by a link that is not a bridge; remove it or name the bridge differently"
    )]
    Taken {
        /// The name.
        name: String,
    },

    /// The bridge a container is to join does not exist.
    #[error("there is no bridge `{name}`; the network has to be made first")]
    NoBridge {
        /// The bridge's name.
        name: String,
    },

    /// The kernel would not do one of the steps.
    #[error("{attempt} `{object}`")]
    Refused {
        /// What was being attempted.
        attempt: &'static str,
        /// On what.
        object: String,
        /// Why not.
        source: io::Error,
    },

    /// A namespace could not be made, opened or removed.
    #[error("{attempt} {}", .path.display())]
    Namespace {
        /// What was being attempted.
        attempt: &'static str,
        /// Where it is kept.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },

    /// The name server's sockets could not be had.
    #[error("listening for names on {address}; is another name server there?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// For `map_err`: what was attempted, and on what.
pub(crate) fn refused(
    attempt: &'static str,
    object: impl Into<String>,
) -> impl FnOnce(io::Error) -> NetworkError {
    let object = object.into();
    move |source| NetworkError::Refused { attempt, object, source }
}

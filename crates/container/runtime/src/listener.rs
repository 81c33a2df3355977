//! Handing over where to listen for system calls that a seccomp filter leaves to somebody else.
//!
//! The specification's container process state, with the descriptor, goes in one message to the
//! socket that `linux.seccomp.listenerPath` names.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use carrack_linux::socket;
use carrack_oci::runtime as oci;
use rustix::process::Pid;

/// Sends `listener`, for the process `pid` of the container whose state is `state`.
///
/// # Errors
///
/// When nobody listens at the path.
pub(crate) fn hand_over(
    spec: &oci::Spec,
    listener: &OwnedFd,
    pid: Option<Pid>,
    state: &str,
) -> io::Result<()> {
    let seccomp = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
    let seccomp = seccomp.ok_or_else(|| io::Error::other("the configuration has no filter"))?;
    let path = &seccomp.listener_path;
    let state: serde_json::Value = serde_json::from_str(state)?;
    let message = serde_json::json!({
        "ociVersion": oci::VERSION,
        "fds": ["seccompFd"],
        "pid": pid.map_or(0, |pid| pid.as_raw_nonzero().get()),
        "metadata": seccomp.listener_metadata,
        "state": state,
    });
    let send = || -> io::Result<()> {
        let stream = socket::connect(path)?;
        let message = message.to_string();
        let sent = socket::send(&stream, message.as_bytes(), &[listener.as_fd()])?;
        if sent < message.len() { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
    };
    send().map_err(|source| {
        let message = format!(
            "telling the seccomp listener at {} (linux.seccomp.listenerPath): {source}",
            path.display()
        );
        io::Error::new(source.kind(), message)
    })
}

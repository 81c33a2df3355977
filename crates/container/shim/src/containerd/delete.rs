//! The `delete` command: what a shim that died could not clean up itself.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::SystemTime;

use carrack_container_runtime::{ContainerId, Runtime};

use super::flags::Flags;
use super::service::exit_message;
use super::start::bundle;
use super::task::Exit;
use super::wire::Message;
use super::{record, rootfs};
use crate::error::chain;

/// Ends what is left of the container, and prints `DeleteResponse`.
pub(super) fn delete(flags: &Flags) -> io::Result<()> {
    let bundle = bundle(flags)?;
    let id: ContainerId = flags
        .id
        .parse()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, chain(&error)))?;
    let root =
        record::read_root(&bundle)?.unwrap_or_else(|| record::runtime_root(None, &flags.namespace));
    Runtime::new(root).delete(&id, true).map_err(|error| io::Error::other(chain(&error)))?;
    rootfs::unmount_all(&bundle.join("rootfs"))?;
    remove_socket(&bundle);
    let exit = record::read_exit(&bundle).unwrap_or_else(|| Exit {
        status: 128 + libc::SIGKILL.unsigned_abs(),
        at: SystemTime::now(),
    });
    let pid = record::read_pid(&bundle).unwrap_or(0);
    let response = Message::new().number(1, pid);
    let response = [response.into_bytes(), exit_message(2, exit).into_bytes()].concat();
    io::stdout().write_all(&response)?;
    io::stdout().flush()
}

/// A shim that died left its socket; one that lives for others of the pod keeps it.
fn remove_socket(bundle: &Path) {
    let Ok(address) = fs::read_to_string(bundle.join(record::ADDRESS)) else { return };
    let Some(path) = address.strip_prefix("unix://") else { return };
    if UnixStream::connect(path).is_err() {
        // It is not there when the shim ended in order.
        fs::remove_file(path).ok();
    }
}

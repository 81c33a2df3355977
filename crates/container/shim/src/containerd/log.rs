//! What the shim has to say: lines on standard error, which is the FIFO `log` in the
//! bundle that containerd reads.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether every call is told.
static DEBUG: AtomicBool = AtomicBool::new(false);

pub(super) fn set_debug(debug: bool) {
    DEBUG.store(debug, Ordering::Relaxed);
}

pub(super) fn warn(message: &str) {
    line("warning", message);
}

pub(super) fn error(message: &str) {
    line("error", message);
}

pub(super) fn debug(message: impl FnOnce() -> String) {
    if DEBUG.load(Ordering::Relaxed) {
        line("debug", &message());
    }
}

/// Where even that cannot be written nobody is left to be told; a FIFO nobody reads is full
/// one day, and the line is lost then.
fn line(level: &str, message: &str) {
    let now = jiff::Timestamp::now();
    let line = format!("time=\"{now}\" level={level} msg={message:?} shim=carrack\n");
    io::stderr().write_all(line.as_bytes()).ok();
}

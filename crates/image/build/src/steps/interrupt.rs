//! Stopping a build from outside.
//!
//! A container outlives whoever started it, which is what its shim is for. A
//! build that is told to stop therefore has to end the command it waits for.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use carrack_shim::Client;

use super::StepError;

/// What ends a command at once.
const KILL: i32 = 9;

/// Stops the builds of one builder. Clones stop the same builds.
#[derive(Clone, Debug, Default)]
pub struct Interrupter(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    asked: AtomicBool,
    /// The bundles of commands that run now.
    running: Mutex<BTreeSet<PathBuf>>,
}

impl Interrupter {
    /// Ends the commands that run now and lets no further step begin. The builds
    /// then fail, after taking down what they had set up.
    pub fn interrupt(&self) {
        self.0.asked.store(true, Ordering::SeqCst);
        for bundle in self.running().iter() {
            kill(bundle);
        }
    }

    /// Fails once the build is to stop.
    pub(crate) fn check(&self) -> Result<(), StepError> {
        if self.0.asked.load(Ordering::SeqCst) { Err(StepError::Interrupted) } else { Ok(()) }
    }

    /// Says that a command is about to run in `bundle`, until what comes back is dropped.
    pub(super) fn watch(&self, bundle: &Path) -> Watched<'_> {
        self.running().insert(bundle.to_owned());
        Watched { interrupter: self, bundle: bundle.to_owned() }
    }

    fn running(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A command that an interruption ends.
#[derive(Debug)]
pub(super) struct Watched<'a> {
    interrupter: &'a Interrupter,
    bundle: PathBuf,
}

impl Watched<'_> {
    /// To be called once the command can be killed: it may have been asked for before.
    pub(super) fn started(&self) {
        if self.interrupter.check().is_err() {
            kill(&self.bundle);
        }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.interrupter.running().remove(&self.bundle);
    }
}

fn kill(bundle: &Path) {
    if let Ok(client) = Client::connect(bundle) {
        // One that cannot be killed has ended, or is not there yet; see `Watched::started`.
        client.kill(KILL, true).ok();
    }
}

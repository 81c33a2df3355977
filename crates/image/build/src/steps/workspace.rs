//! The directories and mounts a step is done in, and the sweeping of those left behind.
//!
//! A workspace is a directory with a lock in it that its owner holds for as
//! long as it lives. A lock that can be taken has no owner: whatever is there
//! is debris. Directories are made and swept under one lock of their parent, so
//! that nobody mistakes one just made for an old one.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use carrack_linux::mount::{self, Attributes, Overlay};
use carrack_linux::rooted::RootedDir;
use rustix::fs::FlockOperation;

use super::{StepError, run};

/// Where workspaces are: each in `live`, beside a lock and an empty directory for all.
#[derive(Debug)]
pub(crate) struct Workspaces {
    directory: PathBuf,
    /// Where containers of steps have their sockets; short, as socket paths must be.
    run_directory: PathBuf,
}

impl Workspaces {
    /// Opens the directory and sweeps what builds that died have left in it.
    pub(crate) fn open(directory: PathBuf, run_directory: PathBuf) -> Result<Self, StepError> {
        let workspaces = Self { directory, run_directory };
        let (live, empty) = (workspaces.live(), workspaces.directory.join("empty"));
        for directory in [&live, &empty, &workspaces.run_directory] {
            fs::create_dir_all(directory)
                .map_err(StepError::workspace("making the directory", directory))?;
        }
        workspaces.sweep()?;
        Ok(workspaces)
    }

    /// A new workspace on top of `layers`, the lowest first.
    pub(crate) fn create(&self, layers: &[PathBuf]) -> Result<Workspace, StepError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{number}", std::process::id());
        let directory = self.live().join(&id);
        let failed = StepError::workspace("making the workspace", &directory);
        let make = || -> io::Result<(File, OwnedFd)> {
            let lock = {
                let _guard = self.lock()?;
                remove_directory(&directory)?;
                fs::create_dir(&directory)?;
                let lock = File::open(&directory)?;
                rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
                lock
            };
            for name in ["empty", "upper", "work"] {
                fs::create_dir(directory.join(name))?;
            }
            // What is in the upper directory becomes a layer, or nothing: no need to
            // wait for the disk before the layer is written.
            let mount = overlay(layers, &directory, true)?;
            Ok((lock, mount))
        };
        let (lock, mount) = make().map_err(failed)?;
        let run_directory = self.run_directory.join(&id);
        let finished = Finished { directory: directory.clone(), lock: Some(lock) };
        Ok(Workspace { id, directory, run_directory, mount, finished })
    }

    /// A view of `layers` that nobody writes to, mounted nowhere.
    pub(crate) fn view(&self, layers: &[PathBuf]) -> Result<RootedDir, StepError> {
        let view = overlay(layers, &self.directory, false).map(RootedDir::from_fd);
        view.map_err(StepError::workspace("mounting the layers below", &self.directory))
    }

    fn live(&self) -> PathBuf {
        self.directory.join("live")
    }

    fn lock(&self) -> io::Result<File> {
        let lock = File::create(self.directory.join("lock"))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
        Ok(lock)
    }

    fn sweep(&self) -> Result<(), StepError> {
        let failed = StepError::workspace("sweeping", &self.directory);
        let stale = || -> io::Result<Vec<(File, PathBuf)>> {
            let _guard = self.lock()?;
            let mut stale = Vec::new();
            for entry in fs::read_dir(self.live())? {
                let path = entry?.path();
                // The directory is its own lock, so that one which its maker removes just
                // now is either locked or gone.
                let lock = match File::open(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    opened => opened?,
                };
                if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
                    stale.push((lock, path));
                }
            }
            Ok(stale)
        };
        // The locks are held to the end, so that two builds do not sweep the same one.
        for (_lock, path) in stale().map_err(failed)? {
            let id = path.file_name().unwrap_or_default();
            run::clear(&path, &self.run_directory.join(id))?;
            remove_directory(&path).map_err(StepError::workspace("removing", &path))?;
        }
        Ok(())
    }
}

/// An overlay of `layers` with the `upper`, `work` and `empty` of `directory`, attached to nothing.
fn overlay(layers: &[PathBuf], directory: &Path, writable: bool) -> io::Result<OwnedFd> {
    // An overlay needs a layer, and one that is only read needs two.
    let mut lower: Vec<PathBuf> = layers.iter().rev().cloned().collect();
    if lower.len() < 2 {
        lower.push(directory.join("empty"));
    }
    if lower.len() < 2 && !writable {
        return mount::clone_tree(RootedDir::open(&directory.join("empty"))?.root(), false);
    }
    let (upper, work) = (directory.join("upper"), directory.join("work"));
    let upper = writable.then_some((upper.as_path(), work.as_path()));
    Overlay { lower: &lower, upper, volatile: true }.mount(Attributes::default())
}

/// A root filesystem that one step changes. Goes away when dropped.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(super) id: String,
    pub(super) directory: PathBuf,
    pub(super) run_directory: PathBuf,
    // Dropped in this order: the mount, then what it is mounted from.
    mount: OwnedFd,
    finished: Finished,
}

impl Workspace {
    /// The root filesystem as the step sees and changes it.
    pub(crate) fn root(&self) -> Result<RootedDir, StepError> {
        let clone = self.mount.try_clone().map(RootedDir::from_fd);
        clone.map_err(StepError::workspace("holding", &self.directory))
    }

    /// Makes the root filesystem appear at `target`, a directory.
    pub(super) fn attach(&self, target: &Path) -> io::Result<()> {
        let target = RootedDir::open(target)?;
        mount::attach(self.mount.as_fd(), target.root())
    }

    /// Ends the mount and hands over the directory that holds what was changed.
    pub(crate) fn finish(self) -> Finished {
        self.finished
    }
}

/// What a step has changed. Goes away when dropped, unless something of a command
/// still stands: then the next build sweeps it.
#[derive(Debug)]
pub(crate) struct Finished {
    directory: PathBuf,
    lock: Option<File>,
}

impl Finished {
    pub(crate) fn upper(&self) -> PathBuf {
        self.directory.join("upper")
    }
}

impl Drop for Finished {
    fn drop(&mut self) {
        if !run::is_noted(&self.directory) {
            // What stays is swept by the next build.
            remove_directory(&self.directory).ok();
        }
        drop(self.lock.take());
    }
}

fn remove_directory(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

//! A root filesystem for a container: its image's layers below, its own writes above.
//!
//! ```text
//! DIR/<id>/upper/   what the container has written
//! DIR/<id>/work/    overlayfs's own
//! DIR/.empty/       what is below when there are no layers
//! ```

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use carrack_linux::mount::{self, Attributes, Overlay};
use carrack_linux::rooted::RootedDir;
use rustix::io::Errno;

/// What is below when there are no layers.
const EMPTY: &str = ".empty";

/// The root filesystems in one directory.
#[derive(Clone, Debug)]
pub struct Rootfs {
    directory: Arc<Path>,
}

/// Whether what is written shall last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keeping {
    Lasting,
    Scratch,
}

impl Rootfs {
    /// Opens the root filesystems in `directory`, making it if it is missing.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, RootfsError> {
        let directory: PathBuf = directory.into();
        let rootfs = Self { directory: Arc::from(directory) };
        // Not for others to see: what is in it may be set-user-id.
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder
            .create(&rootfs.directory)
            .and_then(|()| builder.create(rootfs.directory.join(EMPTY)))
            .and_then(|()| {
                let mode = fs::Permissions::from_mode(0o755);
                fs::set_permissions(rootfs.directory.join(EMPTY), mode)
            })
            .map_err(|source| rootfs.failed("opening", "", source))?;
        Ok(rootfs)
    }

    /// Mounts the root filesystem of `id` at `target`: `layers`, the lowest first,
    /// below what `id` has written. What it wrote before is still there. `target` is
    /// made if it is missing; what is mounted there already is taken away.
    ///
    /// # Errors
    ///
    /// When it cannot be mounted. Then nothing is.
    pub fn prepare(&self, id: &str, layers: &[PathBuf], target: &Path) -> Result<(), RootfsError> {
        self.mount(id, layers, target, Keeping::Lasting)
    }

    /// As [`Rootfs::prepare`], for a tree that is thrown away after a crash: writing
    /// to it never waits for the disk.
    ///
    /// # Errors
    ///
    /// As [`Rootfs::prepare`]; and when a crash has left one under `id`, which
    /// [`Rootfs::remove`] clears away.
    pub fn prepare_scratch(
        &self,
        id: &str,
        layers: &[PathBuf],
        target: &Path,
    ) -> Result<(), RootfsError> {
        self.mount(id, layers, target, Keeping::Scratch)
    }

    /// Mounts `layers`, the lowest first, at `target`, for reading only.
    ///
    /// # Errors
    ///
    /// When they cannot be mounted.
    pub fn view(&self, layers: &[PathBuf], target: &Path) -> Result<(), RootfsError> {
        let id = target.display().to_string();
        let mut lower = self.lower(layers);
        if lower.len() == 1 {
            // Without an upper directory overlayfs wants two.
            lower.push(self.directory.join(EMPTY));
        }
        let overlay = Overlay { lower: &lower, upper: None, volatile: false };
        attach(&overlay, target).map_err(|source| self.failed("mounting", &id, source))
    }

    /// Takes away what is mounted at `target`, if anything is.
    ///
    /// # Errors
    ///
    /// When it cannot be taken away.
    pub fn unmount(&self, target: &Path) -> Result<(), RootfsError> {
        detach_all(target)
            .map_err(|source| self.failed("unmounting", &target.display().to_string(), source))
    }

    /// Where what `id` writes is kept.
    ///
    /// # Errors
    ///
    /// When `id` is not a name.
    pub fn upper(&self, id: &str) -> Result<PathBuf, RootfsError> {
        Ok(self.place(id)?.join("upper"))
    }

    /// Removes everything `id` has written, if there is anything. The caller has
    /// unmounted it.
    ///
    /// # Errors
    ///
    /// When it cannot be removed.
    pub fn remove(&self, id: &str) -> Result<(), RootfsError> {
        match fs::remove_dir_all(self.place(id)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.failed("removing", id, error))
            }
            _ => Ok(()),
        }
    }

    /// Every id that has something here, mounted or not.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read.
    pub fn list(&self) -> Result<Vec<String>, RootfsError> {
        let failed = |source| self.failed("listing", "", source);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            found.extend(name.into_string().ok().filter(|name| name != EMPTY));
        }
        found.sort();
        Ok(found)
    }

    fn mount(
        &self,
        id: &str,
        layers: &[PathBuf],
        target: &Path,
        keeping: Keeping,
    ) -> Result<(), RootfsError> {
        let place = self.place(id)?;
        let (upper, work) = (place.join("upper"), place.join("work"));
        let lower = self.lower(layers);
        let failed = |source| self.failed("mounting", id, source);
        make_upper(&upper, lower.first()).map_err(failed)?;
        fs::create_dir_all(&work).map_err(failed)?;
        let overlay = Overlay {
            lower: &lower,
            upper: Some((&upper, &work)),
            volatile: keeping == Keeping::Scratch,
        };
        attach(&overlay, target).map_err(failed)
    }

    /// The directories below, the uppermost first, as overlayfs wants them.
    fn lower(&self, layers: &[PathBuf]) -> Vec<PathBuf> {
        if layers.is_empty() {
            return vec![self.directory.join(EMPTY)];
        }
        layers.iter().rev().cloned().collect()
    }

    fn place(&self, id: &str) -> Result<PathBuf, RootfsError> {
        let mut parts = Path::new(id).components();
        match (parts.next(), parts.next()) {
            (Some(Component::Normal(name)), None) if !id.starts_with('.') => {
                Ok(self.directory.join(name))
            }
            _ => Err(RootfsError::Id(id.to_owned())),
        }
    }

    fn failed(&self, doing: &'static str, id: &str, source: io::Error) -> RootfsError {
        RootfsError::Io {
            doing,
            id: id.to_owned(),
            directory: self.directory.to_path_buf(),
            source,
        }
    }
}

/// Makes the upper directory look like the root of the uppermost layer: its mode and
/// owner are what the container sees as those of `/`.
fn make_upper(upper: &Path, uppermost: Option<&PathBuf>) -> io::Result<()> {
    if upper.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(upper)?;
    let Some(uppermost) = uppermost else {
        return fs::set_permissions(upper, fs::Permissions::from_mode(0o755));
    };
    let root = fs::metadata(uppermost)?;
    std::os::unix::fs::chown(upper, Some(root.uid()), Some(root.gid()))?;
    fs::set_permissions(upper, fs::Permissions::from_mode(root.mode() & 0o7777))
}

fn attach(overlay: &Overlay<'_>, target: &Path) -> io::Result<()> {
    fs::create_dir_all(target)?;
    detach_all(target)?;
    let mount = overlay.mount(Attributes::default())?;
    let place = RootedDir::open(target)?;
    mount::attach(mount.as_fd(), place.root())
}

fn detach_all(target: &Path) -> io::Result<()> {
    loop {
        match mount::detach(target) {
            Ok(()) => {}
            // Nothing is mounted there, or there is nothing there.
            Err(error)
                if matches!(Errno::from_io_error(&error), Some(Errno::INVAL | Errno::NOENT)) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
}

/// Why a root filesystem cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootfsError {
    /// The id could not be the name of a directory.
    #[error(
        "`{0}` cannot be the id of a root filesystem; it must be one name without a dot in front"
    )]
    Id(String),
    /// The disk or the kernel refused.
    #[error("{doing} root filesystem `{id}` in {}", directory.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which one.
        id: String,
        /// Where they are.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
}

//! Paths that cannot leave their root.
//!
//! ```text
//! RootedDir ──openat2(RESOLVE_IN_ROOT)──▶ descriptor ──*at(descriptor, name)──▶ effect
//! ```
//!
//! Whoever fills a root filesystem also decides what its symbolic links say, and may
//! exchange them while we look. So a path below a root is resolved by the kernel in
//! one step, with the root as its `/`, and everything after happens on the descriptor
//! that came back. `..` stops at the root, an absolute link starts at the root, and the
//! magic links of `/proc` are refused.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Dev, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Dangling links followed while creating directories, as many as the kernel follows.
const MAX_LINKS: u32 = 40;

/// Lookups retried when somebody renames below the root at the same time.
const MAX_RETRIES: u32 = 128;

/// A directory that acts as `/` for every path resolved through it.
#[derive(Debug)]
pub struct RootedDir {
    root: OwnedFd,
}

/// A name that may not exist yet, in a directory that does.
///
/// The name is a single component, never `.` or `..`, so `*at` calls on the pair stay
/// in that directory as long as they do not follow a link at the end.
#[derive(Debug)]
pub struct Entry {
    /// The directory, opened for reading.
    pub directory: OwnedFd,
    /// The name in it.
    pub name: OsString,
}

impl RootedDir {
    /// Takes the directory at `path`, which the caller trusts, as a root.
    ///
    /// # Errors
    ///
    /// When `path` is not a directory or cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { root: rustix::fs::open(path, flags, Mode::empty())? })
    }

    /// Takes an open directory as a root.
    pub fn from_fd(root: OwnedFd) -> Self {
        Self { root }
    }

    /// The root itself.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Gives up the root's descriptor.
    pub fn into_fd(self) -> OwnedFd {
        self.root
    }

    /// A second handle on the same root.
    ///
    /// # Errors
    ///
    /// When no descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { root: self.root.try_clone()? })
    }

    /// Opens `path` with `flags`, following links inside the root.
    ///
    /// With `O_CREAT` the file gets `mode`, subject to the umask; add `O_NOFOLLOW` to
    /// refuse a link at the end of the path.
    ///
    /// # Errors
    ///
    /// As `openat2`; `ELOOP` for a magic link.
    pub fn open_with(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        Ok(open_in(self.root.as_fd(), path, flags, mode)?)
    }

    /// Opens `path` in the root's own mount: no link on the way, and nothing mounted over it.
    ///
    /// # Errors
    ///
    /// As `openat2`; `EXDEV` for a mount, `ELOOP` for a link.
    pub fn open_own(&self, path: impl AsRef<Path>, flags: OFlags) -> io::Result<OwnedFd> {
        let path = path.as_ref();
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        let flags = flags | OFlags::CLOEXEC;
        Ok(rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve)?)
    }

    /// A handle on what `path` leads to, fit for `*at` calls, `fstat` and mounting.
    ///
    /// # Errors
    ///
    /// As `openat2`.
    pub fn handle(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open_with(path, OFlags::PATH, Mode::empty())
    }

    /// A handle on `path` itself, even when it is a symbolic link.
    ///
    /// # Errors
    ///
    /// As `openat2`.
    pub fn handle_nofollow(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open_with(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())
    }

    /// The directory at `path`, opened for reading.
    ///
    /// # Errors
    ///
    /// As `openat2`; `ENOTDIR` when it is something else.
    pub fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open_with(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
    }

    /// The directory at `path` as a root of its own.
    ///
    /// # Errors
    ///
    /// As [`Self::directory`].
    pub fn subdirectory(&self, path: &Path) -> io::Result<Self> {
        self.open_with(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).map(Self::from_fd)
    }

    /// The existing directory that holds `path`, and the last name of `path` in it.
    ///
    /// Links are followed on the way to the directory, not at the end.
    ///
    /// # Errors
    ///
    /// `EINVAL` when `path` ends in `..` or is the root itself; as `openat2` otherwise.
    pub fn entry(&self, path: &Path) -> io::Result<Entry> {
        let (parent, name) = split(path)?;
        Ok(Entry { directory: self.directory(parent)?, name: name.to_owned() })
    }

    /// As [`Self::entry`], creating the directories that are missing with `mode`.
    ///
    /// # Errors
    ///
    /// As [`Self::entry`] and [`Self::make_directories`].
    pub fn make_entry(&self, path: &Path, mode: u32) -> io::Result<Entry> {
        let (parent, name) = split(path)?;
        Ok(Entry { directory: self.make_directories(parent, mode)?, name: name.to_owned() })
    }

    /// The directory at `path`, opened for reading; what is missing of it is created.
    ///
    /// Created directories get exactly `mode`. A dangling link on the way has its target
    /// created, inside the root. Racing with another caller is fine: both succeed.
    ///
    /// # Errors
    ///
    /// `ENOTDIR` when something else is in the way; as `mkdirat` otherwise.
    pub fn make_directories(&self, path: &Path, mode: u32) -> io::Result<OwnedFd> {
        self.make_directories_following(path, mode, MAX_LINKS)
    }

    fn make_directories_following(
        &self,
        path: &Path,
        mode: u32,
        links: u32,
    ) -> io::Result<OwnedFd> {
        match self.directory(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
        let (parent, name) = match path.components().next_back() {
            Some(Component::ParentDir) => {
                // `a/..` with `a` missing: create `a`, and the kernel can walk back.
                drop(self.make_directories_following(parent_of(path), mode, links)?);
                return self.directory(path);
            }
            Some(_) | None => split(path)?,
        };
        let directory = self.make_directories_following(parent, mode, links)?;
        match rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(mode)) {
            Ok(()) => {
                // Somebody may have put another in its place; a mount point at least, whose
                // mode may be that of a directory of the host, is none we made.
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
                let flags = directory_flags() | OFlags::CLOEXEC;
                match rustix::fs::openat2(&directory, name, flags, Mode::empty(), resolve) {
                    Ok(made) => {
                        rustix::fs::fchmod(&made, Mode::from_raw_mode(mode))?;
                        Ok(made)
                    }
                    Err(_) => self.directory(path),
                }
            }
            Err(Errno::EXIST) => self.follow_dangling(&directory, path, name, mode, links),
            Err(error) => Err(error.into()),
        }
    }

    /// `name` exists although `path` could not be opened: it appeared meanwhile, or is a
    /// link whose target is missing.
    fn follow_dangling(
        &self,
        directory: &OwnedFd,
        path: &Path,
        name: &OsStr,
        mode: u32,
        links: u32,
    ) -> io::Result<OwnedFd> {
        let target = match rustix::fs::readlinkat(directory, name, Vec::new()) {
            Ok(target) => target,
            Err(Errno::INVAL) => return self.directory(path),
            Err(error) => return Err(error.into()),
        };
        let links = links.checked_sub(1).ok_or(Errno::LOOP)?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        let followed = if target.is_absolute() { target } else { parent_of(path).join(target) };
        self.make_directories_following(&followed, mode, links)
    }

    /// An empty regular file at `path` and the directories above it, unless something
    /// is there already; a handle on whatever is there then.
    ///
    /// # Errors
    ///
    /// As [`Self::make_directories`] and `openat2`.
    pub fn make_file(&self, path: &Path, mode: u32) -> io::Result<OwnedFd> {
        match self.handle(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
        let (parent, _) = split(path)?;
        drop(self.make_directories(parent, 0o755)?);
        let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::NONBLOCK | OFlags::NOCTTY;
        self.open_with(path, flags, Mode::from_raw_mode(mode))
    }
}

impl Entry {
    /// What the name stands for, without following a link.
    ///
    /// # Errors
    ///
    /// As `fstatat`.
    pub fn stat(&self) -> io::Result<rustix::fs::Stat> {
        Ok(rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Makes a symbolic link of that name, unless something has it; whether it did.
    ///
    /// # Errors
    ///
    /// As `symlinkat`.
    pub fn make_link(&self, points_to: &str) -> io::Result<bool> {
        match rustix::fs::symlinkat(points_to, &self.directory, &self.name) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a device or a FIFO of that name, with `mode` less the umask; whether it did,
    /// or something has the name.
    ///
    /// # Errors
    ///
    /// As `mknodat`.
    pub fn make_node(&self, kind: FileType, mode: u32, device: Dev) -> io::Result<bool> {
        let mode = Mode::from_raw_mode(mode);
        match rustix::fs::mknodat(&self.directory, &self.name, kind, mode, device) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// A handle on what has the name, even when that is a symbolic link.
    ///
    /// # Errors
    ///
    /// As `openat`.
    pub fn handle(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.directory, &self.name, flags, Mode::empty())?)
    }

    /// Removes the file or link; a missing one is fine.
    ///
    /// # Errors
    ///
    /// As `unlinkat`.
    pub fn remove_file(&self) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW
}

/// Opens `path` with `directory` as its root, again while others rename below it.
fn open_in(
    directory: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC;
    for _ in 0..MAX_RETRIES {
        match rustix::fs::openat2(directory, path, flags, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            answer => return answer,
        }
    }
    Err(Errno::AGAIN)
}

/// What a symbolic link says, given a handle on the link itself.
///
/// # Errors
///
/// `ENOENT` when the handle is on something else.
pub fn link_text(link: BorrowedFd<'_>) -> io::Result<PathBuf> {
    let text = rustix::fs::readlinkat(link, "", Vec::new())?;
    Ok(PathBuf::from(OsString::from_vec(text.into_bytes())))
}

/// The path up to its last name, and that name.
fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    match path.components().next_back() {
        Some(Component::Normal(name)) => Ok((parent_of(path), name)),
        Some(_) | None => {
            let message = format!("{} does not end in a name", path.display());
            Err(io::Error::new(io::ErrorKind::InvalidInput, message))
        }
    }
}

fn parent_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    struct Tree {
        outer: tempfile::TempDir,
        root: RootedDir,
    }

    fn tree() -> Tree {
        let outer = tempfile::tempdir().unwrap();
        std::fs::create_dir(outer.path().join("root")).unwrap();
        std::fs::write(outer.path().join("secret"), b"host").unwrap();
        let root = RootedDir::open(&outer.path().join("root")).unwrap();
        Tree { outer, root }
    }

    impl Tree {
        fn inside(&self, path: &str) -> PathBuf {
            self.outer.path().join("root").join(path)
        }
    }

    #[test]
    fn dot_dot_stops_at_the_root() {
        let tree = tree();
        let error = tree.root.handle(Path::new("../secret")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        tree.root.make_directories(Path::new("../../made"), 0o755).unwrap();
        assert!(tree.inside("made").is_dir());
        assert!(!tree.outer.path().join("made").exists());
    }

    #[test]
    fn an_absolute_link_starts_at_the_root() {
        let tree = tree();
        symlink("/etc", tree.inside("link")).unwrap();
        tree.root.make_directories(Path::new("link/conf.d"), 0o755).unwrap();
        assert!(tree.inside("etc/conf.d").is_dir());
        assert!(!Path::new("/etc/conf.d/carrack").exists());
    }

    #[test]
    fn a_dangling_relative_link_has_its_target_created_inside() {
        let tree = tree();
        std::fs::create_dir(tree.inside("a")).unwrap();
        symlink("../../../b/c", tree.inside("a/link")).unwrap();
        tree.root.make_file(Path::new("/a/link/d/file"), 0o644).unwrap();
        assert!(tree.inside("b/c/d/file").is_file());
    }

    #[test]
    fn a_loop_of_links_is_refused() {
        let tree = tree();
        symlink("two", tree.inside("one")).unwrap();
        symlink("one", tree.inside("two")).unwrap();
        tree.root.make_directories(Path::new("one/x"), 0o755).unwrap_err();
    }

    #[test]
    fn magic_links_are_refused() {
        let root = RootedDir::open(Path::new("/")).unwrap();
        let error = root.handle(Path::new("/proc/self/fd/0/x")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
    }

    #[test]
    fn created_directories_have_the_mode_asked_for_whatever_the_umask() {
        let tree = tree();
        tree.root.make_directories(Path::new("x/y"), 0o777).unwrap();
        let mode = std::fs::metadata(tree.inside("x/y")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o777);
    }

    #[test]
    fn a_file_that_exists_is_left_alone() {
        let tree = tree();
        std::fs::write(tree.inside("f"), b"kept").unwrap();
        tree.root.make_file(Path::new("f"), 0o644).unwrap();
        assert_eq!(std::fs::read(tree.inside("f")).unwrap(), b"kept");
    }

    #[test]
    fn an_entry_names_a_link_and_not_its_target() {
        let tree = tree();
        symlink("../secret", tree.inside("link")).unwrap();
        tree.root.entry(Path::new("link")).unwrap().remove_file().unwrap();
        assert!(tree.inside("link").symlink_metadata().is_err());
        assert!(tree.outer.path().join("secret").exists());
        tree.root.entry(Path::new("x/..")).unwrap_err();
        tree.root.entry(Path::new("/")).unwrap_err();
    }
}

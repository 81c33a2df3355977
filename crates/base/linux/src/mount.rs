//! The descriptor-based mount interface.
//!
//! ```text
//! Filesystem::open ─set─▶ mount ─┐
//! clone_tree ────────────────────┴▶ detached mount ──set_attributes──▶ attach(target descriptor)
//! ```
//!
//! A mount is made first, attached to nothing, and placed last, onto a descriptor the
//! caller already holds. No path is looked up in between, so there is no moment at which
//! a link could be exchanged under us.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

bitflags::bitflags! {
    /// What a mount refuses, whatever the file system below it allows.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Attributes: u64 {
        /// Nothing can be written.
        const READ_ONLY = libc::MOUNT_ATTR_RDONLY;
        /// Set-user-id bits and file capabilities have no effect.
        const NO_SUID = libc::MOUNT_ATTR_NOSUID;
        /// Device nodes cannot be opened.
        const NO_DEV = libc::MOUNT_ATTR_NODEV;
        /// Nothing can be executed.
        const NO_EXEC = libc::MOUNT_ATTR_NOEXEC;
        /// Access times are never updated.
        const NO_ATIME = libc::MOUNT_ATTR_NOATIME;
        /// Access times are always updated.
        const STRICT_ATIME = libc::MOUNT_ATTR_STRICTATIME;
        /// Access times of directories are never updated.
        const NO_DIR_ATIME = libc::MOUNT_ATTR_NODIRATIME;
        /// Symbolic links are not followed.
        const NO_SYMFOLLOW = libc::MOUNT_ATTR_NOSYMFOLLOW;
    }
}

/// The bits of [`Attributes`] that together hold one setting for access times.
const ATIME_MASK: u64 = libc::MOUNT_ATTR__ATIME;

/// Where mounts and unmounts travel to and from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Nowhere.
    Private,
    /// To and from the peers.
    Shared,
    /// From the master to here.
    Slave,
    /// Nowhere, and the mount cannot be bound elsewhere.
    Unbindable,
}

impl Propagation {
    fn bits(self) -> u64 {
        match self {
            Self::Private => libc::MS_PRIVATE,
            Self::Shared => libc::MS_SHARED,
            Self::Slave => libc::MS_SLAVE,
            Self::Unbindable => libc::MS_UNBINDABLE,
        }
    }

    fn flags(self) -> MountPropagationFlags {
        match self {
            Self::Private => MountPropagationFlags::PRIVATE,
            Self::Shared => MountPropagationFlags::SHARED,
            Self::Slave => MountPropagationFlags::DOWNSTREAM,
            Self::Unbindable => MountPropagationFlags::UNBINDABLE,
        }
    }
}

/// A change to make to a mount, or to a whole tree of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    /// Attributes to add.
    pub set: Attributes,
    /// Attributes to take away.
    pub clear: Attributes,
    /// The new propagation, if it changes.
    pub propagation: Option<Propagation>,
}

/// A file system being configured, before it is mounted.
#[derive(Debug)]
pub struct Filesystem {
    context: OwnedFd,
    kind: String,
}

impl Filesystem {
    /// Starts to configure a new file system of the given type, such as `tmpfs`.
    ///
    /// # Errors
    ///
    /// `ENODEV` when the kernel does not have it.
    pub fn open(kind: &str) -> io::Result<Self> {
        let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)
            .map_err(|errno| annotate(errno, &format!("file system {kind}")))?;
        Ok(Self { context, kind: kind.to_owned() })
    }

    /// Sets an option that has a value.
    ///
    /// # Errors
    ///
    /// With the kernel's own message where it left one.
    pub fn set(&self, key: &str, value: &str) -> io::Result<()> {
        rustix::mount::fsconfig_set_string(self.context.as_fd(), key, value)
            .map_err(|errno| self.explain(errno, &format!("{key}={value}")))
    }

    /// Sets an option whose value is a path.
    ///
    /// # Errors
    ///
    /// With the kernel's own message where it left one.
    pub fn set_path(&self, key: &str, value: &Path) -> io::Result<()> {
        rustix::mount::fsconfig_set_string(self.context.as_fd(), key, value)
            .map_err(|errno| self.explain(errno, &format!("{key}={}", value.display())))
    }

    /// Sets an option that has no value.
    ///
    /// # Errors
    ///
    /// With the kernel's own message where it left one.
    pub fn flag(&self, key: &str) -> io::Result<()> {
        rustix::mount::fsconfig_set_flag(self.context.as_fd(), key)
            .map_err(|errno| self.explain(errno, key))
    }

    /// Makes the file system and a mount of it, attached to nothing yet.
    ///
    /// # Errors
    ///
    /// With the kernel's own message where it left one.
    pub fn mount(self, attributes: Attributes) -> io::Result<OwnedFd> {
        rustix::mount::fsconfig_create(self.context.as_fd())
            .map_err(|errno| self.explain(errno, "create"))?;
        let bits = u32::try_from(attributes.bits()).map_err(io::Error::other)?;
        let attributes = MountAttrFlags::from_bits_retain(bits);
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        rustix::mount::fsmount(self.context.as_fd(), flags, attributes)
            .map_err(|errno| self.explain(errno, "mount"))
    }

    /// Adds what the kernel wrote into the context's log.
    fn explain(&self, errno: Errno, attempt: &str) -> io::Error {
        let mut message = [0; 512];
        let said = rustix::io::read(&self.context, &mut message).unwrap_or(0);
        let said = String::from_utf8_lossy(message.get(..said).unwrap_or_default()).into_owned();
        let said = said.trim_start_matches("e ").trim();
        let kind = &self.kind;
        if said.is_empty() {
            annotate(errno, &format!("file system {kind}, {attempt}"))
        } else {
            annotate(errno, &format!("file system {kind}, {attempt} ({said})"))
        }
    }
}

/// An error that keeps its kind and says what it was about.
fn annotate(errno: Errno, about: &str) -> io::Error {
    let source = io::Error::from(errno);
    io::Error::new(source.kind(), format!("{about}: {source}"))
}

/// A copy of the mount (with `recursive`, of all mounts below it too) that holds
/// `directory`, rooted there and attached to nothing.
///
/// The directory, or file, is given by descriptor and never looked up again, so nobody
/// can swap it for another between the caller's check and this call.
///
/// # Errors
///
/// As `open_tree`.
pub fn clone_tree(directory: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    Ok(rustix::mount::open_tree(directory, "", flags)?)
}

/// Places a detached mount onto `target`.
///
/// From then on `mount` is a handle on the attached mount's root.
///
/// # Errors
///
/// As `move_mount`.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", target, "", flags)?)
}

/// Changes the mount that `mount` is the root of, and with `recursive` all below it.
///
/// # Errors
///
/// `EINVAL` when the descriptor is not the root of a mount; as `mount_setattr`.
pub fn set_attributes(mount: BorrowedFd<'_>, recursive: bool, change: Change) -> io::Result<()> {
    let touches_atime = (change.set | change.clear).bits() & ATIME_MASK != 0;
    let atime = if touches_atime { ATIME_MASK } else { 0 };
    mount_setattr(
        mount,
        recursive,
        &libc::mount_attr {
            attr_set: change.set.bits(),
            attr_clr: (change.clear.bits() & !ATIME_MASK) | atime,
            propagation: change.propagation.map_or(0, Propagation::bits),
            userns_fd: 0,
        },
    )
}

/// Shows the owners of a detached mount, and with `recursive` of all below it, as the user
/// namespace `map` maps them: who is `INSIDE` on the file system is `OUTSIDE` through the mount.
///
/// # Errors
///
/// `EINVAL` when a file system of it cannot be mapped, or the mount is attached already or mapped
/// already; `EPERM` when the namespace maps nobody.
pub fn map_ids(mount: BorrowedFd<'_>, recursive: bool, map: BorrowedFd<'_>) -> io::Result<()> {
    mount_setattr(
        mount,
        recursive,
        &libc::mount_attr {
            attr_set: libc::MOUNT_ATTR_IDMAP,
            attr_clr: 0,
            propagation: 0,
            userns_fd: u64::try_from(map.as_raw_fd()).map_err(io::Error::other)?,
        },
    )
}

/// Changes options of the file system that is mounted at `mount`, wherever it is mounted.
///
/// # Errors
///
/// With the kernel's own message where it left one.
pub fn reconfigure(mount: BorrowedFd<'_>, options: &[(&str, Option<&str>)]) -> io::Result<()> {
    use rustix::mount::FsPickFlags;
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
    let context = rustix::mount::fspick(mount, "", flags)?;
    let filesystem = Filesystem { context, kind: "mounted here".to_owned() };
    for (key, value) in options {
        match value {
            Some(value) => filesystem.set(key, value)?,
            None => filesystem.flag(key)?,
        }
    }
    rustix::mount::fsconfig_reconfigure(filesystem.context.as_fd())
        .map_err(|errno| filesystem.explain(errno, "reconfigure"))
}

/// Makes `directory` this process's `/`, and its working directory.
///
/// For a process that shares its mounts with others, whose root must stay; where it can,
/// [`pivot_root`] leaves nothing of the old root behind.
///
/// # Errors
///
/// As `chroot`.
pub fn change_root(directory: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::fchdir(directory)?;
    Ok(rustix::process::chroot(".")?)
}

fn mount_setattr(
    mount: BorrowedFd<'_>,
    recursive: bool,
    request: &libc::mount_attr,
) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let empty: &CStr = c"";
    // SAFETY: the path is a literal with its NUL; `request` is a whole `mount_attr` that
    // outlives the call, and its size is passed; `mount` is borrowed, so it stays open.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            empty.as_ptr(),
            flags,
            std::ptr::from_ref(request),
            size_of::<libc::mount_attr>(),
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Changes the propagation of everything mounted in this namespace, from `/` down.
///
/// # Errors
///
/// As `mount`.
pub fn set_root_propagation(propagation: Propagation) -> io::Result<()> {
    let flags = propagation.flags() | MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change("/", flags)?)
}

/// Changes the propagation of the mount at `path`, which the caller trusts.
///
/// # Errors
///
/// As `mount`.
pub fn set_propagation(path: &Path, propagation: Propagation) -> io::Result<()> {
    Ok(rustix::mount::mount_change(path, propagation.flags())?)
}

/// Makes `root`, the root of a mount, this process's `/`, and lets go of the old one.
///
/// The working directory is the new `/` afterwards.
///
/// # Errors
///
/// As `pivot_root`; part of the work may then be done, so the process should end.
pub fn pivot_root(root: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old = rustix::fs::open("/", flags, Mode::empty())?;
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    // The old root now lies on top of the new one; it leaves without telling its peers.
    rustix::process::fchdir(&old)?;
    rustix::mount::mount_change(
        ".",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// Takes away the mount at `path`, which the caller trusts; now, or when its last user
/// leaves.
///
/// # Errors
///
/// `EINVAL` when nothing is mounted there.
pub fn detach(path: &Path) -> io::Result<()> {
    let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    Ok(rustix::mount::unmount(path, flags)?)
}

/// The directories of an overlay.
#[derive(Clone, Debug)]
pub struct Overlay<'a> {
    /// Read-only layers, the uppermost first.
    pub lower: &'a [PathBuf],
    /// Where writes go, and the scratch directory beside it; without, nothing is written.
    pub upper: Option<(&'a Path, &'a Path)>,
    /// Answer without waiting for the disk on `fsync`: for trees nobody keeps.
    pub volatile: bool,
}

impl Overlay<'_> {
    /// An overlay of these directories, attached to nothing.
    ///
    /// # Errors
    ///
    /// With the kernel's own message where it left one. Linux before 6.7 takes about
    /// fifteen layers.
    pub fn mount(&self, attributes: Attributes) -> io::Result<OwnedFd> {
        let filesystem = Filesystem::open("overlay")?;
        filesystem.set("source", "overlay")?;
        // What the upper directory holds must be the changes and nothing that only
        // makes sense with these layers below: no redirects, no half-copied files.
        for option in ["redirect_dir", "metacopy", "index"] {
            filesystem.set(option, "off")?;
        }
        // Held until the mount is made: paths are handed over as those of descriptors,
        // since the kernel takes 255 bytes only.
        let lower =
            self.lower.iter().map(|layer| directory(layer)).collect::<io::Result<Vec<_>>>()?;
        set_lower(&filesystem, &lower)?;
        let mut held = Vec::with_capacity(2);
        if let Some((upper, work)) = self.upper {
            for (key, path) in [("upperdir", upper), ("workdir", work)] {
                let opened = directory(path)?;
                filesystem.set(key, &path_of(&opened))?;
                held.push(opened);
            }
        }
        if self.volatile {
            filesystem.flag("volatile")?;
        }
        filesystem.mount(attributes)
    }
}

/// Gives an overlay being configured its layers below, the uppermost first.
///
/// They are handed over as descriptors, which the caller keeps until the mount is made: the
/// kernel takes 255 bytes of a path only.
///
/// # Errors
///
/// When a directory cannot be opened. Linux before 6.7 takes about fifteen layers.
pub fn set_overlay_layers(filesystem: &Filesystem, layers: &[PathBuf]) -> io::Result<Vec<OwnedFd>> {
    let opened = layers.iter().map(|layer| directory(layer)).collect::<io::Result<Vec<_>>>()?;
    set_lower(filesystem, &opened)?;
    Ok(opened)
}

/// Gives an overlay being configured one directory, `upperdir` or `workdir`, by a descriptor
/// that the caller keeps until the mount is made.
///
/// # Errors
///
/// When the directory cannot be opened.
pub fn set_overlay_directory(
    filesystem: &Filesystem,
    key: &str,
    path: &Path,
) -> io::Result<OwnedFd> {
    let opened = directory(path)?;
    filesystem.set(key, &path_of(&opened))?;
    Ok(opened)
}

/// The layers below, one by one, or, where the kernel does not know that way (before
/// Linux 6.7), in one word.
fn set_lower(filesystem: &Filesystem, layers: &[OwnedFd]) -> io::Result<()> {
    for (number, layer) in layers.iter().enumerate() {
        match filesystem.set("lowerdir+", &path_of(layer)) {
            Err(error) if number == 0 && error.kind() == io::ErrorKind::InvalidInput => {
                return set_lower_at_once(filesystem, layers);
            }
            set => set?,
        }
    }
    Ok(())
}

fn set_lower_at_once(filesystem: &Filesystem, layers: &[OwnedFd]) -> io::Result<()> {
    /// What the kernel takes of one option.
    const LONGEST: usize = 255;
    let joined = layers.iter().map(path_of).collect::<Vec<_>>().join(":");
    if joined.len() > LONGEST {
        let message = format!(
            "{} layers are more than this kernel takes; Linux 6.7 takes them",
            layers.len()
        );
        return Err(io::Error::new(io::ErrorKind::Unsupported, message));
    }
    filesystem.set("lowerdir", &joined)
}

fn directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|errno| annotate(errno, &format!("directory {}", path.display())))
}

fn path_of(descriptor: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd())
}

/// A view of `directory`, attached to nothing, that no privilege can make writable: an
/// overlay with nowhere to write to.
///
/// # Errors
///
/// With the kernel's own message where it left one; some file systems cannot be seen
/// through an overlay.
pub fn read_only_view(directory: &Path) -> io::Result<OwnedFd> {
    // An overlay that writes nowhere needs two layers; the second is empty.
    let empty = Filesystem::open("tmpfs")?.mount(Attributes::READ_ONLY)?;
    let filesystem = Filesystem::open("overlay")?;
    // Held until the mount is made: the empty one is attached nowhere but here.
    let layers = [self::directory(directory)?, empty];
    set_lower(&filesystem, &layers)?;
    filesystem.mount(Attributes::READ_ONLY | Attributes::NO_SUID | Attributes::NO_DEV)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rooted::RootedDir;

    fn scratch() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_detached_tmpfs_holds_files_and_is_seen_nowhere() {
        let filesystem = Filesystem::open("tmpfs").unwrap();
        filesystem.set("size", "64k").unwrap();
        let mount = filesystem.mount(Attributes::NO_SUID | Attributes::NO_DEV).unwrap();
        let root = RootedDir::from_fd(mount);
        root.make_file(Path::new("a/b"), 0o644).unwrap();
    }

    #[test]
    fn a_wrong_option_is_named_with_the_file_system() {
        let error = Filesystem::open("tmpfs").unwrap().set("sice", "64k").unwrap_err();
        assert!(error.to_string().contains("tmpfs, sice=64k"), "{error}");
    }

    #[test]
    fn a_detached_copy_made_read_only_refuses_writes() {
        let directory = scratch();
        let handle = RootedDir::open(directory.path()).unwrap();
        let copy = clone_tree(handle.root(), false).unwrap();
        let change = Change { set: Attributes::READ_ONLY, ..Change::default() };
        set_attributes(copy.as_fd(), true, change).unwrap();
        let error = RootedDir::from_fd(copy).make_file(Path::new("x"), 0o644).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
        handle.make_file(Path::new("x"), 0o644).unwrap();
    }

    #[test]
    fn an_overlay_shows_the_uppermost_layer_and_writes_to_upper() {
        let directory = scratch();
        let [one, two, upper, work] =
            ["one", "two", "upper", "work"].map(|name| directory.path().join(name));
        for path in [&one, &two, &upper, &work] {
            std::fs::create_dir(path).unwrap();
        }
        std::fs::write(one.join("f"), b"below").unwrap();
        std::fs::write(two.join("f"), b"above").unwrap();
        let lower = [two, one];
        let overlay = Overlay { lower: &lower, upper: Some((&upper, &work)), volatile: false };
        let root = RootedDir::from_fd(overlay.mount(Attributes::default()).unwrap());
        let file = root.open_with(Path::new("f"), OFlags::RDONLY, Mode::empty()).unwrap();
        let mut seen = [0; 5];
        rustix::io::read(&file, &mut seen).unwrap();
        assert_eq!(&seen, b"above");
        root.make_file(Path::new("new"), 0o644).unwrap();
        assert!(upper.join("new").exists());
    }

    #[test]
    fn a_read_only_view_shows_what_is_there_and_takes_nothing() {
        let place = scratch();
        std::fs::write(place.path().join("f"), b"x").unwrap();
        let view = RootedDir::from_fd(read_only_view(place.path()).unwrap());
        view.open_with(Path::new("f"), OFlags::RDONLY, Mode::empty()).unwrap();
        let error = view.make_file(Path::new("g"), 0o644).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
    }

    #[test]
    fn layers_named_in_one_word_are_layered_alike() {
        let directory_of_both = scratch();
        let [one, two] = ["one", "two"].map(|name| directory_of_both.path().join(name));
        for path in [&one, &two] {
            std::fs::create_dir(path).unwrap();
            std::fs::write(path.join("f"), path.file_name().unwrap().as_encoded_bytes()).unwrap();
        }
        let filesystem = Filesystem::open("overlay").unwrap();
        let layers = [directory(&two).unwrap(), directory(&one).unwrap()];
        set_lower_at_once(&filesystem, &layers).unwrap();
        let root = RootedDir::from_fd(filesystem.mount(Attributes::READ_ONLY).unwrap());
        let file = root.open_with(Path::new("f"), OFlags::RDONLY, Mode::empty()).unwrap();
        let mut seen = [0; 3];
        rustix::io::read(&file, &mut seen).unwrap();
        assert_eq!(&seen, b"two");
    }

    #[test]
    fn more_layers_than_an_old_kernel_takes_are_refused_by_name() {
        let filesystem = Filesystem::open("overlay").unwrap();
        let layers: Vec<OwnedFd> = (0..40).map(|_| directory(Path::new("/")).unwrap()).collect();
        let error = set_lower_at_once(&filesystem, &layers).unwrap_err();
        assert!(error.to_string().contains("40 layers"), "{error}");
    }
}

//! Unpacking an archive into a directory it cannot leave.
//!
//! The path of every entry is resolved by the kernel, beneath a descriptor of the
//! root (`openat2`); after that only descriptors and single names are used. There
//! is no path a link could redirect between a check and a use.

mod error;
mod options;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use carrack_linux::rooted::RootedDir;
use carrack_oci::archive::{Device, Entry, Kind, Reader, shown};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chownat,
    fchmod, fchown, fsetxattr, futimens, linkat, makedev, mkdirat, mknodat, openat, statat,
    symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::attributes::{self, Fate};
use crate::path::{beneath, make_directories, open_directory};

pub use error::{ApplyError, Refusal};
pub use options::{ApplyOptions, Devices, Limits, Links, Whiteouts};

/// In front of a name that hides what lower layers have under it.
const WHITEOUT: &[u8] = b".wh.";
/// What hides everything lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// In front of names that carry bookkeeping of other programs.
const BOOKKEEPING: &[u8] = b".wh..wh.";

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// How many entries.
    pub entries: u64,
    /// How many bytes of content.
    pub bytes: u64,
}

/// Unpacks a tar archive into `root`.
///
/// Whatever the archive says, nothing outside `root` is read, made or changed. Whiteouts
/// hide what lower layers have, never what the same archive brings.
///
/// # Errors
///
/// When the archive is broken, beyond its limits, or has an entry that is refused.
/// Part of it is unpacked then; the caller throws that away.
pub fn apply(
    archive: impl Read,
    root: &RootedDir,
    options: &ApplyOptions,
) -> Result<Applied, ApplyError> {
    let mut reader = Reader::new(archive);
    let mut applier =
        Applier { root, options, parent: None, directories: Vec::new(), done: Applied::default() };
    while let Some(entry) = reader.next_entry().map_err(ApplyError::Archive)? {
        applier.admit(&entry)?;
        applier.apply(&entry, &mut reader)?;
    }
    applier.finish()
}

struct Applier<'a> {
    root: &'a RootedDir,
    options: &'a ApplyOptions,
    /// The directory of the entry before: most of the time it is this one's too.
    parent: Option<(PathBuf, OwnedFd)>,
    /// Directories whose time is set once nothing more is put into them.
    directories: Vec<(PathBuf, i64)>,
    done: Applied,
}

/// Where an entry goes: an open directory and a name in it.
struct Place {
    parent: OwnedFd,
    name: std::ffi::OsString,
}

impl Applier<'_> {
    fn admit(&mut self, entry: &Entry) -> Result<(), ApplyError> {
        let limits = self.options.limits;
        self.done.entries += 1;
        self.done.bytes = self.done.bytes.saturating_add(entry.size);
        if self.done.entries > limits.entries {
            return Err(ApplyError::TooManyEntries { limit: limits.entries });
        }
        if self.done.bytes > limits.bytes {
            return Err(ApplyError::TooLarge { limit: limits.bytes });
        }
        let steers = |name: &&Vec<u8>| attributes::fate(name) == Fate::Refused;
        match entry.attributes.keys().find(steers) {
            Some(name) => Err(refuse(entry, Refusal::Attribute(shown(name)))),
            None => Ok(()),
        }
    }

    fn apply(&mut self, entry: &Entry, content: &mut impl Read) -> Result<(), ApplyError> {
        let path = beneath(&entry.path).map_err(|_| refuse(entry, Refusal::Escapes))?;
        let Some(name) = path.file_name() else {
            return self.apply_root(entry);
        };
        let above = path.parent().unwrap_or(Path::new(""));
        let place = Place { parent: self.directory(above, entry)?, name: name.to_os_string() };
        if place.name.as_bytes().starts_with(WHITEOUT) {
            return self.hide(entry, &place, above);
        }
        match &entry.kind {
            Kind::File => self.file(entry, &place, content),
            Kind::Directory => self.make_directory(entry, &place, path),
            Kind::Symlink(target) => self.symlink(entry, &place, target),
            Kind::HardLink(target) => self.hard_link(entry, &place, target),
            Kind::Character(device) => {
                self.device(entry, &place, FileType::CharacterDevice, *device)
            }
            Kind::Block(device) => self.device(entry, &place, FileType::BlockDevice, *device),
            Kind::Fifo => self.node(entry, &place, FileType::Fifo, 0),
        }
    }

    fn apply_root(&mut self, entry: &Entry) -> Result<(), ApplyError> {
        if entry.kind != Kind::Directory {
            return Err(refuse(entry, Refusal::Root));
        }
        let root = self.directory(Path::new(""), entry)?;
        let parent = root.try_clone().map_err(|source| failed("opening", entry, source))?;
        let place = Place { parent, name: ".".into() };
        self.directories.push((PathBuf::new(), entry.modified));
        set_directory(entry, &place, &root).map_err(|source| failed("changing", entry, source))
    }

    /// The directory at `path`, made if it is missing.
    fn directory(&mut self, path: &Path, entry: &Entry) -> Result<OwnedFd, ApplyError> {
        if let Some((known, parent)) = &self.parent
            && known == path
        {
            return parent.try_clone().map_err(|source| failed("opening", entry, source));
        }
        let made = &mut self.directories;
        let found = match self.options.links {
            Links::Refuse => make_directories(self.root.root(), path, |path| made.push((path, 0))),
            Links::FollowInside => self.root.make_directories(path, 0o755),
        };
        let parent = found.map_err(|source| blocked(entry, source))?;
        let copy = parent.try_clone().map_err(|source| failed("opening", entry, source))?;
        self.parent = Some((path.to_owned(), copy));
        Ok(parent)
    }

    fn hide(&mut self, entry: &Entry, place: &Place, above: &Path) -> Result<(), ApplyError> {
        if self.options.whiteouts == Whiteouts::Refuse {
            return Err(refuse(entry, Refusal::WhiteoutOutsideLayer));
        }
        let name = place.name.as_bytes();
        if name == OPAQUE {
            if above.as_os_str().is_empty() {
                return Err(refuse(entry, Refusal::WhiteoutOfRoot));
            }
            return make_opaque(&place.parent)
                .map_err(|source| failed("hiding what is below", entry, source.into()));
        }
        let hidden = name.strip_prefix(WHITEOUT).unwrap_or(name);
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(refuse(entry, Refusal::WhiteoutOfRoot));
        }
        if name.starts_with(BOOKKEEPING) {
            return Err(refuse(entry, Refusal::Bookkeeping));
        }
        let hidden = OsStr::from_bytes(hidden);
        self.hide_name(place, hidden).map_err(|source| failed("hiding", entry, source.into()))
    }

    fn hide_name(&mut self, place: &Place, hidden: &OsStr) -> rustix::io::Result<()> {
        match look(&place.parent, hidden)? {
            None => {
                let kind = FileType::CharacterDevice;
                mknodat(&place.parent, hidden, kind, Mode::empty(), makedev(0, 0))
            }
            // This archive brings its own: only what is below it is hidden.
            Some(found) if is(&found, FileType::Directory) => {
                let directory = open_directory(place.parent.as_fd(), Path::new(hidden))?;
                make_opaque(&directory)
            }
            Some(_) => Ok(()),
        }
    }

    fn file(
        &mut self,
        entry: &Entry,
        place: &Place,
        content: &mut impl Read,
    ) -> Result<(), ApplyError> {
        self.make_way(entry, place)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = openat(&place.parent, &place.name, flags, Mode::from_raw_mode(0o600));
        let mut file = File::from(open.map_err(|source| failed("making", entry, source.into()))?);
        io::copy(content, &mut file).map_err(|source| failed("writing", entry, source))?;
        set_file(entry, place, &file).map_err(|source| failed("changing", entry, source))
    }

    fn make_directory(
        &mut self,
        entry: &Entry,
        place: &Place,
        path: PathBuf,
    ) -> Result<(), ApplyError> {
        let failed = |source: Errno| failed("making", entry, source.into());
        let found = look(&place.parent, &place.name).map_err(failed)?;
        let is_there = found.as_ref().is_some_and(|found| is(found, FileType::Directory));
        let follows = self.options.links == Links::FollowInside
            && found.as_ref().is_some_and(|found| is(found, FileType::Symlink));
        if follows && let Ok(target) = self.root.directory(&path) {
            // A directory that the root has by a link to one stays that link.
            drop(target);
            return Ok(());
        }
        if !is_there {
            let was_hidden = found.as_ref().is_some_and(is_whiteout);
            self.make_way(entry, place)?;
            mkdirat(&place.parent, &place.name, Mode::RWXU).map_err(failed)?;
            if was_hidden {
                self.open_and_hide(place).map_err(failed)?;
            }
        }
        let directory = open_directory(place.parent.as_fd(), Path::new(&place.name))
            .map_err(|source| blocked(entry, source.into()))?;
        self.directories.push((path, entry.modified));
        set_directory(entry, place, &directory)
            .map_err(|source| self::failed("changing", entry, source))
    }

    fn open_and_hide(&self, place: &Place) -> rustix::io::Result<()> {
        make_opaque(&open_directory(place.parent.as_fd(), Path::new(&place.name))?)
    }

    fn symlink(&mut self, entry: &Entry, place: &Place, target: &[u8]) -> Result<(), ApplyError> {
        self.make_way(entry, place)?;
        symlinkat(OsStr::from_bytes(target), &place.parent, &place.name)
            .map_err(|source| failed("making", entry, source.into()))?;
        set_node(entry, place).map_err(|source| failed("changing", entry, source))
    }

    fn hard_link(&mut self, entry: &Entry, place: &Place, target: &[u8]) -> Result<(), ApplyError> {
        let outside = || refuse(entry, Refusal::HardLink(shown(target)));
        let path = beneath(target).map_err(|_| outside())?;
        let name = path.file_name().ok_or_else(outside)?;
        let above = path.parent().unwrap_or(Path::new(""));
        let parent = match self.options.links {
            Links::Refuse => open_directory(self.root.root(), above).map_err(io::Error::from),
            Links::FollowInside => self.root.directory(above),
        };
        let parent = parent.map_err(|_| outside())?;
        let found = look(&parent, name).map_err(|_| outside())?.ok_or_else(outside)?;
        if is(&found, FileType::Directory) || is_whiteout(&found) {
            return Err(outside());
        }
        self.make_way(entry, place)?;
        linkat(&parent, name, &place.parent, &place.name, AtFlags::empty())
            .map_err(|source| failed("linking", entry, source.into()))
    }

    fn device(
        &mut self,
        entry: &Entry,
        place: &Place,
        kind: FileType,
        device: Device,
    ) -> Result<(), ApplyError> {
        let is_whiteout = (device.major, device.minor) == (0, 0);
        if self.options.devices == Devices::Refuse || is_whiteout {
            return Err(refuse(entry, Refusal::Device));
        }
        self.node(entry, place, kind, makedev(device.major, device.minor))
    }

    fn node(
        &mut self,
        entry: &Entry,
        place: &Place,
        kind: FileType,
        device: u64,
    ) -> Result<(), ApplyError> {
        self.make_way(entry, place)?;
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        mknodat(&place.parent, &place.name, kind, mode, device)
            .map_err(|source| failed("making", entry, source.into()))?;
        set_node(entry, place).map_err(|source| failed("changing", entry, source))
    }

    /// Removes what stands where `entry` goes: an earlier entry of the same name, a
    /// whiteout of it, or what an archive is unpacked over.
    fn make_way(&mut self, entry: &Entry, place: &Place) -> Result<(), ApplyError> {
        let failed = |source: io::Error| failed("replacing", entry, source);
        match look(&place.parent, &place.name).map_err(|source| failed(source.into()))? {
            None => Ok(()),
            Some(found) if is(&found, FileType::Directory) => {
                self.parent = None;
                let path = attributes::path_in(&place.parent, &place.name);
                std::fs::remove_dir_all(path).map_err(failed)
            }
            Some(_) => unlinkat(&place.parent, &place.name, AtFlags::empty())
                .map_err(|source| failed(source.into())),
        }
    }

    fn finish(self) -> Result<Applied, ApplyError> {
        for (path, modified) in self.directories.iter().rev() {
            let directory = match self.options.links {
                Links::Refuse => open_directory(self.root.root(), path).map_err(io::Error::from),
                Links::FollowInside => self.root.directory(path),
            };
            // A later entry may have replaced the directory by something else.
            let Ok(directory) = directory else { continue };
            futimens(&directory, &times(*modified)).map_err(|source| ApplyError::Io {
                doing: "changing",
                path: path.display().to_string(),
                source: source.into(),
            })?;
        }
        Ok(self.done)
    }
}

fn set_file(entry: &Entry, place: &Place, file: &File) -> io::Result<()> {
    let (user, group) = owner(entry)?;
    fchown(file, Some(user), Some(group))?;
    attributes::set(&place.parent, &place.name, &entry.attributes)?;
    // After the owner: changing that clears the set-user-id bit.
    fchmod(file, Mode::from_raw_mode(entry.mode))?;
    futimens(file, &times(entry.modified))?;
    Ok(())
}

fn set_directory(entry: &Entry, place: &Place, directory: &OwnedFd) -> io::Result<()> {
    let (user, group) = owner(entry)?;
    fchown(directory, Some(user), Some(group))?;
    attributes::set(&place.parent, &place.name, &entry.attributes)?;
    fchmod(directory, Mode::from_raw_mode(entry.mode))?;
    Ok(())
}

/// For what cannot be opened: links, pipes, devices.
fn set_node(entry: &Entry, place: &Place) -> io::Result<()> {
    let (user, group) = owner(entry)?;
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    chownat(&place.parent, &place.name, Some(user), Some(group), nofollow)?;
    if !matches!(entry.kind, Kind::Symlink(_)) {
        attributes::set(&place.parent, &place.name, &entry.attributes)?;
        let mode = Mode::from_raw_mode(entry.mode);
        rustix::fs::chmodat(&place.parent, &place.name, mode, AtFlags::empty())?;
    }
    utimensat(&place.parent, &place.name, &times(entry.modified), nofollow)?;
    Ok(())
}

fn owner(entry: &Entry) -> io::Result<(Uid, Gid)> {
    // All ones means "leave as it is" to the kernel.
    let id = |id: u64| {
        u32::try_from(id)
            .ok()
            .filter(|id| *id != u32::MAX)
            .ok_or_else(|| io::Error::other(format!("there is no user or group {id}")))
    };
    Ok((Uid::from_raw(id(entry.uid)?), Gid::from_raw(id(entry.gid)?)))
}

fn times(seconds: i64) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

fn make_opaque(directory: &OwnedFd) -> rustix::io::Result<()> {
    fsetxattr(directory, attributes::OPAQUE, b"y", XattrFlags::empty())
}

fn look(directory: &OwnedFd, name: &OsStr) -> rustix::io::Result<Option<Stat>> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is(found: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(found.st_mode) == kind
}

fn is_whiteout(found: &Stat) -> bool {
    is(found, FileType::CharacterDevice) && found.st_rdev == makedev(0, 0)
}

/// What stands in the way of a directory, told apart from a disk that fails.
fn blocked(entry: &Entry, source: io::Error) -> ApplyError {
    let errno = Errno::from_io_error(&source);
    if matches!(errno, Some(Errno::NOTDIR | Errno::LOOP | Errno::XDEV)) {
        refuse(entry, Refusal::LinkInTheWay)
    } else {
        failed("making the directory of", entry, source)
    }
}

fn refuse(entry: &Entry, reason: Refusal) -> ApplyError {
    ApplyError::Refused { path: shown(&entry.path), reason }
}

fn failed(doing: &'static str, entry: &Entry, source: io::Error) -> ApplyError {
    ApplyError::Io { doing, path: shown(&entry.path), source }
}

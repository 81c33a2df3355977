//! Mount points that a container needs and an image should not keep.
//!
//! To mount `/proc` or `/etc/resolv.conf` something has to be there. What the
//! runtime makes for that is taken away again when nothing came into it, so
//! that a `RUN` leaves what its command did and nothing else.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use carrack_linux::rooted::RootedDir;
use rustix::fs::{AtFlags, FileType, Stat, Timespec, Timestamps};

/// What was missing before, and how its surroundings looked.
#[derive(Debug, Default)]
pub(super) struct Stubs {
    /// From the outside in.
    missing: Vec<PathBuf>,
    /// Directories that were there and had to take something in.
    parents: Vec<(PathBuf, Stat)>,
}

impl Stubs {
    /// Notes which of `targets`, absolute paths, are not there yet.
    pub(super) fn note<'a>(root: &RootedDir, targets: impl Iterator<Item = &'a Path>) -> Self {
        let mut stubs = Self::default();
        for target in targets {
            let mut path = PathBuf::new();
            for part in target.components().skip(1) {
                path.push(part);
                let there = root.handle_nofollow(&path).is_ok();
                if !there && !stubs.missing.contains(&path) {
                    stubs.note_parents(root, &path);
                    stubs.missing.push(path.clone());
                }
            }
        }
        stubs
    }

    fn note_parents(&mut self, root: &RootedDir, path: &Path) {
        for parent in path.ancestors().skip(1) {
            let known = self.parents.iter().any(|(known, _)| known == parent);
            if known || parent.as_os_str().is_empty() || self.missing.iter().any(|m| m == parent) {
                continue;
            }
            let stat = root.handle_nofollow(parent).and_then(|fd| Ok(rustix::fs::fstat(fd)?));
            self.parents.extend(stat.ok().map(|stat| (parent.to_owned(), stat)));
        }
    }

    /// Takes away what was missing before and is still empty.
    pub(super) fn remove(&self, root: &RootedDir) -> io::Result<()> {
        for path in self.missing.iter().rev() {
            let Ok(entry) = root.entry(path) else { continue };
            let Ok(stat) = entry.stat() else { continue };
            let flags = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => AtFlags::REMOVEDIR,
                FileType::RegularFile if stat.st_size == 0 => AtFlags::empty(),
                _ => continue,
            };
            match rustix::fs::unlinkat(&entry.directory, &entry.name, flags) {
                Ok(()) | Err(rustix::io::Errno::NOTEMPTY) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for (path, stat) in &self.parents {
            let Ok(directory) = root.directory(path) else { continue };
            rustix::fs::futimens(&directory, &times(stat))?;
        }
        Ok(())
    }

    /// Takes directories out of `upper` that are there only because a stub was made in
    /// them: empty, hiding nothing, and looking as they did before. The overlay has ended.
    pub(super) fn prune(&self, upper: &Path) -> io::Result<()> {
        let mut parents: Vec<_> = self.parents.iter().collect();
        parents.sort_by_key(|(path, _)| std::cmp::Reverse(path.components().count()));
        for (path, stat) in parents {
            let path = upper.join(path);
            let Ok(now) = fs::symlink_metadata(&path) else { continue };
            let same = (now.mode(), now.uid(), now.gid(), now.mtime(), now.mtime_nsec())
                == (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_mtime, nanoseconds(stat));
            if !now.is_dir() || !same || is_opaque(&path) {
                continue;
            }
            match fs::remove_dir(&path) {
                Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
                    return Err(error);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn nanoseconds(stat: &Stat) -> i64 {
    i64::try_from(stat.st_mtime_nsec).unwrap_or_default()
}

fn times(stat: &Stat) -> Timestamps {
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: nanoseconds(stat) };
    Timestamps { last_access: time, last_modification: time }
}

/// Whether the directory hides what lies below it. Anything we cannot tell counts as yes.
fn is_opaque(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return true };
    let mut value = [0; 1];
    let found = rustix::fs::lgetxattr(path.as_c_str(), "trusted.overlay.opaque", &mut value);
    found != Err(rustix::io::Errno::NODATA)
}

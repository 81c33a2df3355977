//! Mount points that a container needs and an image should not keep.
//!
//! To mount `/proc` or `/etc/resolv.conf` something has to be there. What the
//! runtime makes for that is taken away again when nothing came into it, so
//! that a `RUN` leaves what its command did and nothing else.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use carrack_linux::rooted::RootedDir;
use rustix::fs::{AtFlags, FileType, OFlags, Stat, Timespec, Timestamps};

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
        let upper = RootedDir::open(upper)?;
        for (path, stat) in parents {
            let Some((parent, name)) = path.parent().zip(path.file_name()) else { continue };
            // The command may have put a link in the way, to anywhere: then nothing here is ours.
            let Ok(parent) = upper.open_own(parent, OFlags::RDONLY | OFlags::DIRECTORY) else {
                continue;
            };
            let Ok(found) = upper.open_own(path, OFlags::RDONLY | OFlags::DIRECTORY) else {
                continue;
            };
            let now = rustix::fs::fstat(&found)?;
            let same = (now.st_mode, now.st_uid, now.st_gid, now.st_mtime, nanoseconds(&now))
                == (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_mtime, nanoseconds(stat));
            if !same || is_opaque(&found) {
                continue;
            }
            match rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(rustix::io::Errno::NOTEMPTY) => {}
                Err(error) => return Err(error.into()),
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
fn is_opaque(directory: &OwnedFd) -> bool {
    let mut value = [0; 1];
    let found = rustix::fs::fgetxattr(directory, "trusted.overlay.opaque", &mut value);
    found != Err(rustix::io::Errno::NODATA)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_that_the_command_put_in_the_way_does_not_lead_out_of_the_upper_directory() {
        // CVE-2024-23652: what is taken away must not be a directory of the host.
        let place = tempfile::tempdir().expect("directory");
        let (lower, upper) = (place.path().join("lower"), place.path().join("upper"));
        fs::create_dir_all(lower.join("a/b")).expect("mkdir");
        fs::create_dir_all(place.path().join("host/b")).expect("mkdir");
        fs::create_dir(&upper).expect("mkdir");
        let root = RootedDir::open(&lower).expect("root");
        let stubs = Stubs::note(&root, [Path::new("/a/b/c")].into_iter());
        // The host's directory looks as the image's did.
        let noted = stubs.parents.iter().find(|(path, _)| path == Path::new("a/b"));
        let (_, stat) = noted.expect("the parent was noted");
        let host = fs::File::open(place.path().join("host/b")).expect("open");
        rustix::fs::futimens(&host, &times(stat)).expect("times");
        symlink(place.path().join("host"), upper.join("a")).expect("link");
        stubs.prune(&upper).expect("prune");
        assert!(place.path().join("host/b").is_dir());
        // In place, the same directory goes.
        fs::remove_file(upper.join("a")).expect("unlink");
        fs::create_dir_all(upper.join("a/b")).expect("mkdir");
        let inside = fs::File::open(upper.join("a/b")).expect("open");
        rustix::fs::futimens(&inside, &times(stat)).expect("times");
        stubs.prune(&upper).expect("prune");
        assert!(!upper.join("a/b").exists());
    }
}

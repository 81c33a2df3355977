//! A tree of the host that no container may touch, and proof whether one did.

use std::collections::BTreeMap;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// Files and directories of the host, as they were.
#[derive(Debug)]
pub struct Canaries {
    place: tempfile::TempDir,
    before: BTreeMap<PathBuf, String>,
    watch: OwnedFd,
}

/// The names of the canaries.
const FILES: [&str; 4] = ["secret", "etc/passwd", "null", "deep/below/file"];

impl Canaries {
    /// Makes and remembers them.
    #[must_use]
    pub fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        for name in FILES {
            let path = place.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, format!("the host's {name}")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        }
        fs::create_dir(place.path().join("empty")).unwrap();
        let before = seen(place.path());
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap();
        for path in before.keys() {
            // Whatever happens to it, reading included, but for looking.
            let what = WatchFlags::ALL_EVENTS - WatchFlags::CLOSE_NOWRITE;
            inotify::add_watch(&watch, path, what).unwrap();
        }
        Self { place, before, watch }
    }

    /// Where they are.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// None was opened, read, written, replaced, joined or changed, by anybody.
    #[track_caller]
    pub fn assert_untouched(&self) {
        // First the watch: our own look opens them.
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.watch, &mut buffer);
        let event = events.next().ok().map(|event| format!("{:?}", event.events()));
        assert_eq!(event, None, "something happened to a file of the host");
        assert_eq!(seen(self.path()), self.before, "a file of the host was changed");
        // Our own look is no event of the next time.
        let mut events = inotify::Reader::new(&self.watch, &mut buffer);
        while events.next().is_ok() {}
    }
}

impl Default for Canaries {
    fn default() -> Self {
        Self::new()
    }
}

/// Every file and directory from `top` down, with all that a write would change.
fn seen(top: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![top.to_owned()];
    while let Some(path) = pending.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        let content = if stat.is_dir() {
            let entries = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
            let mut entries: Vec<PathBuf> = entries.collect();
            entries.sort();
            pending.extend(entries.iter().cloned());
            format!("{entries:?}")
        } else {
            fs::read_to_string(&path).unwrap()
        };
        let numbers = (stat.ino(), stat.mode(), stat.uid(), stat.gid(), stat.nlink(), stat.size());
        let times = (stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec());
        found.insert(path, format!("{numbers:?} {times:?} {content}"));
    }
    found
}

//! Archives and changes nobody thought of.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use carrack_linux::rooted::RootedDir;
use carrack_oci::archive::{Device, Entry, Kind, Writer};
use carrack_oci::{Descriptor, MediaType};
use carrack_rootfs::{ApplyOptions, Devices, DiffOptions, Layers, Rootfs, apply, diff};
use carrack_store::{BlobStore as _, LocalBlobs};
use proptest::prelude::*;

/// Paths made of few names, so that they meet.
fn paths() -> impl Strategy<Value = String> {
    let parts = prop_oneof![
        6 => Just("a"), 6 => Just("b"), 3 => Just("link"), 2 => Just(".."), 1 => Just("."),
        1 => Just(""), 1 => Just(".wh.a"), 1 => Just(".wh..wh..opq"), 1 => Just("beside"),
    ];
    proptest::collection::vec(parts, 1..4).prop_map(|parts| parts.join("/"))
}

fn entries() -> impl Strategy<Value = Entry> {
    let kinds = prop_oneof![
        4 => Just(Kind::File),
        4 => Just(Kind::Directory),
        4 => paths().prop_map(|path| Kind::Symlink(path.into())),
        1 => Just(Kind::Symlink("../beside".into())),
        1 => Just(Kind::Symlink("/".into())),
        3 => paths().prop_map(|path| Kind::HardLink(path.into())),
        1 => Just(Kind::Character(Device { major: 1, minor: 3 })),
        1 => Just(Kind::Fifo),
    ];
    (paths(), kinds)
        .prop_filter("a path", |(path, _)| !path.is_empty())
        .prop_map(|(path, kind)| Entry::new(path, kind, 0o755))
}

fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for entry in entries {
        let content: &[u8] = if entry.kind == Kind::File { b"evil" } else { b"" };
        let size = u64::try_from(content.len()).unwrap();
        writer.append(&Entry { size, ..entry.clone() }, content).unwrap();
    }
    writer.finish().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_archive_changes_what_is_beside_its_root(
        entries in proptest::collection::vec(entries(), 1..12),
    ) {
        let layer = ApplyOptions { devices: Devices::Create, ..ApplyOptions::layer() };
        for options in [layer, ApplyOptions::archive()] {
            let outer = tempfile::tempdir().unwrap();
            let beside = outer.path().join("beside");
            fs::create_dir(&beside).unwrap();
            fs::write(beside.join("kept"), "kept").unwrap();
            let root = outer.path().join("root");
            fs::create_dir(&root).unwrap();
            apply(tar(&entries).as_slice(), &RootedDir::open(&root).unwrap(), &options).ok();
            prop_assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 2);
            prop_assert_eq!(fs::read_dir(&beside).unwrap().count(), 1);
            let kept = beside.join("kept");
            prop_assert_eq!(fs::read(&kept).unwrap(), b"kept");
            prop_assert_eq!(kept.metadata().unwrap().nlink(), 1);
        }
    }
}

/// The same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn path(&mut self, root: &Path) -> PathBuf {
        const NAMES: [&str; 4] = ["a", "b", "c", "ä long name with spaces"];
        let depth = 1 + self.below(3);
        (0..depth).fold(root.to_owned(), |path, _| path.join(NAMES[self.below(NAMES.len())]))
    }

    /// Changes something. What cannot be done is not done.
    fn change(&mut self, root: &Path) {
        let (path, other) = (self.path(root), self.path(root));
        match self.below(9) {
            0 | 1 => drop(fs::write(&path, format!("{}", self.below(1000)))),
            2 | 3 => drop(fs::create_dir_all(&path)),
            4 => drop(fs::remove_file(&path)),
            5 => drop(fs::remove_dir_all(&path)),
            6 => drop(symlink("../a/./b", &path)),
            7 => drop(fs::hard_link(&path, &other)),
            _ => {
                let Ok(meta) = path.symlink_metadata() else { return };
                if !meta.is_symlink() {
                    chown(&path, Some(u32::try_from(self.below(9)).unwrap()), Some(3)).unwrap();
                    let mode = u32::try_from(self.below(0o10000)).unwrap();
                    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                }
            }
        }
    }
}

/// Everything about a tree that a layer carries, links between its files too.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut first_names = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(place) = left.pop() {
        let mut names: Vec<_> =
            fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        for path in names {
            let meta = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(root).unwrap().to_owned();
            let mut says = format!("{:o} {}:{}", meta.mode(), meta.uid(), meta.gid());
            if meta.is_symlink() {
                says += &format!(" to {:?}", fs::read_link(&path).unwrap());
            } else if meta.is_dir() {
                left.push(path);
            } else {
                let first = first_names.entry(meta.ino()).or_insert_with(|| name.clone());
                says += &format!(" {first:?} {:?}", fs::read(&path).unwrap());
            }
            found.insert(name, says);
        }
    }
    found
}

#[test]
fn any_changes_become_a_layer_that_gives_the_same_tree() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let blobs = Arc::new(LocalBlobs::open(at("store")).unwrap());
    let layers = Layers::open(at("layers"), Arc::clone(&blobs)).unwrap();
    let rootfs = Rootfs::open(at("containers")).unwrap();
    let target = at("target");
    let keep = |tar: &[u8]| {
        let digest = blobs.put(tar).unwrap();
        layers.unpacked(&Descriptor::of(MediaType::LAYER, tar), &digest).unwrap()
    };
    for seed in 0..12 {
        let mut numbers = Numbers(seed);
        let mut stack: Vec<PathBuf> = Vec::new();
        for step in 0..4 {
            let id = format!("{seed}-{step}");
            rootfs.prepare_scratch(&id, &stack, &target).unwrap();
            for _ in 0..25 {
                numbers.change(&target);
            }
            let expected = snapshot(&target);
            let mut tar = Vec::new();
            let options = DiffOptions { source_date_epoch: 1_000_000 };
            diff(&rootfs.upper(&id).unwrap(), &mut tar, &options).unwrap();
            rootfs.unmount(&target).unwrap();
            rootfs.remove(&id).unwrap();
            stack.push(keep(&tar));
            rootfs.view(&stack, &target).unwrap();
            let found = snapshot(&target);
            rootfs.unmount(&target).unwrap();
            assert_eq!(found, expected, "seed {seed}, step {step}");
        }
    }
}

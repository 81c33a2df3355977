//! Layers become root filesystems and root filesystems become layers, with real
//! overlay mounts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use carrack_oci::archive::{Entry, Kind, Reader, Writer};
use carrack_oci::{Descriptor, Digest, MediaType};
use carrack_rootfs::{DiffOptions, Layers, Rootfs, diff};
use carrack_store::{BlobStore as _, LocalBlobs};

struct Machine {
    directory: tempfile::TempDir,
    blobs: Arc<LocalBlobs>,
    layers: Layers,
    rootfs: Rootfs,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let blobs = Arc::new(LocalBlobs::open(at("store")).unwrap());
        let layers = Layers::open(at("layers"), Arc::clone(&blobs)).unwrap();
        let rootfs = Rootfs::open(at("containers")).unwrap();
        Self { directory, blobs, layers, rootfs }
    }

    fn layer(&self, tar: &[u8]) -> PathBuf {
        let digest = self.blobs.put(tar).unwrap();
        let layer = Descriptor::of(MediaType::LAYER, tar);
        self.layers.unpacked(&layer, &digest).unwrap()
    }

    fn target(&self) -> PathBuf {
        self.directory.path().join("target")
    }

    fn changes(&self, id: &str) -> Vec<u8> {
        let mut tar = Vec::new();
        diff(&self.rootfs.upper(id).unwrap(), &mut tar, &DiffOptions::default()).unwrap();
        tar
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.rootfs.unmount(&self.target()).unwrap();
    }
}

fn tar(entries: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in entries {
        let size = u64::try_from(content.len()).unwrap();
        writer.append(&Entry { size, ..entry.clone() }, *content).unwrap();
    }
    writer.finish().unwrap()
}

fn file(path: &str, content: &'static str) -> (Entry, &'static [u8]) {
    (Entry::new(path, Kind::File, 0o644), content.as_bytes())
}

fn directory(path: &str) -> (Entry, &'static [u8]) {
    (Entry::new(path, Kind::Directory, 0o755), b"")
}

/// Everything about a tree that a layer carries.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(place) = left.pop() {
        for entry in fs::read_dir(place).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let content = if meta.is_file() {
                fs::read(&path).unwrap()
            } else if meta.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else {
                Vec::new()
            };
            let says = format!(
                "{:o} {}:{} {:?} {}",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                String::from_utf8_lossy(&content),
                if meta.is_file() { meta.nlink() } else { 0 },
            );
            found.insert(path.strip_prefix(root).unwrap().to_owned(), says);
            if meta.is_dir() {
                left.push(path);
            }
        }
    }
    found
}

fn entries(tar: &[u8]) -> Vec<String> {
    let mut reader = Reader::new(tar);
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        found.push(String::from_utf8(entry.path).unwrap());
    }
    found
}

#[test]
fn what_is_written_above_layers_becomes_a_layer_that_gives_the_same_tree() {
    let machine = Machine::new();
    let base = machine.layer(&tar(&[
        directory("etc"),
        file("etc/kept", "k"),
        file("etc/removed", "r"),
        file("etc/changed", "before"),
        directory("old"),
        file("old/a", "a"),
        directory("swapped"),
        file("swapped/below", "b"),
    ]));
    let target = machine.target();
    machine.rootfs.prepare_scratch("one", std::slice::from_ref(&base), &target).unwrap();
    fs::write(target.join("etc/changed"), "after").unwrap();
    fs::remove_file(target.join("etc/removed")).unwrap();
    fs::remove_dir_all(target.join("old")).unwrap();
    fs::remove_dir_all(target.join("swapped")).unwrap();
    fs::create_dir(target.join("swapped")).unwrap();
    fs::write(target.join("swapped/above"), "a").unwrap();
    // With redirects off overlayfs tells the caller to copy, as `mv` does.
    assert!(fs::rename(target.join("etc"), target.join("moved")).is_err());
    let moved = Command::new("mv").args(["etc", "moved"]).current_dir(&target).status();
    assert!(moved.unwrap().success());
    fs::create_dir(target.join("new")).unwrap();
    fs::write(target.join("new/set"), "s").unwrap();
    fs::set_permissions(target.join("new/set"), fs::Permissions::from_mode(0o4755)).unwrap();
    std::os::unix::fs::chown(target.join("new"), Some(7), Some(8)).unwrap();
    fs::hard_link(target.join("new/set"), target.join("new/twin")).unwrap();
    symlink("/absolute/../nowhere", target.join("new/link")).unwrap();
    let expected = snapshot(&target);
    let changes = machine.changes("one");
    machine.rootfs.unmount(&target).unwrap();

    let layers = [base, machine.layer(&changes)];
    machine.rootfs.view(&layers, &target).unwrap();
    assert_eq!(snapshot(&target), expected);
    let names = entries(&changes);
    assert!(names.contains(&"swapped/.wh..wh..opq".to_owned()), "{names:?}");
    assert!(names.contains(&".wh.old".to_owned()), "{names:?}");
}

#[test]
fn the_same_changes_give_the_same_bytes() {
    let make = || {
        let machine = Machine::new();
        let target = machine.target();
        machine.rootfs.prepare_scratch("one", &[], &target).unwrap();
        for name in ["b", "a", "c"] {
            fs::create_dir(target.join(name)).unwrap();
            fs::write(target.join(name).join("file"), name).unwrap();
        }
        machine.changes("one")
    };
    assert_eq!(Digest::of(make()), Digest::of(make()));
}

#[test]
fn nothing_written_is_no_entry() {
    let machine = Machine::new();
    machine.rootfs.prepare("one", &[], &machine.target()).unwrap();
    assert_eq!(entries(&machine.changes("one")), Vec::<String>::new());
}

#[test]
fn what_was_written_is_there_after_mounting_again() {
    let machine = Machine::new();
    let target = machine.target();
    machine.rootfs.prepare("one", &[], &target).unwrap();
    fs::write(target.join("kept"), "k").unwrap();
    machine.rootfs.unmount(&target).unwrap();
    assert!(!target.join("kept").exists());
    machine.rootfs.prepare("one", &[], &target).unwrap();
    assert_eq!(fs::read(target.join("kept")).unwrap(), b"k");
    assert_eq!(machine.rootfs.list().unwrap(), ["one"]);
    machine.rootfs.unmount(&target).unwrap();
    machine.rootfs.remove("one").unwrap();
    machine.rootfs.remove("one").unwrap();
    assert!(machine.rootfs.list().unwrap().is_empty());
}

#[test]
fn the_root_looks_like_the_uppermost_layers_root() {
    let machine = Machine::new();
    let mut root = Entry::new("./", Kind::Directory, 0o1777);
    (root.uid, root.gid) = (5, 6);
    let base = machine.layer(&tar(&[(root, b"")]));
    machine.rootfs.prepare("one", &[base], &machine.target()).unwrap();
    let found = fs::metadata(machine.target()).unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o1777, 5, 6));
}

#[test]
fn a_hundred_and_twenty_seven_layers_can_be_mounted() {
    let machine = Machine::new();
    let one = |number: u32| {
        machine.layer(&tar(&[(Entry::new(format!("f{number}"), Kind::File, 0o644), b"x")]))
    };
    let layers: Vec<PathBuf> = (0..127).map(one).collect();
    machine.rootfs.prepare("one", &layers, &machine.target()).unwrap();
    assert_eq!(fs::read_dir(machine.target()).unwrap().count(), 127);
}

#[test]
fn an_id_that_is_a_path_is_refused() {
    let machine = Machine::new();
    for id in ["", "..", "a/b", "/etc", ".empty", "."] {
        assert!(machine.rootfs.remove(id).is_err(), "`{id}`");
    }
}

#[test]
fn a_name_that_would_hide_another_is_refused() {
    let machine = Machine::new();
    machine.rootfs.prepare("one", &[], &machine.target()).unwrap();
    fs::write(machine.target().join(".wh.passwd"), "").unwrap();
    let upper = machine.rootfs.upper("one").unwrap();
    let refused = diff(&upper, &mut Vec::new(), &DiffOptions::default()).unwrap_err();
    assert!(refused.to_string().contains(".wh.passwd"));
}

//! Layers from people who mean harm: each is refused with one clear error, and
//! nothing outside the directory is read, made or changed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::sync::Arc;

use carrack_linux::rooted::RootedDir;
use carrack_oci::archive::{Device, Entry, Kind, Writer};
use carrack_oci::{Compression, Descriptor, Digest, MediaType};
use carrack_rootfs::{
    ApplyError, ApplyOptions, Devices, LayerError, Layers, Limits, Refusal, apply,
};
use carrack_store::{BlobStore as _, LocalBlobs};

/// A directory to unpack into, with something beside it that must stay as it is.
struct Machine {
    directory: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("root")).unwrap();
        fs::create_dir(directory.path().join("host")).unwrap();
        fs::write(directory.path().join("host/secret"), "host").unwrap();
        Self { directory }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn apply(&self, entries: &[Entry], options: &ApplyOptions) -> Result<(), ApplyError> {
        let root = RootedDir::open(&self.root()).unwrap();
        apply(tar(entries).as_slice(), &root, options).map(|_| ())
    }

    #[track_caller]
    fn assert_untouched(&self) {
        let names = |path: &str| {
            let mut names: Vec<String> = fs::read_dir(self.directory.path().join(path))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        assert_eq!(names(""), ["host", "root"]);
        assert_eq!(names("host"), ["secret"]);
        let secret = self.directory.path().join("host/secret");
        assert_eq!(fs::read(&secret).unwrap(), b"host");
        assert_eq!(secret.metadata().unwrap().nlink(), 1);
    }
}

/// An archive; each file's content is `evil`.
fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for entry in entries {
        match entry.kind {
            Kind::File => writer.append(&Entry { size: 4, ..entry.clone() }, &b"evil"[..]),
            _ => writer.append_empty(entry),
        }
        .unwrap();
    }
    writer.finish().unwrap()
}

fn file(path: &str) -> Entry {
    Entry::new(path, Kind::File, 0o644)
}

fn directory(path: &str) -> Entry {
    Entry::new(path, Kind::Directory, 0o755)
}

fn link(path: &str, target: impl AsRef<str>) -> Entry {
    Entry::new(path, Kind::Symlink(target.as_ref().into()), 0o777)
}

fn hard_link(path: &str, target: &str) -> Entry {
    Entry::new(path, Kind::HardLink(target.into()), 0o644)
}

#[track_caller]
fn refused(entries: &[Entry], expected: &Refusal) {
    let machine = Machine::new();
    match machine.apply(entries, &ApplyOptions::layer()) {
        Err(ApplyError::Refused { reason, .. }) => assert_eq!(reason, *expected),
        other => panic!("{entries:?} gave {other:?}"),
    }
    machine.assert_untouched();
}

#[track_caller]
fn stays_inside(entries: &[Entry], options: &ApplyOptions) {
    let machine = Machine::new();
    machine.apply(entries, options).ok();
    machine.assert_untouched();
}

#[test]
fn a_path_that_climbs_is_refused() {
    for path in ["../evil", "a/../../evil", "/../evil", "./../evil", "..", "a/.."] {
        refused(&[file(path)], &Refusal::Escapes);
        refused(&[directory(path)], &Refusal::Escapes);
        refused(&[link(path, "x")], &Refusal::Escapes);
    }
}

#[test]
fn nothing_is_written_through_a_link() {
    let machine = Machine::new();
    let host = machine.directory.path().join("host").display().to_string();
    for target in [host.as_str(), "/", "/etc", "../host", "../../../../../../etc", "."] {
        refused(&[link("door", target), file("door/evil")], &Refusal::LinkInTheWay);
        refused(&[link("door", target), directory("door/a/b")], &Refusal::LinkInTheWay);
        refused(
            &[directory("a"), link("a/door", target), file("a/door/b/evil")],
            &Refusal::LinkInTheWay,
        );
        stays_inside(&[link("door", target), file("door/evil")], &ApplyOptions::archive());
    }
}

#[test]
fn a_file_in_the_place_of_a_link_replaces_the_link() {
    let machine = Machine::new();
    let secret = machine.directory.path().join("host/secret").display().to_string();
    let entries = [link("door", &secret), file("door")];
    machine.apply(&entries, &ApplyOptions::layer()).unwrap();
    assert_eq!(fs::read(machine.root().join("door")).unwrap(), b"evil");
    machine.assert_untouched();
}

#[test]
fn a_directory_in_the_place_of_a_link_replaces_the_link() {
    let machine = Machine::new();
    let host = machine.directory.path().join("host").display().to_string();
    let entries = [link("door", &host), directory("door"), file("door/evil")];
    machine.apply(&entries, &ApplyOptions::layer()).unwrap();
    assert!(machine.root().join("door").symlink_metadata().unwrap().is_dir());
    machine.assert_untouched();
}

#[test]
fn an_absolute_path_is_taken_beneath_the_root() {
    let machine = Machine::new();
    machine.apply(&[file("/etc/evil")], &ApplyOptions::layer()).unwrap();
    assert!(machine.root().join("etc/evil").is_file());
}

#[test]
fn a_hard_link_to_what_the_archive_does_not_have_is_refused() {
    for target in ["../host/secret", "/etc/passwd", "nothing", "", "door/secret", ".", "d"] {
        let entries = [link("door", "../host"), directory("d"), hard_link("evil", target)];
        refused(&entries, &Refusal::HardLink(target.to_owned()));
    }
}

#[test]
fn a_hard_link_to_a_link_is_a_link() {
    let machine = Machine::new();
    let secret = machine.directory.path().join("host/secret").display().to_string();
    let entries = [link("door", &secret), hard_link("evil", "door"), file("evil")];
    machine.apply(&entries[..2], &ApplyOptions::layer()).unwrap();
    assert!(machine.root().join("evil").symlink_metadata().unwrap().is_symlink());
    machine.assert_untouched();
    stays_inside(&entries, &ApplyOptions::layer());
}

#[test]
fn device_nodes_are_refused_unless_asked_for() {
    let disk = Device { major: 8, minor: 0 };
    refused(&[Entry::new("disk", Kind::Block(disk), 0o666)], &Refusal::Device);
    refused(&[Entry::new("dev/mem", Kind::Character(disk), 0o666)], &Refusal::Device);
    let machine = Machine::new();
    let create = ApplyOptions { devices: Devices::Create, ..ApplyOptions::layer() };
    let null = Entry::new("null", Kind::Character(Device { major: 1, minor: 3 }), 0o666);
    machine.apply(&[null], &create).unwrap();
    assert_eq!(machine.root().join("null").metadata().unwrap().mode() & 0o7777, 0o666);
    let whiteout = Entry::new("etc", Kind::Character(Device { major: 0, minor: 0 }), 0);
    assert!(machine.apply(&[whiteout], &create).is_err(), "overlayfs would take it for a whiteout");
}

#[test]
fn a_whiteout_of_the_root_is_refused() {
    for path in [".wh.", ".wh..", ".wh...", "./.wh..wh..opq", "/.wh..wh..opq", "a/.wh..."] {
        refused(&[file(path)], &Refusal::WhiteoutOfRoot);
    }
    refused(&[file("a/.wh..wh.plnk")], &Refusal::Bookkeeping);
    refused(&[link("./", "/etc")], &Refusal::Root);
}

#[test]
fn a_whiteout_hides_what_is_below_and_not_what_comes_with_it() {
    let machine = Machine::new();
    let entries = [
        file(".wh.gone"),
        directory("etc"),
        file("etc/.wh..wh..opq"),
        file("etc/.wh.mine"),
        file("etc/mine"),
        file("etc/first"),
        file("etc/.wh.first"),
    ];
    machine.apply(&entries, &ApplyOptions::layer()).unwrap();
    let gone = machine.root().join("gone").symlink_metadata().unwrap();
    assert_eq!((gone.rdev(), gone.mode() & 0o170_000), (0, 0o020_000));
    assert!(machine.root().join("etc/mine").is_file());
    assert!(machine.root().join("etc/first").is_file());
}

#[test]
fn a_whiteout_means_nothing_in_an_archive_that_is_no_layer() {
    let machine = Machine::new();
    let refused = machine.apply(&[file("etc/.wh.passwd")], &ApplyOptions::archive()).unwrap_err();
    assert!(refused.to_string().contains("etc/.wh.passwd"), "{refused}");
}

#[test]
fn attributes_that_steer_the_overlay_are_refused() {
    for name in ["trusted.overlay.redirect", "trusted.overlay.opaque", "user.overlay.whiteout"] {
        let mut entry = directory("a");
        entry.attributes.insert(name.into(), b"/etc".to_vec());
        refused(&[entry], &Refusal::Attribute(name.to_owned()));
    }
}

#[test]
fn an_archive_follows_links_of_the_root_and_stays_inside() {
    let machine = Machine::new();
    fs::create_dir_all(machine.root().join("usr/lib")).unwrap();
    symlink("/usr/lib", machine.root().join("lib")).unwrap();
    symlink("../../../../host", machine.root().join("door")).unwrap();
    let entries = [directory("lib"), file("lib/ours"), file("door/evil")];
    machine.apply(&entries, &ApplyOptions::archive()).unwrap();
    assert!(machine.root().join("usr/lib/ours").is_file());
    assert!(machine.root().join("host/evil").is_file());
    machine.assert_untouched();
}

#[test]
fn the_set_user_id_bit_and_the_owner_survive() {
    let machine = Machine::new();
    let mut entry = Entry::new("su", Kind::File, 0o4755);
    (entry.uid, entry.gid, entry.modified) = (7, 8, 1234);
    entry.attributes.insert(b"user.note".to_vec(), b"x".to_vec());
    machine.apply(&[entry], &ApplyOptions::layer()).unwrap();
    let found = machine.root().join("su").metadata().unwrap();
    assert_eq!(
        (found.permissions().mode() & 0o7777, found.uid(), found.gid(), found.mtime()),
        (0o4755, 7, 8, 1234)
    );
}

#[test]
fn a_message_cannot_steer_the_terminal() {
    let machine = Machine::new();
    let refused = machine.apply(&[file("../\u{1b}[2Jevil")], &ApplyOptions::layer()).unwrap_err();
    assert!(!refused.to_string().contains('\u{1b}'), "{refused}");
}

struct Store {
    directory: tempfile::TempDir,
    blobs: Arc<LocalBlobs>,
    layers: Layers,
}

impl Store {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Arc::new(LocalBlobs::open(directory.path().join("store")).unwrap());
        let layers = Layers::open(directory.path().join("layers"), Arc::clone(&blobs)).unwrap();
        Self { directory, blobs, layers }
    }

    fn keep(&self, tar: &[u8], compression: Compression) -> Descriptor {
        let packed = match compression {
            Compression::None => tar.to_vec(),
            Compression::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(tar).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Zstd => zstd::encode_all(tar, 1).unwrap(),
        };
        self.blobs.put(&packed).unwrap();
        Descriptor::of(MediaType::of_layer(compression), &packed)
    }

    #[track_caller]
    fn assert_nothing_remains(&self) {
        assert!(self.layers.list().unwrap().is_empty());
        let pending = self.directory.path().join("layers/.pending");
        assert_eq!(fs::read_dir(pending).unwrap().count(), 0);
    }
}

const EVERY: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Zstd];

#[test]
fn a_layer_is_unpacked_once_whatever_it_is_packed_with() {
    for compression in EVERY {
        let store = Store::new();
        let tar = tar(&[file("a")]);
        let layer = store.keep(&tar, compression);
        let place = store.layers.unpacked(&layer, &Digest::of(&tar)).unwrap();
        assert_eq!(fs::read(place.join("a")).unwrap(), b"evil");
        store.blobs.delete(&layer.digest).unwrap();
        assert_eq!(store.layers.unpacked(&layer, &Digest::of(&tar)).unwrap(), place);
        assert_eq!(store.layers.list().unwrap(), [Digest::of(&tar)]);
        assert!(store.layers.remove(&Digest::of(&tar)).unwrap());
        store.assert_nothing_remains();
    }
}

#[test]
fn a_layer_whose_content_is_not_what_the_image_says_is_refused() {
    for compression in EVERY {
        let store = Store::new();
        let layer = store.keep(&tar(&[file("a")]), compression);
        let refused = store.layers.unpacked(&layer, &Digest::of(b"other")).unwrap_err();
        assert!(matches!(refused, LayerError::DiffId { .. }), "{refused:?}");
        store.assert_nothing_remains();
    }
}

#[test]
fn a_layer_that_rotted_on_the_disk_is_refused() {
    for compression in EVERY {
        let store = Store::new();
        let tar = tar(&[file("a")]);
        let layer = store.keep(&tar, compression);
        let blob = store.directory.path().join("store/blobs/sha256").join(layer.digest.hex());
        let mut bytes = Vec::new();
        fs::File::open(&blob).unwrap().read_to_end(&mut bytes).unwrap();
        // Behind everything that is unpacked: only the digest can tell.
        bytes.push(0);
        fs::write(&blob, bytes).unwrap();
        store.layers.unpacked(&layer, &Digest::of(&tar)).unwrap_err();
        store.assert_nothing_remains();
    }
}

#[test]
fn a_bomb_is_refused_and_leaves_nothing() {
    let mut writer = Writer::new(Vec::new());
    let size = 8 << 20;
    writer.append(&Entry::file("zeros", 0o644, size), std::io::repeat(0).take(size)).unwrap();
    let tar = writer.finish().unwrap();
    for compression in EVERY {
        let store = Store::new();
        let layer = store.keep(&tar, compression);
        let limits = Limits { bytes: 1 << 20, ..Limits::default() };
        let layers = store.layers.clone().with_limits(limits);
        let refused = layers.unpacked(&layer, &Digest::of(&tar)).unwrap_err();
        let LayerError::Apply { source: ApplyError::TooLarge { .. }, .. } = refused else {
            panic!("{refused:?}");
        };
        store.assert_nothing_remains();
    }
}

#[test]
fn a_gibibyte_for_free_and_then_two_hundred_to_one() {
    let limits = Limits::default();
    assert_eq!(limits.for_size(1000).bytes, Limits::FREE + 200_000);
    assert_eq!(limits.for_size(u64::MAX).bytes, limits.bytes);
}

#[test]
fn a_layer_with_too_many_entries_is_refused() {
    let machine = Machine::new();
    let limits = Limits { entries: 3, ..Limits::default() };
    let options = ApplyOptions { limits, ..ApplyOptions::layer() };
    let entries = [file("a"), file("b"), file("c"), file("d")];
    let refused = machine.apply(&entries, &options).unwrap_err();
    assert!(matches!(refused, ApplyError::TooManyEntries { limit: 3 }));
}

#[test]
fn many_may_unpack_the_same_layer_at_once() {
    let store = Store::new();
    let entries: Vec<Entry> = (0..200).map(|number| file(&format!("d/{number}"))).collect();
    let tar = tar(&entries);
    let layer = store.keep(&tar, Compression::Gzip);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| store.layers.unpacked(&layer, &Digest::of(&tar)).unwrap());
        }
    });
    let place = store.layers.unpacked(&layer, &Digest::of(&tar)).unwrap();
    assert_eq!(fs::read_dir(place.join("d")).unwrap().count(), 200);
    store.layers.remove(&Digest::of(&tar)).unwrap();
    store.assert_nothing_remains();
}

#[test]
fn layers_nobody_needs_are_removed() {
    let store = Store::new();
    let [one, two] = ["one", "two"].map(|name| tar(&[file(name)]));
    for tar in [&one, &two] {
        store.layers.unpacked(&store.keep(tar, Compression::None), &Digest::of(tar)).unwrap();
    }
    assert_eq!(store.layers.retain(&[Digest::of(&two)].into()).unwrap(), 1);
    assert_eq!(store.layers.list().unwrap(), [Digest::of(&two)]);
}

#[test]
fn what_a_dead_process_was_unpacking_is_removed_when_opened() {
    let store = Store::new();
    let left = store.directory.path().join("layers/.pending/1-0");
    fs::create_dir_all(left.join("usr")).unwrap();
    Layers::open(store.directory.path().join("layers"), Arc::clone(&store.blobs)).unwrap();
    store.assert_nothing_remains();
}

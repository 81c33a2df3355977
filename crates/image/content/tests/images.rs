//! Names, layers, saving, loading and collecting, without anyone else's programs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::io::Write as _;

use carrack_content::{CollectError, Image, ImageError, Images, Layer, LoadError, LoadLimits};
use carrack_oci::archive::{Entry, Kind, Writer};
use carrack_oci::{
    Compression, Descriptor, Digest, ImageConfig, Index, Layout, Manifest, MediaType, Platform,
    Reference,
};
use carrack_store::BlobStore as _;

struct Machine {
    _directory: tempfile::TempDir,
    images: Images,
}

fn machine() -> Machine {
    let directory = tempfile::tempdir().unwrap();
    let images = Images::open(directory.path().join("store")).unwrap();
    Machine { _directory: directory, images }
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

fn layer(images: &Images, content: &str, compression: Compression) -> Layer {
    let mut archive = Writer::new(images.layer(compression).unwrap());
    archive.append_bytes("file", content.as_bytes()).unwrap();
    archive.finish().unwrap().finish().unwrap()
}

fn image(images: &Images, content: &str) -> Image {
    let layers = [
        layer(images, "base", Compression::Gzip),
        layer(images, content, Compression::None),
        layer(images, "top", Compression::Zstd),
    ];
    images.put_image(ImageConfig::new(&Platform::host()), &layers).unwrap()
}

fn saved(images: &Images, names: &[&str]) -> Vec<u8> {
    let names: Vec<Reference> = names.iter().map(|text| name(text)).collect();
    let mut archive = Vec::new();
    images.save(&names, &mut archive).unwrap();
    archive
}

/// An archive of these files.
fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (path, bytes) in files {
        writer.append_bytes(path, bytes).unwrap();
    }
    writer.finish().unwrap()
}

/// The files of an image layout, to be spoiled before they become an archive.
struct Files(Vec<(String, Vec<u8>)>);

impl Files {
    fn layout() -> Self {
        let machine = machine();
        let image = image(&machine.images, "content");
        let blob = |digest: &Digest| {
            let bytes = machine.images.blobs().read(digest, u64::MAX).unwrap();
            (format!("blobs/sha256/{}", digest.hex()), bytes)
        };
        let mut files: Vec<_> =
            image.manifest.layers.iter().map(|layer| blob(&layer.digest)).collect();
        files.push(blob(&image.manifest.config.digest));
        files.push(blob(&image.digest));
        let mut entry = Descriptor::of(MediaType::MANIFEST, &image.manifest.to_json());
        entry.annotations.insert(carrack_oci::annotation::REF_NAME.into(), "shop:1".into());
        files.push(("index.json".into(), Index::new(vec![entry]).to_json()));
        files.push(("oci-layout".into(), Layout::current().to_json()));
        Self(files)
    }

    fn replace(mut self, path: &str, bytes: &[u8]) -> Self {
        self.0.retain(|(name, _)| name != path);
        self.0.push((path.into(), bytes.to_vec()));
        self
    }

    fn tar(&self) -> Vec<u8> {
        let files: Vec<(&str, &[u8])> =
            self.0.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
        tar(&files)
    }
}

#[track_caller]
fn refused(archive: &[u8]) -> LoadError {
    let machine = machine();
    let before = machine.images.blobs().list().unwrap();
    let error = machine.images.load(archive, &LoadLimits::default()).expect_err("refused");
    assert!(machine.images.list().unwrap().is_empty(), "no name is left");
    assert_eq!(machine.images.blobs().list().unwrap(), before, "no blob is left");
    error
}

#[test]
fn a_name_leads_to_the_image_it_was_given() {
    let Machine { images, .. } = &machine();
    let (one, two) = (image(images, "one"), image(images, "two"));
    assert_eq!(images.resolve(&name("shop")).unwrap(), None);
    images.tag(&name("shop"), &one.digest).unwrap();
    assert_eq!(images.resolve(&name("shop:latest")).unwrap().unwrap(), one);
    images.tag(&name("shop:latest"), &two.digest).unwrap();
    assert_eq!(images.resolve(&name("shop")).unwrap().unwrap(), two);
    let pinned = name(&format!("shop@{}", one.digest));
    assert_eq!(images.resolve(&pinned).unwrap().unwrap(), one);
    assert_eq!(images.untag(&name("shop")).unwrap(), Some(two.digest));
    assert_eq!(images.untag(&name("shop")).unwrap(), None);
    assert!(images.list().unwrap().is_empty());
}

#[test]
fn an_image_is_found_by_name_or_by_the_start_of_its_digest() {
    let Machine { images, .. } = &machine();
    let one = image(images, "one");
    images.tag(&name("shop"), &one.digest).unwrap();
    let found = |text: &str| images.find(text).unwrap().map(|image| image.digest);
    assert_eq!(found("shop"), Some(one.digest.clone()));
    assert_eq!(found(one.digest.short()), Some(one.digest.clone()));
    assert_eq!(found(&one.digest.to_string()), Some(one.digest.clone()));
    assert_eq!(found("feed"), None);
    assert_eq!(found("../x"), None);
}

#[test]
fn a_name_is_not_given_to_an_image_that_is_not_whole() {
    let Machine { images, .. } = &machine();
    let one = image(images, "one");
    images.blobs().delete(&one.manifest.layers[1].digest).unwrap();
    let refused = images.tag(&name("shop"), &one.digest).unwrap_err();
    assert!(matches!(refused, ImageError::Incomplete { found: None, .. }), "{refused:?}");
    assert!(images.list().unwrap().is_empty());
}

#[test]
fn the_same_layers_make_the_same_image() {
    let (one, two) = (machine(), machine());
    assert_eq!(image(&one.images, "x").digest, image(&two.images, "x").digest);
}

#[test]
fn what_is_saved_is_loaded_the_same_and_saved_the_same() {
    let (one, two) = (machine(), machine());
    for content in ["first", "second"] {
        let image = image(&one.images, content);
        one.images.tag(&name(&format!("shop/{content}:1")), &image.digest).unwrap();
        one.images.tag(&name("localhost:5000/shop:both"), &image.digest).unwrap();
    }
    let names = ["shop/first:1", "shop/second:1", "localhost:5000/shop:both"];
    let archive = saved(&one.images, &names);
    assert_eq!(saved(&one.images, &names), archive, "the same bytes");
    let loaded = two.images.load(archive.as_slice(), &LoadLimits::default()).unwrap();
    assert_eq!(loaded.len(), 2, "one image has two names");
    assert_eq!(two.images.list().unwrap(), one.images.list().unwrap());
    assert_eq!(saved(&two.images, &names), archive);
}

#[test]
fn an_archive_may_be_compressed() {
    let one = machine();
    one.images.tag(&name("shop"), &image(&one.images, "x").digest).unwrap();
    let archive = saved(&one.images, &["shop"]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&archive).unwrap();
    for packed in [gzip.finish().unwrap(), zstd::encode_all(archive.as_slice(), 1).unwrap()] {
        let two = machine();
        two.images.load(packed.as_slice(), &LoadLimits::default()).unwrap();
        assert_eq!(two.images.list().unwrap(), one.images.list().unwrap());
    }
}

#[test]
fn an_unknown_name_is_not_saved() {
    let Machine { images, .. } = &machine();
    let mut output = Vec::new();
    let refused = images.save(&[name("nothing")], &mut output).unwrap_err();
    assert!(refused.to_string().contains("nothing"));
    assert!(output.is_empty());
}

#[test]
fn an_archive_that_is_refused_leaves_nothing() {
    let sound = Files::layout();
    let machine = machine();
    machine.images.load(sound.tar().as_slice(), &LoadLimits::default()).unwrap();

    let config = sound.0[3].0.clone();
    for (path, _) in &sound.0 {
        let without = Files(sound.0.iter().filter(|file| file.0 != *path).cloned().collect());
        refused(&without.tar());
    }
    let spoiled = Files::layout().replace(&sound.0[0].0, b"evil");
    assert!(matches!(refused(&spoiled.tar()), LoadError::Mismatch { .. }));
    let spoiled = Files::layout().replace(&config, b"{}");
    assert!(matches!(refused(&spoiled.tar()), LoadError::Mismatch { .. }));
    let spoiled = Files::layout().replace("oci-layout", br#"{"imageLayoutVersion":"9"}"#);
    assert!(matches!(refused(&spoiled.tar()), LoadError::Document { .. }));
    let both = br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#;
    let spoiled = Files::layout().replace("index.json", both);
    assert!(matches!(refused(&spoiled.tar()), LoadError::Document { .. }));
    let empty = Files::layout().replace("index.json", &Index::new(vec![]).to_json());
    assert!(matches!(refused(&empty.tar()), LoadError::NoImage));
    let mut twice = Files::layout();
    twice.0.push(("./index.json".into(), Index::new(vec![]).to_json()));
    assert!(matches!(refused(&twice.tar()), LoadError::Entry { .. }));
    let half = sound.tar();
    refused(&half[..half.len() / 2]);
    assert!(matches!(refused(b"not a tar archive at all"), LoadError::NotAnImageArchive));
    assert!(matches!(refused(&[b'x'; 2000]), LoadError::NotAnImageArchive));
    assert!(matches!(refused(b"\xfd7zXZ\0and more"), LoadError::Compression("xz")));
    assert!(matches!(refused(&tar(&[("hello", b"x")])), LoadError::NotAnImageArchive));
}

#[test]
fn an_image_the_caller_refuses_leaves_nothing() {
    let machine = machine();
    let archive = Files::layout().tar();
    let limits = LoadLimits::default();
    let refused = machine.images.load_checked(archive.as_slice(), &limits, |image| {
        Err(format!("{} layers", image.manifest.layers.len()).into())
    });
    assert!(matches!(refused, Err(LoadError::Refused { .. })), "{refused:?}");
    assert!(machine.images.list().unwrap().is_empty());
    assert!(machine.images.blobs().list().unwrap().is_empty());
}

#[test]
fn an_entry_that_leads_out_of_the_archive_is_refused() {
    let special = |path: &str, kind: Kind| {
        let mut writer = Writer::new(Vec::new());
        writer.append_empty(&Entry::new(path, kind, 0o644)).unwrap();
        writer.finish().unwrap()
    };
    let is_entry = |error: LoadError| assert!(matches!(error, LoadError::Entry { .. }), "{error}");
    is_entry(refused(&special("../evil", Kind::File)));
    is_entry(refused(&special("a", Kind::Symlink(b"../../etc/passwd".to_vec()))));
    is_entry(refused(&special("a", Kind::HardLink(b"../etc/passwd".to_vec()))));
    is_entry(refused(&special("a", Kind::Fifo)));
    let list = br#"[{"Config":"a","RepoTags":["x:1"],"Layers":[]}]"#;
    let mut writer = Writer::new(Vec::new());
    for (path, target) in [("a", "b"), ("b", "a")] {
        let link = Entry::new(path, Kind::Symlink(target.into()), 0o777);
        writer.append_empty(&link).unwrap();
    }
    writer.append_bytes("manifest.json", list).unwrap();
    assert!(matches!(refused(&writer.finish().unwrap()), LoadError::Missing { .. }));
}

#[test]
fn an_image_for_another_machine_is_refused() {
    let Machine { images, .. } = &machine();
    let config = ImageConfig::new(&"linux/s390x".parse().unwrap());
    let image = images.put_image(config, &[]).unwrap();
    images.tag(&name("other"), &image.digest).unwrap();
    assert!(matches!(refused(&saved(images, &["other"])), LoadError::NoImage));
}

#[test]
fn an_artifact_is_not_an_image() {
    let Machine { images, .. } = &machine();
    let empty = images.put_config(&ImageConfig::new(&Platform::host())).unwrap();
    let config = Descriptor { media_type: MediaType::EMPTY, ..empty };
    assert!(images.put_manifest(&Manifest::new(config, vec![])).is_err());
}

#[test]
fn a_bomb_is_refused() {
    let limits = LoadLimits { bytes: 1 << 20, ..LoadLimits::default() };
    let archive = tar(&[("zeros", &vec![0; 2 << 20])]);
    let machine = machine();
    let refused = machine.images.load(archive.as_slice(), &limits).unwrap_err();
    assert!(matches!(refused, LoadError::TooMuch { what: "bytes", .. }), "{refused:?}");
    let limits = LoadLimits { entries: 2, ..LoadLimits::default() };
    let archive = tar(&[("a", b""), ("b", b""), ("c", b"")]);
    let refused = machine.images.load(archive.as_slice(), &limits).unwrap_err();
    assert!(matches!(refused, LoadError::TooMuch { what: "entries", .. }), "{refused:?}");
}

#[test]
fn collecting_keeps_what_names_and_others_need() {
    let Machine { images, .. } = &machine();
    let [named, kept, lost] = ["named", "kept", "lost"].map(|content| image(images, content));
    images.tag(&name("shop"), &named.digest).unwrap();
    let lease = images.lease().unwrap();
    assert!(matches!(images.gc(&[]), Err(CollectError::InUse)));
    drop(lease);
    let cached = images.blobs().put(b"not a manifest").unwrap();
    let keep = [kept.digest.clone(), cached.clone()];
    let still_needed = |needed: &BTreeSet<Digest>| {
        let ids = |image: &Image| image.config.rootfs.diff_ids.clone();
        assert_eq!(*needed, ids(&named).into_iter().chain(ids(&kept)).collect());
        Ok(())
    };
    let collected = images.gc_with(&keep, still_needed).unwrap();
    assert_eq!(collected.blobs, 3, "manifest, configuration and one layer; the others are shared");
    images.get(&named.digest).unwrap();
    images.get(&kept.digest).unwrap();
    images.get(&lost.digest).unwrap_err();
    assert!(images.blobs().stat(&cached).unwrap().is_some());
}

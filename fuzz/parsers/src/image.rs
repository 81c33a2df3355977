//! What images are made of: documents and archives.

use std::io::Read as _;
use std::sync::{Mutex, OnceLock, PoisonError};

use carrack_content::{Images, LoadLimits};
use carrack_linux::rooted::RootedDir;
use carrack_oci::archive::{ArchiveError, Entry, Reader, Writer};
use carrack_oci::{ImageConfig, Index, Manifest};
use carrack_rootfs::{ApplyOptions, Devices, Limits};

pub(crate) fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::parse(bytes) {
        let json = manifest.to_json();
        assert_eq!(Manifest::parse(&json).unwrap().to_json(), json);
    }
}

pub(crate) fn index(bytes: &[u8]) {
    if let Ok(index) = Index::parse(bytes) {
        let json = index.to_json();
        assert_eq!(Index::parse(&json).unwrap().to_json(), json);
    }
}

pub(crate) fn config(bytes: &[u8]) {
    if let Ok(config) = ImageConfig::parse(bytes) {
        let json = config.to_json();
        assert_eq!(ImageConfig::parse(&json).unwrap().to_json(), json);
    }
}

type Entries = Vec<(Entry, Vec<u8>)>;

fn read(bytes: &[u8]) -> Result<Entries, ArchiveError> {
    let mut reader = Reader::new(bytes);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        reader.read_to_end(&mut content)?;
        entries.push((entry, content));
    }
    Ok(entries)
}

/// The archive with the checksum of every header set right, so that other changes
/// get past it.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for header in bytes.chunks_exact_mut(512) {
        if header[257..262] == *b"ustar" {
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    bytes
}

pub(crate) fn archive(bytes: &[u8]) {
    read_and_write(bytes);
    read_and_write(&sealed(bytes));
}

fn read_and_write(bytes: &[u8]) {
    let Ok(entries) = read(bytes) else { return };
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in &entries {
        writer.append(entry, content.as_slice()).unwrap();
    }
    let written = writer.finish().unwrap();
    assert_eq!(read(&written).unwrap(), entries, "what was read is written as the same");
}

/// Unpacks the archive in every way there is, beside a file that must not change.
pub(crate) fn apply(bytes: &[u8]) {
    let bytes = &sealed(bytes)[..];
    let limits = Limits { bytes: 1 << 20, entries: 200, ..Limits::default() };
    let layer = ApplyOptions { limits, ..ApplyOptions::layer() };
    let ways = [
        layer.clone(),
        ApplyOptions { limits, ..ApplyOptions::archive() },
        ApplyOptions { devices: Devices::Create, ..layer },
    ];
    for way in ways {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(directory.path().join("beside"), "kept").unwrap();
        carrack_rootfs::apply(bytes, &RootedDir::open(&root).unwrap(), &way).ok();
        let names = std::fs::read_dir(directory.path()).unwrap().count();
        let kept = std::fs::read(directory.path().join("beside")).unwrap();
        assert_eq!((names, kept.as_slice()), (2, &b"kept"[..]), "nothing beside it changed");
    }
}

/// One store for all tries: making one takes longer than a try.
fn images() -> &'static Mutex<(tempfile::TempDir, Images)> {
    static IMAGES: OnceLock<Mutex<(tempfile::TempDir, Images)>> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let images = Images::open(directory.path().join("store")).unwrap();
        Mutex::new((directory, images))
    })
}

pub(crate) fn load(bytes: &[u8]) {
    let guard = images().lock().unwrap_or_else(PoisonError::into_inner);
    let (_, images) = &*guard;
    let limits = LoadLimits { bytes: 1 << 20, entries: 200, ratio: 200 };
    match images.load(bytes, &limits) {
        Ok(loaded) => {
            assert!(!loaded.is_empty());
            for image in &loaded {
                images.get(&image.digest).expect("a loaded image is whole");
                for name in &image.references {
                    images.untag(name).unwrap();
                }
            }
        }
        Err(_) => assert!(images.list().unwrap().is_empty(), "no name is left"),
    }
    images.gc(&[]).unwrap();
}

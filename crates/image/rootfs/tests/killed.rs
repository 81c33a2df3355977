//! Whoever unpacks layers is killed with `kill -9` at any moment; a layer is there
//! whole or not at all, and nothing has to be repaired.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use carrack_oci::archive::Writer;
use carrack_oci::{Descriptor, Digest, MediaType};
use carrack_rootfs::Layers;
use carrack_store::{BlobStore as _, LocalBlobs};

/// Where layers are unpacked; set only for the child this test starts.
const PLACE: &str = "CARRACK_TEST_LAYERS";
/// How many files a layer has, and how many layers there are.
const FILES: usize = 60;
const LAYERS: usize = 40;

fn layer(number: usize) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for file in 0..FILES {
        let content = format!("{number} {file}").repeat(50);
        writer.append_bytes(&format!("d{}/{file}", file % 7), content.as_bytes()).unwrap();
    }
    writer.finish().unwrap()
}

fn open(place: &Path) -> (Arc<LocalBlobs>, Layers) {
    let blobs = Arc::new(LocalBlobs::open(place.join("store")).unwrap());
    let layers = Layers::open(place.join("layers"), Arc::clone(&blobs)).unwrap();
    (blobs, layers)
}

/// Unpacks and removes layers, and says so, until it is killed.
#[test]
#[ignore = "the unpacker that `a_layer_is_whole_or_not_there` starts and kills"]
fn unpacker() {
    let Some(place) = std::env::var_os(PLACE) else { return };
    let (blobs, layers) = open(Path::new(&place));
    let mut output = std::io::stderr();
    for number in (0..LAYERS).cycle() {
        let tar = layer(number);
        let digest = blobs.put(&tar).unwrap();
        layers.unpacked(&Descriptor::of(MediaType::LAYER, &tar), &digest).unwrap();
        writeln!(output, "unpacked {digest}").unwrap();
        layers.remove(&Digest::of(layer((number + LAYERS / 2) % LAYERS))).unwrap();
    }
}

fn start(place: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "unpacker", "--ignored", "--nocapture", "--test-threads=1"])
        .env(PLACE, place)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_layer_is_whole_or_not_there() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..30_u64 {
        let mut child = start(directory.path());
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        lines.next().unwrap().unwrap();
        // Killing at moments spread over the next layer is what is being tested.
        std::thread::sleep(Duration::from_micros(round * 700));
        child.kill().unwrap();
        child.wait().unwrap();
        check(directory.path());
    }
}

#[track_caller]
fn check(place: &Path) {
    let (_, layers) = open(place);
    assert_eq!(fs::read_dir(place.join("layers/.pending")).unwrap().count(), 0);
    for digest in layers.list().unwrap() {
        let root = place.join("layers").join(digest.hex());
        let files: usize = (0..7)
            .map(|number| fs::read_dir(root.join(format!("d{number}"))).unwrap().count())
            .sum();
        assert_eq!(files, FILES, "layer {digest} is whole");
        let sample = fs::read_to_string(root.join("d0/0")).unwrap();
        assert!(!sample.is_empty(), "its files have their content");
    }
}

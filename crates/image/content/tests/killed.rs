//! Whoever loads an image is killed with `kill -9` at any moment; every name leads
//! to a whole image, and the next load needs no repair.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use carrack_content::{Images, LoadLimits};
use carrack_oci::archive::Writer;
use carrack_oci::{Compression, ImageConfig, Platform, Reference};
use carrack_store::BlobStore as _;

/// Where images are loaded; set only for the child this test starts.
const PLACE: &str = "CARRACK_TEST_IMAGES";

fn archive(place: &Path, number: usize) -> Vec<u8> {
    let images = Images::open(place).unwrap();
    let layer = |content: &str| {
        let mut archive = Writer::new(images.layer(Compression::None).unwrap());
        archive.append_bytes("file", content.repeat(20_000).as_bytes()).unwrap();
        archive.finish().unwrap().finish().unwrap()
    };
    let layers = [layer("shared"), layer(&format!("{number}"))];
    let image = images.put_image(ImageConfig::new(&Platform::host()), &layers).unwrap();
    let name: Reference = format!("shop:{number}").parse().unwrap();
    images.tag(&name, &image.digest).unwrap();
    let mut archive = Vec::new();
    images.save(&[name], &mut archive).unwrap();
    archive
}

/// Loads, unnames and collects images, and says so, until it is killed.
#[test]
#[ignore = "the loader that `every_name_leads_to_a_whole_image` starts and kills"]
fn loader() {
    let Some(place) = std::env::var_os(PLACE) else { return };
    let place = Path::new(&place);
    let archives: Vec<Vec<u8>> =
        (0..4).map(|number| archive(&place.join(format!("made-{number}")), number)).collect();
    let images = Images::open(place.join("store")).unwrap();
    let mut output = std::io::stderr();
    for archive in archives.iter().cycle() {
        let loaded = images.load(archive.as_slice(), &LoadLimits::default()).unwrap();
        writeln!(output, "loaded {}", loaded[0].digest).unwrap();
        let first = images.list().unwrap().remove(0);
        images.untag(&first.reference).unwrap();
        images.gc(&[]).unwrap();
    }
}

fn start(place: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "loader", "--ignored", "--nocapture", "--test-threads=1"])
        .env(PLACE, place)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn every_name_leads_to_a_whole_image() {
    let directory = tempfile::tempdir().unwrap();
    let probe = archive(&directory.path().join("probe"), 99);
    for round in 0..24_u64 {
        let mut child = start(directory.path());
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        lines.next().unwrap().unwrap();
        // Killing at moments spread over the next load is what is being tested.
        std::thread::sleep(Duration::from_micros(round * 900));
        child.kill().unwrap();
        child.wait().unwrap();

        let images = Images::open(directory.path().join("store")).unwrap();
        for named in images.list().unwrap() {
            let image = images.get(&named.digest).unwrap();
            for (layer, _) in image.layers() {
                images.blobs().read(&layer.digest, u64::MAX).unwrap();
            }
        }
        images.load(probe.as_slice(), &LoadLimits::default()).unwrap();
        images.gc(&[]).unwrap();
    }
}

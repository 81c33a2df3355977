//! The image that callers run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use carrack_testkit::archive::{Entry, oci_archive, tar};

/// Its name.
pub const IMAGE: &str = "docker.io/library/busy:1";

/// Busybox, all of its commands, and two users.
fn layer() -> Vec<u8> {
    let busybox = fs::read("/bin/busybox").expect("busybox-static is installed");
    let listed = Command::new("/bin/busybox").arg("--list").output().expect("busybox starts");
    let names = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut entries: Vec<Entry> =
        ["bin", "etc", "tmp", "root", "proc", "sys", "dev"].map(Entry::directory).to_vec();
    entries.push(Entry::file("bin/busybox", &busybox));
    let links = names.lines().filter(|name| *name != "busybox");
    entries.extend(links.map(|name| Entry::link(b'2', &format!("bin/{name}"), "busybox")));
    let users = "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n";
    entries.push(Entry::file("etc/passwd", users.as_bytes()));
    entries.push(Entry::file("etc/group", b"root:x:0:\nuser:x:1000:\n"));
    tar(&entries)
}

/// Writes it as an OCI archive.
///
/// # Panics
///
/// When it cannot be written, or busybox is missing.
pub fn write_image(directory: &Path) -> PathBuf {
    let path = directory.join("image.tar");
    fs::write(&path, oci_archive(IMAGE, &layer(), None)).expect("the image is written");
    path
}

/// Writes its one layer, which some callers import.
///
/// # Panics
///
/// When it cannot be written, or busybox is missing.
pub fn write_layer(directory: &Path) -> PathBuf {
    let path = directory.join("layer.tar");
    fs::write(&path, layer()).expect("the layer is written");
    path
}

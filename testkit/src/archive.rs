//! Hand-made tar layers and OCI archives, hostile ones too: nothing here is
//! checked, so that the program under test has something to refuse.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::json;

/// One entry of a tar archive, exactly as given.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// Its path, written as it is.
    pub path: String,
    /// The type flag: `b'0'` file, `b'1'` hard link, `b'2'` symlink, `b'3'` character device, `b'5'` directory.
    pub kind: u8,
    /// The link's target.
    pub link: String,
    /// The file's bytes.
    pub content: Vec<u8>,
    /// The size the header claims, when it lies.
    pub claimed_size: Option<u64>,
}

impl Entry {
    /// A regular file.
    pub fn file(path: &str, content: &[u8]) -> Self {
        Self { path: path.into(), kind: b'0', content: content.to_vec(), ..Self::default() }
    }

    /// A directory.
    pub fn directory(path: &str) -> Self {
        Self { path: path.into(), kind: b'5', ..Self::default() }
    }

    /// A symbolic (`b'2'`) or hard (`b'1'`) link.
    pub fn link(kind: u8, path: &str, target: &str) -> Self {
        Self { path: path.into(), kind, link: target.into(), ..Self::default() }
    }

    fn header(&self) -> [u8; 512] {
        let mut header = [0_u8; 512];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        let size = self.claimed_size.unwrap_or(self.content.len() as u64);
        put(0, self.path.as_bytes());
        put(100, b"0000755\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{size:011o}\0").as_bytes());
        put(136, b"00000000000\0");
        put(148, b"        ");
        put(156, &[self.kind]);
        put(157, self.link.as_bytes());
        put(257, b"ustar\x0000");
        put(329, b"0000001\0");
        put(337, b"0000003\0");
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header
    }
}

/// The bytes of a tar archive of `entries`.
pub fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        bytes.extend(entry.header());
        bytes.extend(&entry.content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// The lower-case hexadecimal SHA-256 of `bytes`, by `sha256sum`: not by the code under test.
///
/// # Panics
///
/// When `sha256sum` is missing.
pub fn sha256(bytes: &[u8]) -> String {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sha256sum starts");
    child.stdin.take().expect("a pipe").write_all(bytes).expect("sha256sum reads");
    let output = child.wait_with_output().expect("sha256sum ends");
    String::from_utf8_lossy(&output.stdout).split(' ').next().expect("a digest").to_owned()
}

/// An OCI archive of one image, `name`, with one uncompressed layer.
/// `digest` replaces the layer's true digest, when it lies.
pub fn oci_archive(name: &str, layer: &[u8], digest: Option<&str>) -> Vec<u8> {
    let true_digest = sha256(layer);
    let layer_digest = digest.unwrap_or(&true_digest);
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]},
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &sha256(&config), config.len()),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer_digest, layer.len())],
    });
    let manifest = manifest.to_string().into_bytes();
    let mut named = descriptor(
        "application/vnd.oci.image.manifest.v1+json",
        &sha256(&manifest),
        manifest.len(),
    );
    named["annotations"] =
        json!({"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [named]}).to_string();
    let blob = |digest: &str, bytes: &[u8]| Entry::file(&format!("blobs/sha256/{digest}"), bytes);
    tar(&[
        Entry::file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
        Entry::file("index.json", index.as_bytes()),
        blob(&sha256(&manifest), &manifest),
        blob(&sha256(&config), &config),
        blob(layer_digest, layer),
    ])
}

fn descriptor(media_type: &str, digest: &str, size: usize) -> serde_json::Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size})
}

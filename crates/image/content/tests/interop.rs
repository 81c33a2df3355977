//! Archives that cross between this store and other people's programs, both ways.
//! A program that is not installed skips its test and says so.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "a test that is skipped says why")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use carrack_content::{Image, Images, LoadLimits};
use carrack_oci::archive::Writer;
use carrack_oci::{Compression, ImageConfig, Platform, Reference};

const NAME: &str = "localhost/shop/api:1.2";

/// A store with one image in it, saved as `ours.tar`.
struct Machine {
    directory: tempfile::TempDir,
    image: Image,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let images = Images::open(directory.path().join("store")).unwrap();
        let layers = [Compression::Gzip, Compression::None].map(|compression| {
            let mut archive = Writer::new(images.layer(compression).unwrap());
            archive.append_bytes(&format!("etc/{compression:?}"), b"content").unwrap();
            archive.finish().unwrap().finish().unwrap()
        });
        let mut config = ImageConfig::new(&Platform::host());
        config.config.cmd = vec!["/bin/true".to_owned()];
        config.config.set_variable("CARGO", "nutmeg");
        let image = images.put_image(config, &layers).unwrap();
        let name: Reference = NAME.parse().unwrap();
        images.tag(&name, &image.digest).unwrap();
        let output = File::create(directory.path().join("ours.tar")).unwrap();
        images.save(&[name], output).unwrap();
        Self { directory, image }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn shown(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Loads `archive` into an empty store; it must have our image in it, under
    /// `name` if one is expected.
    #[track_caller]
    fn assert_loads(&self, archive: &str, name: Option<&str>) {
        let images = Images::open(self.path(&format!("{archive}.store"))).unwrap();
        let file = File::open(self.path(archive)).unwrap();
        let loaded = images.load(file, &LoadLimits::default()).unwrap();
        let [loaded] = loaded.as_slice() else { panic!("{archive}: {loaded:?}") };
        let names: Vec<String> = loaded.references.iter().map(ToString::to_string).collect();
        assert_eq!(names, name.into_iter().collect::<Vec<_>>(), "{archive}");
        let image = images.get(&loaded.digest).unwrap();
        assert_eq!(image.config.rootfs.diff_ids, self.image.config.rootfs.diff_ids, "{archive}");
        assert_eq!(image.config.config.variable("CARGO"), Some("nutmeg"), "{archive}");
        assert_eq!(image.config.config.cmd, ["/bin/true"], "{archive}");
    }

    /// Podman and buildah with a storage of their own.
    fn storage(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["--storage-driver", "vfs"]);
        command.arg("--root").arg(self.path("storage")).arg("--runroot").arg(self.path("run"));
        command
    }
}

fn is_missing(program: &str) -> bool {
    let is_missing = Command::new(program).arg("--version").output().is_err();
    if is_missing {
        println!("skipped: {program} is not installed");
    }
    is_missing
}

#[track_caller]
fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn skopeo(arguments: &[&str]) -> Output {
    run(Command::new("skopeo").arg("--insecure-policy").args(arguments))
}

/// Packs a directory as an archive, as `tar -c` does.
fn pack(directory: &Path, archive: &Path) {
    run(Command::new("tar").arg("-C").arg(directory).arg("-cf").arg(archive).arg("."));
}

#[test]
fn skopeo_reads_what_is_saved() {
    if is_missing("skopeo") {
        return;
    }
    let machine = Machine::new();
    let source = format!("oci-archive:{}", machine.shown("ours.tar"));
    let output = skopeo(&["inspect", &source]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["Digest"], machine.image.digest.to_string());
    assert_eq!(found["Env"][0], "CARGO=nutmeg");
    skopeo(&["inspect", &format!("{source}:{NAME}")]);
    skopeo(&["inspect", &format!("docker-archive:{}", machine.shown("ours.tar"))]);
}

#[test]
fn what_skopeo_writes_is_loaded() {
    if is_missing("skopeo") {
        return;
    }
    let machine = Machine::new();
    let source = format!("oci-archive:{}", machine.shown("ours.tar"));
    let copy = |to: String| skopeo(&["copy", "--quiet", &source, &to]);
    copy(format!("oci-archive:{}:{NAME}", machine.shown("named.tar")));
    machine.assert_loads("named.tar", Some(NAME));
    copy(format!("oci-archive:{}", machine.shown("bare.tar")));
    machine.assert_loads("bare.tar", None);
    copy(format!("docker-archive:{}:{NAME}", machine.shown("docker.tar")));
    machine.assert_loads("docker.tar", Some(NAME));
    copy(format!("oci:{}:{NAME}", machine.shown("layout")));
    pack(&machine.path("layout"), &machine.path("packed.tar"));
    machine.assert_loads("packed.tar", Some(NAME));
    let zstd = format!("oci-archive:{}:{NAME}", machine.shown("zstd.tar"));
    skopeo(&["copy", "--quiet", "--dest-compress-format", "zstd", &source, &zstd]);
    machine.assert_loads("zstd.tar", Some(NAME));
}

#[test]
fn podman_takes_what_is_saved_and_gives_what_is_loaded() {
    if is_missing("podman") {
        return;
    }
    let machine = Machine::new();
    let podman = || machine.storage("podman");
    run(podman().args(["load", "--quiet", "--input"]).arg(machine.path("ours.tar")));
    let output = run(podman().args(["inspect", "--format", "{{.Config.Env}}", NAME]));
    assert!(String::from_utf8_lossy(&output.stdout).contains("CARGO=nutmeg"));
    for format in ["oci-archive", "docker-archive"] {
        let archive = format!("{format}.tar");
        run(podman()
            .args(["save", "--quiet", "--format", format, "--output"])
            .arg(machine.path(&archive))
            .arg(NAME));
        machine.assert_loads(&archive, Some(NAME));
    }
}

#[test]
fn buildah_takes_what_is_saved_and_gives_what_is_loaded() {
    if is_missing("buildah") {
        return;
    }
    let machine = Machine::new();
    let buildah = || machine.storage("buildah");
    let source = format!("oci-archive:{}", machine.shown("ours.tar"));
    run(buildah().args(["pull", "--quiet", &source]));
    for kind in ["oci-archive", "docker-archive"] {
        let archive = format!("buildah-{kind}.tar");
        let to = format!("{kind}:{}:{NAME}", machine.shown(&archive));
        run(buildah().args(["push", "--quiet", NAME, &to]));
        machine.assert_loads(&archive, Some(NAME));
    }
}

#[test]
fn umoci_unpacks_what_is_saved_and_its_layouts_are_loaded() {
    if is_missing("umoci") {
        return;
    }
    let machine = Machine::new();
    let layout = machine.path("layout");
    fs::create_dir(&layout).unwrap();
    run(Command::new("tar").arg("-C").arg(&layout).arg("-xf").arg(machine.path("ours.tar")));
    let image = format!("{}:{NAME}", layout.display());
    let bundle = machine.path("bundle");
    run(Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle));
    assert_eq!(fs::read(bundle.join("rootfs/etc/Gzip")).unwrap(), b"content");
    let label = ["config", "--config.label", "by=umoci", "--no-history", "--image", &image];
    run(Command::new("umoci").args(label));
    pack(&layout, &machine.path("umoci.tar"));
    machine.assert_loads("umoci.tar", Some(NAME));
}

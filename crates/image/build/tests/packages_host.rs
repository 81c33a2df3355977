//! Images of real packages, from the package sources this machine is set up with.
//!
//! These tests need those sources to answer; where they do not, a test says so and
//! passes. What is refused is shown without any network in `packages_chain.rs`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its own functions too")]
#![expect(clippy::print_stdout, reason = "a test that skips says why")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

use carrack_build::frontend::packages::{PackagesEnvironment, PackagesError, Recipe, build_recipe};
use carrack_build::{BuildEvent, Progress};
use carrack_content::Images;
use carrack_oci::Digest;

#[derive(Default)]
struct Heard(Mutex<Vec<BuildEvent>>);

impl Progress for Heard {
    fn event(&self, event: BuildEvent) {
        self.0.lock().unwrap().push(event);
    }
}

/// A store and a cache of their own.
struct Place {
    directory: tempfile::TempDir,
    images: Images,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let images = Images::open(directory.path().join("store")).unwrap();
        Self { directory, images }
    }

    /// The manifest's digest and what was told; `None` when no source answers.
    fn build(&self, recipe: &str) -> Option<(Digest, Vec<BuildEvent>)> {
        let recipe = Recipe::parse(recipe, Path::new("recipe.yaml")).unwrap();
        let cache = self.directory.path().join("packages");
        let environment = PackagesEnvironment::new(cache, "/etc/apt");
        let heard = Heard::default();
        match build_recipe(&recipe, &environment, &self.images, None, &heard) {
            Ok(digest) => Some((digest, heard.0.into_inner().unwrap())),
            Err(error @ (PackagesError::NoSources { .. } | PackagesError::Unanswered { .. })) => {
                println!("skipped: {error}");
                None
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    /// The image's only layer, unpacked.
    fn root(&self, manifest: &Digest) -> PathBuf {
        let root = self.directory.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let layer = self.images.get(manifest).unwrap().manifest.layers[0].digest.clone();
        let blob = self.images.blobs().blob(&layer).unwrap();
        let status = Command::new("tar")
            .args(["--extract", "--preserve-permissions", "--numeric-owner", "--directory"])
            .arg(&root)
            .stdin(blob)
            .status()
            .unwrap();
        assert!(status.success());
        root
    }
}

fn run_in(root: &Path, command: &[&str]) -> Output {
    Command::new("chroot").arg(root).args(command).output().unwrap()
}

/// A recipe of the example application.
fn example(name: &str) -> String {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../examples/shop/images");
    std::fs::read_to_string(images.join(name).with_extension("yaml")).unwrap()
}

#[track_caller]
fn prints(root: &Path, command: &[&str], expected: &str) {
    let output = run_in(root, command);
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains(expected), "{command:?}: {text}");
}

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("skipped: needs root to enter the image");
    }
    is_root
}

#[test]
fn a_python_image_runs_python_and_knows_its_packages() {
    let place = Place::new();
    let recipe = "contents: {packages: [python3-minimal, python3, base-files, ca-certificates]}\n\
        accounts: {users: [{username: app, uid: 900}], run-as: app}\n\
        entrypoint: {command: /usr/bin/python3}\n";
    if !is_root() {
        return;
    }
    let Some((digest, _)) = place.build(recipe) else { return };
    let root = place.root(&digest);
    prints(
        &root,
        &["/usr/bin/python3", "-c", "import json, http.server, socket; print(6 * 7)"],
        "42",
    );
    prints(&root, &["/usr/bin/python3", "-c", "import pwd; print(pwd.getpwnam('app'))"], "900");
    prints(
        &root,
        &[
            "/usr/bin/python3",
            "-c",
            "import ssl; print(len(ssl.create_default_context().get_ca_certs()) > 50)",
        ],
        "True",
    );
    assert!(std::fs::read_to_string(root.join("etc/os-release")).unwrap().contains("Debian"));

    let query = |arguments: &[&str]| {
        let admin = root.join("var/lib/dpkg");
        let output = Command::new("dpkg-query")
            .arg("--admindir")
            .arg(admin)
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let listed = query(&["--show", "--showformat", "${db:Status-Abbrev} ${Package}\n"]);
    for package in ["python3-minimal", "libc6", "base-files"] {
        assert!(listed.contains(&format!("ii  {package}\n")), "{listed}");
    }
    assert!(query(&["--listfiles", "python3-minimal"]).contains("/usr/bin/python3\n"));
    assert!(query(&["--search", "/usr/bin/python3"]).starts_with("python3-minimal:"));
    let verified =
        Command::new("dpkg").arg("--root").arg(&root).args(["--verify"]).output().unwrap();
    assert!(verified.stdout.is_empty(), "{}", String::from_utf8_lossy(&verified.stdout));
}

#[test]
fn an_nginx_image_runs_nginx() {
    let place = Place::new();
    if !is_root() {
        return;
    }
    let Some((digest, _)) = place.build(&example("nginx")) else { return };
    let root = place.root(&digest);
    prints(&root, &["/usr/sbin/nginx", "-v"], "nginx/");
    std::fs::write(
        root.join("etc/nginx/nginx.conf"),
        "events {}\nhttp { server { listen 8080; } }\n",
    )
    .unwrap();
    std::fs::create_dir_all(root.join("dev")).unwrap();
    prints(&root, &["/usr/sbin/nginx", "-t"], "test is successful");
}

#[test]
fn a_redis_image_runs_redis() {
    let place = Place::new();
    if !is_root() {
        return;
    }
    let Some((digest, _)) = place.build(&example("redis")) else { return };
    let root = place.root(&digest);
    prints(&root, &["/usr/bin/redis-server", "--version"], "Redis server");
}

#[test]
fn the_same_packages_make_the_same_image_from_empty_caches() {
    let recipe = "contents: {packages: [redis-tools, base-files]}\n";
    let (first, second) = (Place::new(), Place::new());
    let Some((one, _)) = first.build(recipe) else { return };
    let Some((two, _)) = second.build(recipe) else { return };
    assert_eq!(one, two);

    let (again, told) = first.build(recipe).unwrap();
    assert_eq!(again, one);
    assert_eq!(told, [], "the second build fetches nothing");
}

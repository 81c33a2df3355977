//! A builder with stores of its own, thrown away afterwards.

#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says why")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use carrack_build::frontend::packages::PackagesEnvironment;
use carrack_build::{
    BuildError, BuildEvent, BuildRequest, Builder, BuilderConfig, Built, DockerfileSource, Progress,
};
use carrack_content::{Image, Images};
use carrack_oci::archive;
use carrack_rootfs::Layers;

/// Everything a build told.
#[derive(Debug, Default)]
pub(crate) struct Heard(Mutex<Vec<BuildEvent>>);

impl Progress for Heard {
    fn event(&self, event: BuildEvent) {
        self.0.lock().expect("nobody panicked").push(event);
    }
}

impl Heard {
    /// What commands wrote.
    pub(crate) fn output(&self) -> String {
        let events = self.0.lock().expect("nobody panicked");
        let bytes = events.iter().filter_map(|event| match event {
            BuildEvent::StepOutput { bytes, .. } => Some(bytes.as_slice()),
            _ => None,
        });
        String::from_utf8_lossy(&bytes.collect::<Vec<_>>().concat()).into_owned()
    }

    pub(crate) fn messages(&self) -> Vec<String> {
        let events = self.0.lock().expect("nobody panicked");
        let messages = events.iter().filter_map(|event| match event {
            BuildEvent::Message(message) => Some(message.clone()),
            _ => None,
        });
        messages.collect()
    }
}

pub(crate) struct Scene {
    pub(crate) directory: Directory,
    pub(crate) images: Arc<Images>,
    pub(crate) heard: Heard,
}

/// A scene's directory: its own to throw away, or another process's.
pub(crate) enum Directory {
    Ours(tempfile::TempDir),
    Theirs(PathBuf),
}

impl Directory {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Ours(directory) => directory.path(),
            Self::Theirs(path) => path,
        }
    }
}

impl Scene {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let directory = Directory::Ours(tempfile::tempdir().expect("a directory"));
        fs::create_dir(directory.path().join("context")).expect("a context");
        let scene = Self::at(directory);
        for (path, content) in files {
            scene.write(path, content);
        }
        scene
    }

    /// The scene that another process made.
    pub(crate) fn open(path: &Path) -> Self {
        Self::at(Directory::Theirs(path.to_owned()))
    }

    fn at(directory: Directory) -> Self {
        let images = Images::open(directory.path().join("store")).expect("a store");
        Self { directory, images: Arc::new(images), heard: Heard::default() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// How many workspaces there are.
    pub(crate) fn live_workspaces(&self) -> usize {
        fs::read_dir(self.path().join("build/steps/live")).expect("a directory").count()
    }

    pub(crate) fn context(&self) -> PathBuf {
        self.directory.path().join("context")
    }

    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.context().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(path, content).expect("a file");
    }

    pub(crate) fn builder(&self) -> Builder {
        let layers =
            Layers::open(self.directory.path().join("layers"), Arc::clone(self.images.blobs()));
        Builder::open(self.config(), Arc::clone(&self.images), layers.expect("layers"))
            .expect("a builder")
    }

    fn config(&self) -> BuilderConfig {
        let at = |name: &str| self.directory.path().join(name);
        BuilderConfig {
            directory: at("build"),
            run_directory: at("run/build"),
            runtime_root: at("run/runtime"),
            runtime_program: runtime_program().unwrap_or_else(|| at("missing")),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            packages: PackagesEnvironment::new(at("packages"), "/etc/apt"),
        }
    }

    pub(crate) fn request(&self, dockerfile: &str) -> BuildRequest {
        BuildRequest {
            dockerfile: DockerfileSource::Text(dockerfile.to_owned()),
            ..BuildRequest::new(self.context())
        }
    }

    pub(crate) fn try_build(&self, request: &BuildRequest) -> Result<Built, BuildError> {
        self.builder().build(request, &self.heard)
    }

    #[track_caller]
    pub(crate) fn build(&self, dockerfile: &str) -> Built {
        match self.try_build(&self.request(dockerfile)) {
            Ok(built) => built,
            Err(error) => panic!("{}\n{}", chain(&error), self.heard.output()),
        }
    }

    #[track_caller]
    pub(crate) fn refused(&self, dockerfile: &str) -> String {
        match self.try_build(&self.request(dockerfile)) {
            Ok(built) => panic!("was built: {built:?}"),
            Err(error) => chain(&error),
        }
    }

    pub(crate) fn image(&self, built: &Built) -> Image {
        self.images.get(&built.digest).expect("the image")
    }

    /// Every entry of every layer, the lowest first: `path mode uid:gid`, and the content's
    /// first line or the link's target.
    pub(crate) fn entries(&self, built: &Built) -> Vec<String> {
        let image = self.image(built);
        let mut found = Vec::new();
        for (descriptor, _) in image.layers() {
            let blob = self.images.blobs().blob(&descriptor.digest).expect("a layer");
            let mut reader = archive::Reader::new(blob);
            while let Some(entry) = reader.next_entry().expect("an archive") {
                found.push(shown(&entry, &mut reader));
            }
        }
        found
    }

    /// Puts a static busybox with its usual names in the context. `None`: there is none here.
    pub(crate) fn busybox(&self) -> Option<()> {
        let program = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new);
        let Some(program) = program.into_iter().find(|path| path.exists()) else {
            println!("skipped: no busybox on this machine; install busybox-static");
            return None;
        };
        let bin = self.context().join("root/bin");
        fs::create_dir_all(&bin).expect("directories");
        fs::copy(program, bin.join("busybox")).expect("a copy");
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(bin.join("busybox"), mode).expect("a mode");
        for name in [
            "sh", "cat", "echo", "id", "ls", "mkdir", "rm", "touch", "true", "env", "ln", "wget",
            "pwd", "chmod", "chown", "ip", "sleep", "stat", "mount", "hostname",
        ] {
            std::os::unix::fs::symlink("busybox", bin.join(name)).expect("a link");
        }
        self.write("root/etc/passwd", "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n");
        self.write("root/etc/group", "root:x:0:\nweb:x:34:\nlogs:x:50:web\n");
        fs::create_dir(self.context().join("root/tmp")).expect("a directory");
        Some(())
    }
}

/// The runtime, where it was built beside this test.
pub(crate) fn runtime_program() -> Option<PathBuf> {
    let test = std::env::current_exe().expect("a path");
    let program = test.parent()?.parent()?.join("carrack-runtime");
    if program.exists() {
        return Some(program);
    }
    println!("skipped: no carrack-runtime beside this test; run `cargo build -p carrack-runtime`");
    None
}

fn shown(entry: &archive::Entry, content: &mut impl std::io::Read) -> String {
    let path = String::from_utf8_lossy(&entry.path);
    let what = match &entry.kind {
        archive::Kind::File => {
            let mut text = Vec::new();
            content.read_to_end(&mut text).expect("content");
            let text = String::from_utf8_lossy(&text);
            format!(" {}", text.lines().next().unwrap_or_default())
        }
        archive::Kind::Symlink(target) => format!(" -> {}", String::from_utf8_lossy(target)),
        archive::Kind::HardLink(target) => format!(" = {}", String::from_utf8_lossy(target)),
        _ => String::new(),
    };
    format!("{path} {:o} {}:{}{what}", entry.mode, entry.uid, entry.gid)
}

/// An error and everything beneath it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

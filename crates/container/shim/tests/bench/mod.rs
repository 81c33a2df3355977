//! A container to try the shim with: the host's own programs in a directory of its own.

#![allow(dead_code, reason = "each test program uses its own part of this")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use carrack_container_runtime::Runtime;
use carrack_shim::{Client, ExecConfig, Log, ShimConfig, record};
use serde_json::{Value, json};

/// Where a container and its shim live, for one test. All of it ends with it.
pub(crate) struct Bench {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) config: ShimConfig,
}

impl Bench {
    /// A container that runs `script` in a shell; `None`, with the reason printed, where
    /// containers cannot be made.
    pub(crate) fn new(script: &str) -> Option<Self> {
        Self::running(&["/bin/sh", "-c", script])
    }

    /// A container that runs `arguments`.
    pub(crate) fn running(arguments: &[&str]) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: making containers needs root");
            return None;
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("shim-test-{}-{count}", std::process::id());
        let directory = tempfile::tempdir().expect("a directory");
        let bundle = directory.path().join("bundle");
        make_bundle(&bundle, &id, arguments);
        let log = Log::Lines {
            path: directory.path().join("logs/log"),
            max_bytes: 1 << 20,
            max_files: 3,
        };
        let config = ShimConfig {
            id,
            bundle,
            runtime_root: directory.path().join("runtime"),
            terminal: false,
            open_stdin: false,
            log,
            init: false,
        };
        Some(Self { directory, config })
    }

    /// With a terminal, and its input open.
    pub(crate) fn with_terminal(mut self) -> Self {
        self.config.terminal = true;
        self.config.open_stdin = true;
        self.change(|spec| spec["process"]["terminal"] = json!(true));
        self
    }

    /// Changes `config.json`.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Value)) {
        let path = self.config.bundle.join("config.json");
        let mut spec = serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
        change(&mut spec);
        fs::write(path, serde_json::to_vec(&spec).expect("JSON")).expect("written");
    }

    pub(crate) fn shim_directory(&self) -> PathBuf {
        self.directory.path().join("shim")
    }

    pub(crate) fn spawn(&self) -> Client {
        Client::spawn(&program(), &self.shim_directory(), &self.config).expect("a shim")
    }

    /// Spawned and started.
    pub(crate) fn start(&self) -> Client {
        let client = self.spawn();
        client.start().expect("started");
        client
    }

    /// The text of every line logged, from the oldest file to the newest.
    pub(crate) fn log(&self) -> Vec<String> {
        let directory = self.directory.path().join("logs");
        let mut lines = Vec::new();
        for name in ["log.2", "log.1", "log"] {
            let text = fs::read_to_string(directory.join(name)).unwrap_or_default();
            lines.extend(text.lines().map(|line| {
                let (_, rest) = line.split_once(' ').expect("a time");
                rest.to_owned()
            }));
        }
        lines
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let directory = self.shim_directory();
        if let Ok(client) = Client::connect(&directory) {
            client.delete(true).expect("deleted");
            return;
        }
        if let Ok(Some(init)) = record::read_init(&directory)
            && let Ok(Some(handle)) = init.open()
        {
            carrack_linux::process::signal(std::os::fd::AsFd::as_fd(&handle), libc::SIGKILL).ok();
        }
        // Whatever a dead shim left; there is nothing to delete after an orderly end.
        if let Ok(id) = self.config.id.parse() {
            Runtime::new(&self.config.runtime_root).delete(&id, true).ok();
        }
    }
}

/// The example next to this test program, or what `CARRACK_RUNTIME` names.
pub(crate) fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("CARRACK_RUNTIME") {
        return program.into();
    }
    let own = std::env::current_exe().expect("own path");
    own.ancestors().nth(2).expect("the profile's directory").join("examples/shim")
}

/// A process that runs `script` in a shell.
pub(crate) fn exec(script: &str) -> ExecConfig {
    let process = json!({
        "user": { "uid": 0, "gid": 0 },
        "args": ["/bin/sh", "-c", script],
        "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
        "cwd": "/",
    });
    let process = serde_json::from_value(process).expect("a process");
    ExecConfig { process, stdin: false, detached: false }
}

fn make_bundle(bundle: &Path, id: &str, arguments: &[&str]) {
    let root = bundle.join("rootfs");
    for name in ["usr", "proc", "dev", "tmp"] {
        fs::create_dir_all(root.join(name)).expect("made");
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), root.join(name)).expect("linked");
    }
    let bind = json!({
        "destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]
    });
    let spec = json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": arguments,
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
        },
        "root": { "path": "rootfs", "readonly": false },
        "mounts": [
            bind,
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
        ],
        "linux": {
            "cgroupsPath": format!("/{id}"),
            "namespaces": [
                { "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" },
                { "type": "network" },
            ],
        },
    });
    fs::write(bundle.join("config.json"), serde_json::to_vec(&spec).expect("JSON"))
        .expect("written");
}

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use carrack_oci::runtime::defaults::{DefaultSpec, default_spec};
use serde_json::{Value, json};

pub(crate) const RUNTIME: &str = env!("CARGO_BIN_EXE_carrack-runtime");

/// A bundle with busybox in it, and a state directory of its own.
pub(crate) struct Bundle {
    directory: tempfile::TempDir,
    pub(crate) config: Value,
    pub(crate) id: String,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    fn new(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "it failed: {}{}", self.out, self.err);
        self.out
    }

    #[track_caller]
    pub(crate) fn fails_with(self, words: &[&str]) -> Self {
        assert_ne!(self.code, 0, "it succeeded: {}", self.out);
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not in: {}", self.err);
        }
        self
    }
}

fn busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"].into_iter().map(PathBuf::from).find(|path| path.exists())
}

impl Bundle {
    /// A bundle whose program is a shell script; `None`, with a word why, where containers
    /// cannot be made.
    pub(crate) fn script(script: &str) -> Option<Self> {
        Self::program(&["/bin/sh", "-c", script])
    }

    /// A bundle with this program.
    pub(crate) fn program(args: &[&str]) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: making containers needs root here");
            return None;
        }
        let Some(busybox) = busybox() else {
            eprintln!("skipped: install busybox-static");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("rootfs");
        for name in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::copy(busybox, root.join("bin/busybox")).unwrap();
        for name in [
            "sh", "cat", "ls", "id", "echo", "sleep", "true", "false", "grep", "head", "hostname",
            "mount", "ps", "env", "dd", "touch", "stat", "readlink", "kill", "mkdir", "rm", "wc",
            "tty", "stty", "umask", "mknod", "ulimit", "chmod", "ln",
        ] {
            symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        let spec = default_spec(&DefaultSpec {
            args: args.iter().map(ToString::to_string).collect(),
            hostname: Some("box".into()),
            ..DefaultSpec::default()
        });
        let id = format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut config = serde_json::to_value(spec).unwrap();
        config["linux"]["cgroupsPath"] = json!(format!("/carrack-test-{id}"));
        Some(Self { directory, config, id })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    /// A command on this bundle's state directory, its configuration written.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        fs::write(self.path().join("config.json"), self.config.to_string()).unwrap();
        let mut command = Command::new(RUNTIME);
        command
            .arg("--root")
            .arg(self.path().join("state"))
            .args(arguments)
            .current_dir(self.path());
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn runtime(&self, arguments: &[&str]) -> Said {
        // Not captured through pipes that a container keeps open: through files.
        let [out, err] = ["out", "err"].map(|name| {
            let count = fs::read_dir(self.path()).unwrap().count();
            self.path().join(format!("{name}-{count}"))
        });
        let mut command = self.command(arguments);
        command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
        let status = command.status().unwrap();
        Said {
            code: status.code().unwrap_or(-1),
            out: fs::read_to_string(out).unwrap(),
            err: fs::read_to_string(err).unwrap(),
        }
    }

    /// Runs it to its end.
    pub(crate) fn run(&self) -> Said {
        Said::new(&self.command(&["run", &self.id]).output().unwrap())
    }

    /// Creates and starts it.
    #[track_caller]
    pub(crate) fn started(&self) {
        self.runtime(&["create", &self.id]).ok();
        self.runtime(&["start", &self.id]).ok();
    }

    #[track_caller]
    pub(crate) fn state(&self) -> Value {
        serde_json::from_str(&self.runtime(&["state", &self.id]).ok()).unwrap()
    }

    pub(crate) fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    /// Waits for the end of a container that was started.
    pub(crate) fn wait(&self) {
        let Some(pid) = self.state()["pid"].as_i64().filter(|&pid| pid > 0) else { return };
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        if let Ok(pidfd) = carrack_linux::process::open(pid) {
            let mut watched = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut watched, None).unwrap();
        }
    }

    pub(crate) fn mounts(&mut self) -> &mut Vec<Value> {
        self.config["mounts"].as_array_mut().unwrap()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let state = self.path().join("state").join(&self.id);
        if state.exists() {
            self.command(&["delete", "--force", &self.id]).output().ok();
        }
    }
}

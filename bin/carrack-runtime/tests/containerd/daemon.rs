//! A containerd of our own, with private directories, and its client.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::image;

/// The shim, and the runtime it stands for in containerd's words.
pub(crate) const SHIM: &str = "containerd-shim-carrack-v2";
pub(crate) const RUNTIME: &str = "io.containerd.carrack.v2";

/// A running daemon; it and its containers end with this.
pub(crate) struct Daemon {
    directory: tempfile::TempDir,
    programs: Option<PathBuf>,
    process: Child,
}

/// What the client said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn new(output: &Output) -> Self {
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
    pub(crate) fn fails_with(self, words: &[&str]) {
        assert_ne!(self.code, 0, "it succeeded: {}", self.out);
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not in: {}", self.err);
        }
    }
}

impl Daemon {
    /// Starts one that knows the image; `None`, with a word why, where that cannot be.
    pub(crate) fn start() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: containerd needs root here");
            return None;
        }
        let Some(busybox) = image::busybox() else {
            eprintln!("skipped: install busybox-static");
            return None;
        };
        let programs = std::env::var_os("CARRACK_TEST_CONTAINERD").map(PathBuf::from);
        let found = |name: &str| match &programs {
            Some(programs) => programs.join(name).exists(),
            None => Path::new("/usr/bin").join(name).exists(),
        };
        if !found("containerd") || !found("ctr") {
            eprintln!("skipped: install containerd");
            return None;
        }
        let directory = tempfile::Builder::new().prefix("ctd").tempdir().unwrap();
        let path = directory.path();
        fs::create_dir(path.join("bin")).unwrap();
        symlink(env!("CARGO_BIN_EXE_carrack-runtime"), path.join("bin").join(SHIM)).unwrap();
        fs::write(path.join("config.toml"), config(path)).unwrap();
        let archive = image::write(path, &busybox);
        let process = spawn(path, programs.as_deref());
        let daemon = Self { directory, programs, process };
        daemon.wait_until_up();
        daemon.ctr(&["image", "import", archive.to_str().unwrap()]).ok();
        Some(daemon)
    }

    /// Whether it is that of the package, and not one named for the test.
    pub(crate) fn is_debians(&self) -> bool {
        self.programs.is_none()
    }

    /// A name that no other test uses: records of one namespace are in one place.
    pub(crate) fn name(&self, name: &str) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        format!("{name}-{}-{count}", std::process::id())
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The client, pointed at this daemon. It is given up after half a minute.
    pub(crate) fn client(&self) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--foreground", "30"]);
        command.arg(self.programs.as_ref().map_or("ctr".into(), |programs| programs.join("ctr")));
        command.arg("--address").arg(self.path().join("c.sock"));
        command
    }

    pub(crate) fn ctr(&self, arguments: &[&str]) -> Said {
        Said::new(&self.client().args(arguments).stdin(Stdio::null()).output().unwrap())
    }

    /// Runs a shell script in a container that is gone afterwards.
    pub(crate) fn run(&self, options: &[&str], id: &str, script: &str) -> Said {
        let mut arguments = vec!["run", "--rm", "--runtime", RUNTIME];
        arguments.extend(options);
        arguments.extend([image::NAME, id, "sh", "-c", script]);
        self.ctr(&arguments)
    }

    /// Leaves a container running a shell script.
    pub(crate) fn detached(&self, options: &[&str], id: &str, script: &str) {
        let mut arguments = vec!["run", "--detach", "--runtime", RUNTIME];
        arguments.extend(options);
        arguments.extend([image::NAME, id, "sh", "-c", script]);
        self.ctr(&arguments).ok();
    }

    pub(crate) fn exec(&self, id: &str, exec_id: &str, script: &str) -> Said {
        self.ctr(&["task", "exec", "--exec-id", exec_id, id, "sh", "-c", script])
    }

    /// Deletes a container that has ended; the client tells its exit code if it is not 0.
    #[track_caller]
    pub(crate) fn delete(&self, id: &str) -> i32 {
        let said = self.ctr(&["task", "delete", id]);
        let code = said.err.split("non-zero exit code ").nth(1).map(|code| {
            code.trim_end().trim_end_matches('"').parse().unwrap_or_else(|_| panic!("{code:?}"))
        });
        said.ok();
        code.unwrap_or(0)
    }

    /// A container's state, in the client's word.
    pub(crate) fn status(&self, id: &str) -> Option<String> {
        let listed = self.ctr(&["task", "ls"]).ok();
        let line = listed.lines().find(|line| line.split_whitespace().next() == Some(id))?;
        line.split_whitespace().nth(2).map(str::to_owned)
    }

    pub(crate) fn bundle(&self, id: &str) -> PathBuf {
        self.path().join("state/io.containerd.runtime.v2.task/default").join(id)
    }

    /// The shim that was started for a container.
    pub(crate) fn shim(&self, id: &str) -> i32 {
        fs::read_to_string(self.bundle(id).join("shim.pid")).unwrap().parse().unwrap()
    }

    /// Kills the daemon as a crash would, and nothing else.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again after [`Self::kill`].
    pub(crate) fn restart(&mut self) {
        self.process = spawn(self.path(), self.programs.as_deref());
        self.wait_until_up();
    }

    fn wait_until_up(&self) {
        // It offers nothing to await: the client retries by itself for a while.
        for _ in 0..20 {
            if self.ctr(&["--connect-timeout", "2s", "version"]).code == 0 {
                return;
            }
        }
        panic!("containerd did not come up: {}", self.log());
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let listed = self.ctr(&["task", "ls", "-q"]).out;
        for id in listed.lines() {
            self.ctr(&["task", "rm", "--force", id]);
        }
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn config(path: &Path) -> String {
    let path = path.display();
    format!(
        "version = 2\n\
         root = \"{path}/root\"\n\
         state = \"{path}/state\"\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
         [grpc]\naddress = \"{path}/c.sock\"\n\
         [ttrpc]\naddress = \"{path}/c.ttrpc\"\n\
         [debug]\nlevel = \"debug\"\n"
    )
}

fn spawn(path: &Path, programs: Option<&Path>) -> Child {
    let log = fs::OpenOptions::new().append(true).create(true).open(path.join("log")).unwrap();
    let mut search = path.join("bin").into_os_string();
    search.push(":");
    search.push(std::env::var_os("PATH").unwrap_or_default());
    let program = programs.map_or("containerd".into(), |programs| programs.join("containerd"));
    Command::new(program)
        .arg("--config")
        .arg(path.join("config.toml"))
        .env("PATH", search)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

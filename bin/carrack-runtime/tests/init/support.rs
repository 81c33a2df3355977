use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) const RUNTIME: &str = env!("CARGO_BIN_EXE_carrack-runtime");

/// The program, written to a file as `init-program` does.
pub(crate) struct Init {
    directory: tempfile::TempDir,
}

impl Init {
    pub(crate) fn new() -> Self {
        let init = Self { directory: tempfile::tempdir().unwrap() };
        let status =
            Command::new(RUNTIME).args(["init-program", "-o"]).arg(init.path()).status().unwrap();
        assert!(status.success());
        init
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("docker-init")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path());
        command.args(arguments).stdin(Stdio::null());
        command
    }
}

/// What a command said.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The init as process 1 of a PID namespace, with a `/proc` that shows it, around a script.
pub(crate) fn container_of_its_own(init: PathBuf, script: &str) -> Option<Command> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: a PID namespace needs root here");
        return None;
    }
    if !Path::new("/usr/bin/unshare").exists() {
        eprintln!("skipped: install util-linux for unshare");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc"]).arg(init).args(["--", "sh", "-c", script]);
    command.stdin(Stdio::null());
    Some(command)
}

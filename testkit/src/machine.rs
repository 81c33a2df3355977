//! One Carrack on directories of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;

/// The built program with a root, a run directory and a page port of its own.
/// When dropped it removes every container, ends the daemon and unmounts.
#[derive(Debug)]
pub struct Machine {
    directory: TempDir,
    page_port: u16,
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// The exit code; -1 when a signal ended it.
    pub code: i32,
    /// Data.
    pub stdout: String,
    /// Messages.
    pub stderr: String,
}

impl Ran {
    /// The command's data, which must have succeeded.
    ///
    /// # Panics
    ///
    /// When it failed, with what it said.
    #[track_caller]
    pub fn expect_ok(self) -> String {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }

    /// The command's messages, which must have failed with `code`.
    ///
    /// # Panics
    ///
    /// When it ended otherwise.
    #[track_caller]
    pub fn expect_failure(self, code: i32) -> String {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stderr
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

impl Machine {
    /// A machine with empty directories.
    ///
    /// # Panics
    ///
    /// When the program was not built (`cargo build -p carrack -p carrack-runtime`).
    pub fn new() -> Self {
        let program = program("carrack");
        assert!(program.is_file(), "{} is missing: build it first", program.display());
        let directory =
            tempfile::Builder::new().prefix("carrack-test-").tempdir().expect("a directory");
        let offset = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        let spread = u16::try_from(std::process::id() % 400).expect("a small number");
        Self { directory, page_port: 24_000 + spread * 20 + offset % 20 }
    }

    /// The directory for what outlives a reboot.
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// The directory for sockets, mounts and bundles.
    pub fn run_dir(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// A directory for the test's own files.
    pub fn files(&self) -> &Path {
        self.directory.path()
    }

    /// The loopback port of the page.
    pub fn page_port(&self) -> u16 {
        self.page_port
    }

    /// A call of the program, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("carrack"));
        command
            .env("CARRACK_ROOT", self.root())
            .env("CARRACK_RUN", self.run_dir())
            .env("CARRACK_PAGE_PORT", self.page_port.to_string())
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Calls the program and waits for its end.
    pub fn carrack(&self, arguments: &[&str]) -> Ran {
        let output = self.command(arguments).output().expect("the program starts");
        output.into()
    }

    /// Calls the program, which must succeed, and reads its data as JSON.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let text = self.carrack(arguments).expect_ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    /// Builds the image `name` with nothing in it but a static busybox.
    #[track_caller]
    pub fn busybox_image(&self, name: &str) {
        let context = self.files().join("busybox");
        fs::create_dir_all(&context).expect("a context");
        fs::copy("/bin/busybox", context.join("busybox")).expect("busybox-static is installed");
        let dockerfile = "FROM scratch\nCOPY busybox /bin/busybox\n\
                          RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
                          ENV PATH=/bin\nCMD [\"sh\"]\n";
        fs::write(context.join("Dockerfile"), dockerfile).expect("a Dockerfile");
        let context = context.to_str().expect("a plain path");
        self.carrack(&["build", "-t", name, context]).expect_ok();
    }

    /// The process ids recorded for the keeper's children, by role.
    pub fn pid_of(&self, role: &str) -> Option<i32> {
        let text = fs::read_to_string(self.run_dir().join(format!("{role}.pid"))).ok()?;
        text.split_whitespace().next()?.parse().ok()
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

#[expect(clippy::print_stderr, reason = "a failed test shows the logs it leaves behind")]
impl Drop for Machine {
    fn drop(&mut self) {
        if self.run_dir().join("keeper.pid").exists() {
            let listed = self.carrack(&["ps", "-aq"]);
            let ids: Vec<&str> = listed.stdout.split_whitespace().collect();
            if !ids.is_empty() {
                self.carrack(&[&["rm", "-f"][..], &ids].concat());
            }
            self.carrack(&["shutdown", "--networks"]);
        }
        unmount_below(self.directory.path());
        if std::thread::panicking() {
            for role in ["daemon", "proxy"] {
                let log = self.root().join(format!("log/{role}.log"));
                let text = fs::read_to_string(&log).unwrap_or_default();
                let tail: Vec<&str> = text.lines().rev().take(40).collect();
                for line in tail.into_iter().rev() {
                    eprintln!("{role}: {line}");
                }
            }
        }
    }
}

/// Detaches what a killed command left mounted, deepest first.
fn unmount_below(directory: &Path) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let mut below: Vec<&str> =
        points.filter(|point| Path::new(point).starts_with(directory)).collect();
    below.sort_unstable();
    for point in below.into_iter().rev() {
        rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH).ok(); // Best effort, on the way out.
    }
}

/// A program of ours: `target/PROFILE/NAME`, whether a test (in `deps`) or a program asks.
fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("this program has a path");
    let directory = own.parent().expect("a program lies in a directory");
    let profile = if directory.ends_with("deps") { directory.parent() } else { Some(directory) };
    profile.expect("target/PROFILE").join(name)
}

//! The validation suite of OCI runtime-tools: built, run and read.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard};

use crate::program::{find, runtime};

const MODULE: &str = "github.com/opencontainers/runtime-tools";
const ARCHIVE: &str = "rootfs-amd64.tar.gz";
/// How long one program may take, in seconds.
const LIMIT: &str = "90";
/// Programs that run at the same time, besides those that share a control group.
const LANES: usize = 3;
/// Hides the hierarchy of version 2 that crun would take for the only one.
const HIDE: &str = "umount -l /sys/fs/cgroup/unified 2>/dev/null";

/// A runtime to run the suite against.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its column.
    pub name: &'static str,
    program: PathBuf,
}

impl Peer {
    /// Ours first, then those that are installed.
    pub fn all() -> Vec<Self> {
        let installed = ["runc", "crun", "youki"]
            .into_iter()
            .filter_map(|name| Some(Self { name, program: find(name)? }));
        std::iter::once(Self { name: "carrack", program: runtime() }).chain(installed).collect()
    }

    /// A program the suite can call that keeps its containers below `directory`.
    fn wrapper(&self, directory: &Path) -> PathBuf {
        let path = directory.join(self.name);
        let program = self.program.display();
        let root = directory.join(format!("{}-state", self.name));
        let script = format!("#!/bin/sh\nexec '{program}' --root '{}' \"$@\"\n", root.display());
        fs::write(&path, script).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a script");
        path
    }
}

/// What a program of the suite said of a runtime.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Exit code 0, at least one `ok`, no `not ok`, no error of the program's own.
    pub passed: bool,
    /// All of its words.
    pub text: String,
}

impl Outcome {
    fn of(code: Option<i32>, out: &str, errors: &str) -> Self {
        let mut good = false;
        let mut bad = code != Some(0);
        // Each verdict may explain itself in a block; a block that explains none is the
        // program's way to say that it gave up.
        let mut explains = false;
        for line in out.lines().map(str::trim_start) {
            bad |= line.starts_with("not ok");
            if line.starts_with("ok ") {
                (good, explains) = (true, true);
            } else if line == "..." {
                explains = false;
            } else {
                bad |= !explains && line.starts_with("\"error\":");
            }
        }
        Self { passed: good && !bad, text: format!("exit {code:?}\n{out}{errors}") }
    }
}

/// The answers of every peer, by program.
type Answers = BTreeMap<String, Vec<Outcome>>;

/// The programs, built.
#[derive(Debug)]
pub struct Suite {
    directory: PathBuf,
    programs: Vec<String>,
}

impl Suite {
    /// Builds every program below the target directory; what is built already is kept.
    ///
    /// # Errors
    ///
    /// What `go` said.
    pub fn build() -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        go(&["mod", "download", MODULE], None)?;
        let module = go(&["list", "-m", "-f", "{{.Dir}}", MODULE], None)?;
        let module = Path::new(module.trim());
        let directory = target().join("judges/runtime-tools");
        fs::create_dir_all(&directory).map_err(text)?;
        let mut programs: Vec<String> = fs::read_dir(module.join("validation"))
            .map_err(text)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name != "util" && !name.starts_with('.'))
            .collect();
        programs.sort();
        let out = format!("{}/", directory.display());
        let build = ["build", "-trimpath", "-ldflags=-s -w", "-o", &out];
        let packages: Vec<String> =
            programs.iter().map(|name| format!("{MODULE}/validation/{name}")).collect();
        let words: Vec<&str> =
            build.into_iter().chain(packages.iter().map(String::as_str)).collect();
        go(&words, None)?;
        let inside = format!("{MODULE}/cmd/runtimetest");
        go(&[&build[..], &[inside.as_str()]].concat(), Some(("CGO_ENABLED", "0")))?;
        let archive = fs::read(module.join(ARCHIVE)).map_err(text)?;
        fs::write(directory.join(ARCHIVE), archive).map_err(text)?;
        Ok(Self { directory, programs })
    }

    /// Runs every program against every peer.
    ///
    /// # Panics
    ///
    /// When a thread of the run does.
    pub fn run(&self, peers: &[Peer]) -> Answers {
        let scratch = tempfile::tempdir().expect("a directory");
        let wrappers: Vec<PathBuf> =
            peers.iter().map(|peer| peer.wrapper(scratch.path())).collect();
        let empty = |name: &String| (name.clone(), vec![Outcome::default(); peers.len()]);
        let answers = Mutex::new(self.programs.iter().map(empty).collect::<Answers>());
        let pairs = self
            .programs
            .iter()
            .flat_map(|name| (0..peers.len()).map(move |peer| (name.as_str(), peer)));
        // Those that use one control group, by its name, take turns.
        let (shared, free): (Vec<_>, Vec<_>) = pairs.partition(|(name, _)| {
            name.starts_with("linux_cgroups_") || name.starts_with("delete")
        });
        let (shared, free) = (Mutex::new(shared), Mutex::new(free));
        let work = |queue: &Mutex<Vec<(&str, usize)>>| {
            while let Some((name, peer)) = locked(queue).pop() {
                let outcome = self.run_one(name, &wrappers[peer], scratch.path());
                if let Some(row) = locked(&answers).get_mut(name) {
                    row[peer] = outcome;
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| work(&shared));
            for _ in 0..LANES {
                scope.spawn(|| work(&free));
            }
        });
        wrappers.iter().for_each(|wrapper| clear(wrapper));
        answers.into_inner().expect("answers")
    }

    /// In mounts of its own, so that what a runtime leaves on the host goes with it.
    fn run_one(&self, name: &str, runtime: &Path, scratch: &Path) -> Outcome {
        let script = format!("{HIDE}; exec \"$@\"");
        let output = Command::new("timeout")
            .args(["--kill-after=5", LIMIT, "unshare", "--mount", "sh", "-c", &script, "sh"])
            .arg(self.directory.join(name))
            .current_dir(&self.directory)
            .env("RUNTIME", runtime)
            .env("TMPDIR", scratch)
            .stdin(Stdio::null())
            .output();
        match output {
            Ok(output) => Outcome::of(
                output.status.code(),
                &String::from_utf8_lossy(&output.stdout),
                &String::from_utf8_lossy(&output.stderr),
            ),
            Err(error) => Outcome { passed: false, text: error.to_string() },
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no other thread panicked")
}

/// Removes the containers that programs left behind.
fn clear(wrapper: &Path) {
    let script = format!(
        "{HIDE}; for id in $(\"$0\" list -q 2>/dev/null); do \"$0\" delete --force $id; done"
    );
    Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .arg(wrapper)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .ok();
}

/// Programs that need not pass, and why.
///
/// # Panics
///
/// When a line has no reason.
pub fn exempt() -> BTreeMap<&'static str, &'static str> {
    include_str!("../runtime-tools/exempt.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(' ').expect("a name and a reason"))
        .map(|(name, reason)| (name, reason.trim()))
        .collect()
}

/// The answers, a line for each program.
pub fn table(peers: &[Peer], answers: &BTreeMap<String, Vec<Outcome>>) -> String {
    let mut text = format!("{:34}", "program");
    let mut add = |cell: std::fmt::Arguments<'_>| text.write_fmt(cell).expect("text grows");
    for peer in peers {
        add(format_args!("{:9}", peer.name));
    }
    for (name, outcomes) in answers {
        add(format_args!("\n{name:34}"));
        for outcome in outcomes {
            add(format_args!("{:9}", if outcome.passed { "pass" } else { "-" }));
        }
    }
    add(format_args!("\n{:34}", "passed"));
    for column in 0..peers.len() {
        let count = answers.values().filter(|outcomes| outcomes[column].passed).count();
        add(format_args!("{count:<9}"));
    }
    text
}

/// Runs `go` where the wrapper module is.
fn go(words: &[&str], variable: Option<(&str, &str)>) -> Result<String, String> {
    let output = Command::new("go")
        .args(words)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("runtime-tools"))
        .env("GOFLAGS", "-mod=readonly -buildvcs=false")
        .env("GOTOOLCHAIN", "local")
        .envs(variable)
        .output()
        .map_err(|error| format!("starting go: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("go {}: {said}", words.first().copied().unwrap_or_default()))
}

/// Where cargo leaves what it builds.
fn target() -> PathBuf {
    let runtime = runtime();
    runtime.parent().and_then(Path::parent).expect("a target directory").to_owned()
}

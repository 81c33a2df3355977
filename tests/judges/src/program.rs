//! Programs: ours and theirs.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use carrack_testkit::Ran;

/// How long a command may take, in seconds, before it counts as hung.
const LIMIT: &str = "60";

/// A program in `PATH` or where Debian puts those for administrators.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into(), "/bin".into()])
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// Whether one of these programs is not here, which is told; then there is nothing to judge.
#[expect(clippy::print_stderr, reason = "a skip says why")]
pub fn missing(programs: &[&str]) -> bool {
    let absent = programs.iter().find(|program| find(program).is_none());
    if let Some(program) = absent {
        eprintln!("skipped: {program} is not installed (cargo xtask setup brings it)");
    }
    absent.is_some()
}

/// The built runtime, which stands beside this test's directory.
///
/// # Panics
///
/// When it has not been built.
pub fn runtime() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let found = test
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join("carrack-runtime"))
        .find(|program| program.is_file());
    found.expect("run `cargo build -p carrack-runtime` first")
}

/// A caller of runtimes, with the arguments that keep it to itself.
#[derive(Clone, Debug)]
pub struct Caller {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Caller {
    /// `program` with what stands in front of every command.
    pub fn new(program: &str, arguments: &[&str]) -> Self {
        let arguments = std::iter::once(program).chain(arguments.iter().copied());
        Self { arguments: arguments.map(str::to_owned).collect(), environment: Vec::new() }
    }

    /// With one more variable of the environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Runs one of its commands, given as the words of one line.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[track_caller]
    pub fn run(&self, line: &str) -> Ran {
        self.run_with(line, &[])
    }

    /// The same, with words at the end that are not to be split.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[track_caller]
    pub fn run_with(&self, line: &str, last: &[&str]) -> Ran {
        let words = self.words(line, last);
        self.command(words).output().expect("the command starts").into()
    }

    /// The same, with a shell's script at the end.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[track_caller]
    pub fn script(&self, line: &str, script: &str) -> Ran {
        self.run_with(line, &["sh", "-c", script])
    }

    /// The same on a terminal, which all of the answer comes through.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[track_caller]
    pub fn on_terminal(&self, line: &str, script: &str) -> Ran {
        let words = self.words(line, &["sh", "-c", script]);
        let quoted: Vec<String> =
            words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
        let command = ["script", "-qec", &quoted.join(" "), "/dev/null"].map(str::to_owned);
        self.command(command.to_vec()).output().expect("the command starts").into()
    }

    fn command(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", LIMIT]).args(arguments);
        command.envs(self.environment.iter().cloned()).stdin(Stdio::null());
        command
    }

    fn words(&self, line: &str, last: &[&str]) -> Vec<String> {
        let split = line.split_ascii_whitespace();
        let words = split.chain(last.iter().copied()).map(str::to_owned);
        self.arguments.iter().cloned().chain(words).collect()
    }
}

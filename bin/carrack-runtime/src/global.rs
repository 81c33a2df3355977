//! Options that come before the command.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use crate::options::{Arguments, Flag, Usage, true_or_false};
use crate::output::{Log, LogFormat};

/// Where states are kept unless told otherwise.
const DEFAULT_ROOT: &str = "/run/carrack-runtime";

pub(crate) const FLAGS: &[Flag] = &[
    Flag::switch("debug", "tell each step in the log"),
    Flag::valued("log", "FILE", "append errors to FILE instead of standard error alone"),
    Flag::valued("log-format", "FORMAT", "text or json [default: text]"),
    Flag::valued(
        "root",
        "DIR",
        "where states are kept [default: /run/carrack-runtime, or $XDG_RUNTIME_DIR/carrack-runtime]",
    ),
    Flag::switch("systemd-cgroup", "have systemd make control groups (slice:prefix:name)"),
    Flag::valued(
        "rootless",
        "CHOICE",
        "whether control groups may be refused: true, false or auto [default: auto]",
    ),
    Flag::switch("version", "print the version").short('v'),
    Flag::valued("criu", "FILE", "(deprecated, ignored: criu is found by PATH)"),
];

/// What they say.
#[derive(Debug)]
pub(crate) struct Global {
    pub(crate) root: PathBuf,
    /// Whether somebody chose the root, so that it should exist.
    pub(crate) root_given: bool,
    /// Whether systemd makes control groups.
    pub(crate) systemd: bool,
    /// Whether the right to make control groups may be missing; found out when not given.
    pub(crate) rootless: Option<bool>,
    pub(crate) log: Log,
    /// What was asked for instead of a command.
    pub(crate) instead: Option<Instead>,
}

/// Things to show instead of running a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instead {
    Version,
    Help,
}

impl Global {
    /// Reads them off the front of `line`. The log is found out first, so that errors of
    /// the others get there.
    pub(crate) fn read(line: &mut VecDeque<OsString>) -> Result<Self, (Log, Usage)> {
        let early = |usage| (Log::default(), usage);
        let arguments = Arguments::leading(FLAGS, line).map_err(early)?;
        let log = log(&arguments).map_err(early)?;
        let help = || arguments.is_on("help").then_some(Instead::Help);
        let instead = arguments.is_on("version").then_some(Instead::Version).or_else(help);
        Self::check(&arguments, log.clone(), instead).map_err(|usage| (log, usage))
    }

    fn check(arguments: &Arguments, log: Log, instead: Option<Instead>) -> Result<Self, Usage> {
        if arguments.is_given("criu") {
            log.warn("--criu is ignored: criu is found by PATH; leave the option out");
        }
        let rootless =
            arguments.text("rootless")?.filter(|text| !text.eq_ignore_ascii_case("auto"));
        let choice = |text: &str| {
            let wrong = || Usage(format!("--rootless: {text:?} is none of true, false and auto"));
            true_or_false("rootless", text).map_err(|_| wrong())
        };
        let rootless = rootless.map(choice).transpose()?;
        let systemd = arguments.is_on("systemd-cgroup");
        let root_given = arguments.is_given("root");
        let root = if root_given { given_root(arguments)? } else { default_root()? };
        Ok(Self { root, root_given, systemd, rootless, log, instead })
    }
}

fn log(arguments: &Arguments) -> Result<Log, Usage> {
    let format = match arguments.text("log-format")? {
        None | Some("text") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        Some(other) => {
            return Err(Usage(format!(
                "invalid log-format: {other} (--log-format is text or json)"
            )));
        }
    };
    Ok(Log { path: arguments.path("log"), format, debug: arguments.is_on("debug") })
}

/// Absolute, whatever the commands' working directory becomes.
fn given_root(arguments: &Arguments) -> Result<PathBuf, Usage> {
    let given = arguments.path("root").unwrap_or_default();
    let absolute = std::path::absolute(Path::new(".").join(given))
        .map_err(|error| Usage(format!("--root: finding the working directory: {error}")))?;
    let mut root = PathBuf::new();
    for component in absolute.components() {
        match component {
            Component::ParentDir => {
                root.pop();
            }
            other => root.push(other),
        }
    }
    if root == Path::new("/") {
        return Err(Usage("Option --root argument should not be set to /".into()));
    }
    Ok(root)
}

fn default_root() -> Result<PathBuf, Usage> {
    let user = std::env::var_os("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty());
    let Some(user) = user.filter(|_| honors_user_directory()) else {
        return Ok(DEFAULT_ROOT.into());
    };
    let root = Path::new(&user).join("carrack-runtime");
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&root).and_then(|()| {
        // The sticky bit keeps it from being tidied away (XDG base directory specification).
        fs::set_permissions(&root, fs::Permissions::from_mode(0o1700))
    });
    made.map_err(|error| {
        Usage(format!(
            "making {}: {error}; $XDG_RUNTIME_DIR must be writable, or name another --root",
            root.display()
        ))
    })?;
    Ok(root)
}

/// Root in the first user namespace keeps to the system's directory.
fn honors_user_directory() -> bool {
    if !rustix::process::geteuid().is_root() {
        return true;
    }
    carrack_linux::namespace::is_user_namespace()
        && std::env::var_os("USER").is_none_or(|user| user != "root")
}

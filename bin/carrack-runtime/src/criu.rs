//! Checkpoints are made and brought back by another program, criu(8): what it is told.
//!
//! Mounts that come from outside the container's root, the masks included, are named as
//! external, so that an image holds what is the container's own and nothing of the host's.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use serde_json::Value;

use crate::options::{Arguments, Usage};

/// What both directions are told.
pub(crate) struct Directories {
    pub(crate) images: PathBuf,
    pub(crate) work: PathBuf,
}

impl Directories {
    /// Those the command line names, made if they are missing.
    pub(crate) fn new(arguments: &Arguments) -> Result<Self, Usage> {
        let images = arguments.path("image-path").unwrap_or_else(|| "checkpoint".into());
        let work = arguments.path("work-path").unwrap_or_else(|| images.clone());
        for (flag, directory) in [("image-path", &images), ("work-path", &work)] {
            make(directory).map_err(|error| {
                Usage(format!("--{flag}: making {}: {error}", directory.display()))
            })?;
        }
        let absolute = |path: &Path| {
            std::path::absolute(path)
                .map_err(|error| Usage(format!("finding the working directory: {error}")))
        };
        Ok(Self { images: absolute(&images)?, work: absolute(&work)? })
    }

    fn words(&self, log: &str) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["--images-dir".into(), self.images.clone().into()];
        words.extend(["--work-dir".into(), self.work.clone().into()]);
        words.extend(["--log-file".into(), log.into(), "-v4".into()]);
        words
    }
}

/// An image holds a container's memory: it is for its owner alone.
fn make(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Options that mean the same to both directions, as criu spells them.
const SHARED: [(&str, &str); 6] = [
    ("tcp-established", "--tcp-established"),
    ("ext-unix-sk", "--ext-unix-sk"),
    ("shell-job", "--shell-job"),
    ("file-locks", "--file-locks"),
    ("auto-dedup", "--auto-dedup"),
    ("lazy-pages", "--lazy-pages"),
];

fn shared(arguments: &Arguments, config: &Value) -> Result<Vec<OsString>, Usage> {
    let on = SHARED.iter().filter(|(flag, _)| arguments.is_on(flag));
    let mut words: Vec<OsString> = on.map(|(_, word)| (*word).into()).collect();
    words.push(match arguments.text("manage-cgroups-mode")? {
        None => "--manage-cgroups=soft".into(),
        Some(mode @ ("soft" | "full" | "strict" | "ignore")) => {
            format!("--manage-cgroups={mode}").into()
        }
        Some(other) => {
            return Err(Usage(format!(
                "invalid manage-cgroups-mode: {other} is none of soft, full, strict and ignore"
            )));
        }
    });
    for kind in arguments.texts("empty-ns")? {
        if kind != "network" {
            return Err(Usage(format!(
                "--empty-ns: namespace {kind:?} is not supported; only network is"
            )));
        }
    }
    // Interfaces are the caller's to make.
    words.extend(["--empty-ns".into(), "net".into()]);
    if let Some(file) = config["annotations"]["org.criu.config"].as_str() {
        words.extend(["--config".into(), file.into()]);
    }
    Ok(words)
}

/// Where mounts that are not the container's own stand, and what is there.
fn external(config: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let is_bind = |mount: &&Value| {
        let options = mount["options"].as_array().into_iter().flatten();
        mount["type"] == "bind"
            || options.filter_map(Value::as_str).any(|option| option == "bind" || option == "rbind")
    };
    let mounts = config["mounts"].as_array().into_iter().flatten();
    let mut found: Vec<(String, String)> = mounts
        .filter(is_bind)
        .map(|mount| (text(&mount["destination"]), text(&mount["source"])))
        .collect();
    let masks = config["linux"]["maskedPaths"].as_array().into_iter().flatten();
    found.extend(masks.map(|path| (text(path), "/dev/null".to_owned())));
    found
}

/// The network namespace a configuration joins, if it does.
fn joined_network(config: &Value) -> Option<&str> {
    let namespaces = config["linux"]["namespaces"].as_array()?;
    let network = namespaces.iter().find(|namespace| namespace["type"] == "network")?;
    network["path"].as_str().filter(|path| !path.is_empty())
}

/// The name under which both directions know a network that is joined.
const NETWORK: &str = "extRootNetNS";

/// The command line that saves the processes under `pid`.
pub(crate) fn dump(
    arguments: &Arguments,
    directories: &Directories,
    config: &Value,
    pid: i32,
    rootfs: &Path,
    freezer: Option<&Path>,
) -> Result<Vec<OsString>, Usage> {
    let pre = arguments.is_on("pre-dump");
    let mut words: Vec<OsString> = vec![if pre { "pre-dump" } else { "dump" }.into()];
    words.extend(["--tree".into(), pid.to_string().into()]);
    words.extend(directories.words("dump.log"));
    words.extend(["--root".into(), rootfs.into()]);
    words.extend(shared(arguments, config)?);
    for (flag, word) in [
        ("leave-running", "--leave-running"),
        ("tcp-skip-in-flight", "--skip-in-flight"),
        ("link-remap", "--link-remap"),
    ] {
        words.extend(arguments.is_on(flag).then(|| word.into()));
    }
    if let Some(freezer) = freezer {
        words.extend(["--freeze-cgroup".into(), freezer.into()]);
    }
    if let Some(parent) = parent(arguments, directories)? {
        words.extend(["--track-mem".into(), "--prev-images-dir".into(), parent.into()]);
    } else if pre {
        words.push("--track-mem".into());
    }
    words.extend(page_server(arguments)?);
    if let Some(descriptor) = arguments.number::<i32>("status-fd")?.filter(|&number| number >= 0) {
        words.extend(["--status-fd".into(), descriptor.to_string().into()]);
    }
    if !pre {
        for (destination, _) in external(config) {
            let inside = format!("/proc/{pid}/root{destination}");
            if Path::new(&inside).symlink_metadata().is_ok_and(|found| !found.is_dir())
                || !is_masked(config, &destination)
            {
                words.extend([
                    "--external".into(),
                    format!("mnt[{destination}]:{destination}").into(),
                ]);
            }
        }
        if let Some(network) = joined_network(config) {
            let inode = std::fs::metadata(network)
                .map_err(|error| Usage(format!("looking at {network}: {error}")))?
                .ino();
            words.extend(["--external".into(), format!("net[{inode}]:{NETWORK}").into()]);
        }
    }
    Ok(words)
}

fn is_masked(config: &Value, path: &str) -> bool {
    let masks = config["linux"]["maskedPaths"].as_array();
    masks.into_iter().flatten().any(|mask| mask == path)
}

/// The images of an earlier `--pre-dump`, counted from this one's.
fn parent<'a>(
    arguments: &'a Arguments,
    directories: &Directories,
) -> Result<Option<&'a Path>, Usage> {
    let Some(parent) = arguments.value("parent-path").map(Path::new) else { return Ok(None) };
    if parent.is_absolute() {
        return Err(Usage("--parent-path must be relative to --image-path".into()));
    }
    let whole = directories.images.join(parent);
    if !whole.is_dir() {
        return Err(Usage(format!(
            "invalid --parent-path: {} is not a directory",
            whole.display()
        )));
    }
    Ok(Some(parent))
}

fn page_server(arguments: &Arguments) -> Result<Vec<OsString>, Usage> {
    let Some(text) = arguments.text("page-server")? else { return Ok(Vec::new()) };
    let split = text.rsplit_once(':').filter(|(address, _)| !address.is_empty());
    let Some((address, port)) = split else {
        return Err(Usage("Use --page-server ADDRESS:PORT to specify page server".into()));
    };
    let port: u16 =
        port.parse().map_err(|_| Usage(format!("--page-server: Invalid port number {port:?}")))?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let words = ["--page-server", "--address", address, "--port"];
    Ok(words.into_iter().map(OsString::from).chain([port.to_string().into()]).collect())
}

/// The command line that brings processes back, as a child of ours.
pub(crate) fn restore(
    arguments: &Arguments,
    directories: &Directories,
    config: &Value,
    place: &Place<'_>,
) -> Result<Vec<OsString>, Usage> {
    let mut words: Vec<OsString> = vec!["restore".into(), "--restore-detached".into()];
    words.extend(["--restore-sibling".into(), "--evasive-devices".into()]);
    words.extend(directories.words("restore.log"));
    words.extend(["--root".into(), place.root.into(), "--pidfile".into(), place.pid_file.into()]);
    words.extend(["--cgroup-root".into(), Path::new("/").join(place.cgroup).into()]);
    words.extend(shared(arguments, config)?);
    for flag in ["lsm-profile", "lsm-mount-context"] {
        if let Some(text) = arguments.text(flag)? {
            words.extend([format!("--{flag}").into(), text.into()]);
        }
    }
    for (destination, source) in external(config) {
        words.extend(["--external".into(), format!("mnt[{destination}]:{source}").into()]);
    }
    for (number, pipe) in place.streams.iter().enumerate() {
        if pipe.starts_with("pipe:") {
            words.extend(["--inherit-fd".into(), format!("fd[{number}]:{pipe}").into()]);
        }
    }
    if let Some(network) = joined_network(config) {
        words.extend(["--join-ns".into(), format!("net:{network}").into()]);
    }
    Ok(words)
}

/// What a restored container is put into.
pub(crate) struct Place<'a> {
    /// Its root file system, which has to be a mount.
    pub(crate) root: &'a Path,
    /// Where criu writes the first process's id.
    pub(crate) pid_file: &'a Path,
    pub(crate) cgroup: &'a Path,
    /// What its standard streams were.
    pub(crate) streams: &'a [String],
}

/// Runs criu, and says in its words why it did not do its work.
pub(crate) fn run(words: &[OsString], log: &Path) -> Result<(), Usage> {
    let ended = Command::new("criu").args(words).status();
    let status = ended.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Usage(
            "criu is not installed, and checkpoints are made by it; install the package criu \
             (version 3.11 or newer) so that it is found by PATH"
                .into(),
        ),
        _ => Usage(format!("running criu: {error}")),
    })?;
    if status.success() { Ok(()) } else { Err(Usage(complaint(status, log))) }
}

/// The last of criu's errors, as its log has them.
fn complaint(status: ExitStatus, log: &Path) -> String {
    const QUOTED: usize = 5;
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let errors: Vec<&str> = text.lines().filter(|line| line.contains("Error")).collect();
    let last = errors.get(errors.len().saturating_sub(QUOTED)..).unwrap_or_default();
    let quoted = last.iter().map(|line| format!(": {}", line.trim())).collect::<String>();
    let hint = if text.contains("kerndat") || text.contains("kernel features") {
        "; run `criu check`: this kernel and this criu do not fit, install a newer criu"
    } else {
        ""
    };
    format!("criu failed ({status}), its log is {}{quoted}{hint}", log.display())
}

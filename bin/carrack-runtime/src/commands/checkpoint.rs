use std::path::Path;
use std::process::ExitCode;

use carrack_container_runtime::{AdoptRequest, Status};
use serde_json::Value;

use super::{Command, Context, Failed, code_of};
use crate::criu::{self, Directories, Place};
use crate::foreground::{self, Attended};
use crate::options::{Arguments, Count, Flag, Usage};

const IMAGES: Flag = Flag::valued("image-path", "DIR", "the images of criu [default: checkpoint]");
const WORK: Flag = Flag::valued("work-path", "DIR", "criu's log and work files [default: images]");
const TCP: Flag = Flag::switch("tcp-established", "allow open TCP connections");
const UNIX: Flag = Flag::switch("ext-unix-sk", "allow Unix sockets that lead outside");
const SHELL: Flag = Flag::switch("shell-job", "allow a terminal of the host");
const LOCKS: Flag = Flag::switch("file-locks", "handle file locks");
const DEDUP: Flag = Flag::switch("auto-dedup", "drop memory pages that an image repeats");
const LAZY: Flag = Flag::switch("lazy-pages", "bring memory over when it is used (userfaultfd)");
const CGROUPS: Flag =
    Flag::valued("manage-cgroups-mode", "MODE", "soft, full, strict or ignore [default: soft]");
const EMPTY: Flag =
    Flag::valued("empty-ns", "KIND", "a namespace whose content is left out: network");

pub(super) const CHECKPOINT: Command = Command {
    name: "checkpoint",
    arguments: "ID",
    about: "save a running container, by criu, and stop it",
    details: "Needs the program criu, and a kernel it fits.",
    flags: &[
        IMAGES,
        WORK,
        Flag::valued("parent-path", "DIR", "images of an earlier --pre-dump, from --image-path"),
        Flag::switch("leave-running", "let the container run on"),
        TCP,
        Flag::switch("tcp-skip-in-flight", "leave out connections that are being made"),
        Flag::switch("link-remap", "link files back that were removed"),
        UNIX,
        SHELL,
        LAZY,
        Flag::valued("status-fd", "N", "criu writes a zero there once lazy pages can be asked for"),
        Flag::valued("page-server", "ADDRESS:PORT", "send memory there"),
        LOCKS,
        Flag::switch("pre-dump", "save memory only and let the container run on"),
        CGROUPS,
        EMPTY,
        DEDUP,
    ],
    words: Count::Exactly(1),
    run: checkpoint,
};

pub(super) const RESTORE: Command = Command {
    name: "restore",
    arguments: "ID",
    about: "bring a saved container back, by criu",
    details: "The bundle is the one it was made from, or a copy. Stays until it ends, as run\n\
              does.",
    flags: &[
        Flag::valued("console-socket", "SOCKET", "(refused: terminals are not brought back)"),
        IMAGES,
        WORK,
        TCP,
        UNIX,
        SHELL,
        LOCKS,
        CGROUPS,
        Flag::valued("bundle", "DIR", "the bundle [default: the working directory]").short('b'),
        Flag::switch("detach", "return once it runs").short('d'),
        Flag::valued("pid-file", "FILE", "write the process id to FILE"),
        Flag::switch("no-subreaper", "leave orphans of the container to somebody else"),
        Flag::switch("no-pivot", "(refused, as by create)"),
        EMPTY,
        DEDUP,
        LAZY,
        Flag::valued("lsm-profile", "TYPE:NAME", "label to bring it back under"),
        Flag::valued("lsm-mount-context", "CONTEXT", "SELinux context of its mounts"),
    ],
    words: Count::Exactly(1),
    run: restore,
};

/// What the standard streams of a saved container were, beside its images.
const STREAMS: &str = "descriptors.json";

fn config_of(bundle: &Path) -> Result<Value, Failed> {
    let path = bundle.join("config.json");
    let bytes = carrack_linux::fs::read_bounded(&path, 16 << 20)
        .map_err(|error| Usage(format!("reading {}: {error}", path.display())))?;
    Ok(serde_json::from_slice(&bytes)?)
}

fn checkpoint(context: &Context, arguments: &mut Arguments) -> Result<ExitCode, Failed> {
    let id = arguments.id()?;
    let state = context.runtime.state(&id)?;
    let Some(pid) = state.pid.filter(|_| matches!(state.status, Status::Running | Status::Paused))
    else {
        return Err(Usage(format!(
            "Container cannot be checkpointed in {} state: start {id} first",
            state.status
        ))
        .into());
    };
    let pid = pid.as_raw_nonzero().get();
    let directories = Directories::new(arguments)?;
    let config = config_of(&state.bundle)?;
    let freezer = context.runtime.group_of(&id)?.freezer();
    let words =
        criu::dump(arguments, &directories, &config, pid, &state.rootfs, freezer.as_deref())?;
    let streams: Vec<String> = (0..3)
        .map(|number| std::fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap_or_default())
        .map(|target| target.to_string_lossy().into_owned())
        .collect();
    context.log().debug(|| format!("criu {words:?}"));
    criu::run(&words, &directories.work.join("dump.log"))?;
    std::fs::write(directories.images.join(STREAMS), serde_json::to_vec(&streams)?)?;
    if !arguments.is_on("leave-running") && !arguments.is_on("pre-dump") {
        context.runtime.delete(&id, true)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn restore(context: &Context, arguments: &mut Arguments) -> Result<ExitCode, Failed> {
    for flag in ["console-socket", "no-pivot"] {
        if arguments.value(flag).is_some() {
            return Err(Usage(format!("--{flag} is not supported by restore; leave it out")).into());
        }
    }
    let id = arguments.id()?;
    let bundle = arguments.path("bundle").unwrap_or_else(|| ".".into());
    let config = config_of(&bundle)?;
    if config["process"]["terminal"].as_bool() == Some(true) {
        return Err(Usage("process.terminal: a terminal cannot be brought back".into()).into());
    }
    let directories = Directories::new(arguments)?;
    let streams: Vec<String> = serde_json::from_slice(
        &std::fs::read(directories.images.join(STREAMS)).map_err(|error| {
            let images = directories.images.display();
            Usage(format!("--image-path {images}: there is no checkpoint ({STREAMS}: {error})"))
        })?,
    )?;
    let detach = arguments.is_on("detach");
    if !detach && !arguments.is_on("no-subreaper") {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    }
    let signals = (!detach).then(foreground::hold_signals).transpose()?;
    let pid_file = arguments.path("pid-file");
    let request = AdoptRequest { id: &id, bundle: &bundle, pid_file: pid_file.as_deref() };
    let (pid, pidfd) = context.runtime.adopt(request, |place| {
        let pid_file = directories.work.join(format!("{id}.pid"));
        let place = Place {
            root: &place.root,
            pid_file: &pid_file,
            cgroup: &place.cgroup,
            streams: &streams,
        };
        let words = criu::restore(arguments, &directories, &config, &place)
            .map_err(|Usage(message)| std::io::Error::other(message))?;
        std::fs::remove_file(&pid_file).ok(); // Of an earlier attempt.
        criu::run(&words, &directories.work.join("restore.log"))
            .map_err(|Usage(message)| std::io::Error::other(message))?;
        let text = std::fs::read_to_string(&pid_file)?;
        std::fs::remove_file(&pid_file)?;
        text.trim().parse::<i32>().map_err(std::io::Error::other)
    })?;
    let Some(signals) = signals else { return Ok(ExitCode::SUCCESS) };
    let exit = Attended { pid, pidfd, signals, terminal: None, notify: None }.attend()?;
    context.runtime.delete(&id, true)?;
    Ok(code_of(exit))
}

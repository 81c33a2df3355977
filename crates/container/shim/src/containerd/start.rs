//! The `start` command: find the pod's shim, or become one.
//!
//! What the caller understands tells its age: since 2.3 it writes `BootstrapParams` and
//! reads `BootstrapResult`; since 1.7 it sets `MAX_SHIM_VERSION` and reads JSON; before, it
//! reads a bare address. All of them may write options.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use carrack_linux::cgroup::{Group, Layout};
use carrack_linux::session::{self, Side, Signals};
use carrack_oci::Digest;
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;
use serde::Deserialize;

use super::conversation::Conversations;
use super::events::{Destination, Publisher};
use super::flags::Flags;
use super::options::Options;
use super::service::Shim;
use super::streams::Streams;
use super::wire::{Any, Malformed, Message, for_each};
use super::{log, record};
use crate::poll::{EventFlags, Poll};

/// The longest standard input read.
const LONGEST_INPUT: u64 = 10 << 20;
/// The longest configuration read for its annotations.
const LONGEST_CONFIG: u64 = 16 << 20;
/// Where sockets are unless the caller says otherwise: their paths have to be short.
const SOCKETS: &str = "/run/containerd/s";
/// Annotations that name the group whose containers share a shim.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// Signals that must not end a shim, and the one that means something to it.
const SIGNALS: [i32; 8] = [
    libc::SIGCHLD,
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGPIPE,
];

/// How the caller wants to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    /// The address alone.
    Address,
    /// JSON, with the newest version of the task service the caller takes.
    Json(u32),
    /// `BootstrapResult`.
    Message,
}

/// What the caller told.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    dialect: Dialect,
    options: Option<Any>,
    address: String,
    ttrpc_address: String,
    publish_binary: PathBuf,
    sockets: PathBuf,
    debug: bool,
}

/// Does it. In the caller's process this prints and returns; in the new one it serves.
pub(super) fn start(flags: &Flags) -> io::Result<()> {
    if std::env::var_os("SCHED_CORE").is_some() {
        let message = "core scheduling is not set up by this shim; unset sched_core";
        return Err(io::Error::new(io::ErrorKind::Unsupported, message));
    }
    let told = Told::hear(flags)?;
    let options = Options::decode(told.options.as_ref())
        .map_err(|status| io::Error::new(io::ErrorKind::InvalidInput, status.message))?;
    let bundle = bundle(flags)?;
    let group = group(&bundle)?.unwrap_or_else(|| flags.id.clone());
    let socket = socket_path(&told.sockets, &told.address, &flags.namespace, &group);
    let Some(listener) = listen(&socket)? else {
        return told.answer(&socket, &bundle);
    };
    let parent_score = score_of_parent();
    match session::detach() {
        Ok(Side::Parent { child }) => settle(child, &options, parent_score)
            .and_then(|()| told.answer(&socket, &bundle))
            .inspect_err(|_| abandon(child, &socket)),
        Ok(Side::Child) => {
            let served = serve(flags, &told, listener, &bundle);
            if let Err(error) = &served {
                log::error(&format!("the shim ends: {error}"));
            }
            fs::remove_file(&socket).ok();
            served
        }
        Err(error) => {
            fs::remove_file(&socket).ok();
            Err(error)
        }
    }
}

/// The bundle is where containerd starts the program, unless it says otherwise.
pub(super) fn bundle(flags: &Flags) -> io::Result<PathBuf> {
    if flags.bundle.as_os_str().is_empty() {
        std::env::current_dir()
    } else {
        Ok(flags.bundle.clone())
    }
}

/// The group that a bundle's configuration names.
fn group(bundle: &Path) -> io::Result<Option<String>> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        annotations: Option<std::collections::BTreeMap<String, String>>,
    }
    let path = bundle.join("config.json");
    let failed =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let bytes = carrack_linux::fs::read_bounded(&path, LONGEST_CONFIG).map_err(failed)?;
    let config: Config = serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?;
    let annotations = config.annotations.unwrap_or_default();
    Ok(GROUPS.iter().find_map(|name| annotations.get(*name)).cloned())
}

/// A path that is short and the same for all of a group's containers.
fn socket_path(sockets: &Path, address: &str, namespace: &str, group: &str) -> PathBuf {
    let digest = Digest::of(format!("carrack\0{address}\0{namespace}\0{group}"));
    sockets.join(digest.hex())
}

/// Listens at the path; `None` when somebody does already.
fn listen(path: &Path) -> io::Result<Option<UnixListener>> {
    let failed =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
    }
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if UnixStream::connect(path).is_ok() {
                return Ok(None);
            }
            fs::remove_file(path).map_err(failed)?;
            UnixListener::bind(path)
        }
        listener => listener,
    };
    let listener = listener.map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(Some(listener))
}

/// Moves the new shim where it belongs and lets it die before containerd.
fn settle(child: i32, options: &Options, parent_score: Option<i32>) -> io::Result<()> {
    if let Some(path) = &options.shim_cgroup {
        join_group(child, path)?;
    }
    if let Some(score) = parent_score {
        // Lowering it takes a privilege that we may not have; it is a precaution only.
        let score = score.saturating_add(1).min(1000);
        fs::write(format!("/proc/{child}/oom_score_adj"), score.to_string()).ok();
    }
    Ok(())
}

fn score_of_parent() -> Option<i32> {
    let parent = rustix::process::getppid()?.as_raw_nonzero();
    fs::read_to_string(format!("/proc/{parent}/oom_score_adj")).ok()?.trim().parse().ok()
}

fn join_group(child: i32, path: &Path) -> io::Result<()> {
    let group = Layout::detect().and_then(|layout| Group::new(layout, path));
    let group = group.map_err(io::Error::other)?;
    let mut found = false;
    for directory in group.directories().filter(|directory| directory.is_dir()) {
        found = true;
        fs::write(directory.join("cgroup.procs"), child.to_string())?;
    }
    if found {
        return Ok(());
    }
    let message =
        format!("the control group for the shim, {}, is not there; make it", path.display());
    Err(io::Error::new(io::ErrorKind::NotFound, message))
}

/// Nobody will ever speak to a shim whose start failed.
fn abandon(child: i32, socket: &Path) {
    if let Some(child) = Pid::from_raw(child) {
        rustix::process::kill_process(child, rustix::process::Signal::KILL).ok();
    }
    fs::remove_file(socket).ok();
}

fn serve(flags: &Flags, told: &Told, listener: UnixListener, bundle: &Path) -> io::Result<()> {
    log::set_debug(told.debug);
    let nothing = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&nothing)?;
    rustix::stdio::dup2_stdout(&nothing)?;
    rustix::stdio::dup2_stderr(open_log(bundle).unwrap_or(nothing))?;
    rustix::thread::set_name(c"containerd-shim")?;
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own))?;
    fs::write(bundle.join(record::SHIM_PID), own.as_raw_nonzero().to_string())?;
    let mut poll = Poll::new()?;
    let signals = Signals::watch(&SIGNALS)?;
    let shim = Shim {
        namespace: flags.namespace.clone(),
        signals: (poll.add(&signals, EventFlags::IN)?, signals),
        conversations: Conversations::new(&mut poll, listener)?,
        publisher: Publisher::new(&flags.namespace, told.destination()),
        streams: Streams::default(),
        tasks: Vec::new(),
        last_owner: 0,
        ending: None,
        quiet: None,
        poll,
    };
    shim.run()
}

/// The FIFO that containerd reads. Opened both ways it is there without a reader and stays
/// when one goes; what nobody reads is lost once it is full.
fn open_log(bundle: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(bundle.join("log"), flags, Mode::empty())?)
}

impl Told {
    fn hear(flags: &Flags) -> io::Result<Self> {
        let mut input = Vec::new();
        io::stdin().take(LONGEST_INPUT).read_to_end(&mut input)?;
        let newest = std::env::var("MAX_SHIM_VERSION").ok();
        let ttrpc_address = std::env::var("TTRPC_ADDRESS").unwrap_or_default();
        Self::of(flags, &input, newest.as_deref(), ttrpc_address)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn of(
        flags: &Flags,
        input: &[u8],
        newest: Option<&str>,
        ttrpc_address: String,
    ) -> Result<Self, Malformed> {
        let mut told = Self {
            dialect: match newest.map(str::parse) {
                None => Dialect::Address,
                Some(Ok(newest)) => Dialect::Json(newest),
                Some(Err(_)) => Dialect::Json(2),
            },
            options: None,
            address: flags.address.clone(),
            ttrpc_address,
            publish_binary: flags.publish_binary.clone(),
            sockets: SOCKETS.into(),
            debug: flags.debug,
        };
        // Options have a type's name where bootstrap parameters have our id.
        if !told.read_bootstrap(input, &flags.id)? && !input.is_empty() {
            told.options = Some(Any::decode(input)?);
        }
        Ok(told)
    }

    /// `BootstrapParams`; `false` if it is something else.
    fn read_bootstrap(&mut self, input: &[u8], id: &str) -> Result<bool, Malformed> {
        let mut is_ours = false;
        for_each(input, |field, value| {
            if field == 1 {
                is_ours = value.bytes()? == id.as_bytes();
            }
            Ok(())
        })?;
        if !is_ours {
            return Ok(false);
        }
        self.dialect = Dialect::Message;
        for_each(input, |field, value| {
            match field {
                // TRACE and DEBUG are negative.
                3 => self.debug |= value.number()? > u64::from(u32::MAX),
                5 => self.ttrpc_address = value.text()?,
                6 => self.address = value.text()?,
                7 => self.publish_binary = value.text()?.into(),
                8 => self.read_extension(value.bytes()?)?,
                9 if !value.bytes()?.is_empty() => self.sockets = value.text()?.into(),
                _ => {}
            }
            Ok(())
        })?;
        Ok(true)
    }

    /// Extensions are offers; the one with options is taken.
    fn read_extension(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        for_each(bytes, |field, value| {
            if field == 1 {
                let any = Any::decode(value.bytes()?)?;
                if any.name().ends_with(".Options") {
                    self.options = Some(any);
                }
            }
            Ok(())
        })
    }

    fn destination(&self) -> Destination {
        let path = self.ttrpc_address.strip_prefix("unix://").unwrap_or(&self.ttrpc_address);
        if !path.is_empty() {
            return Destination::Socket(path.into());
        }
        if self.publish_binary.as_os_str().is_empty() {
            return Destination::Nowhere;
        }
        Destination::Program(self.publish_binary.clone(), self.address.clone())
    }

    /// Says where the shim is, in the caller's own way; and in the bundle, where containerd
    /// before 1.7 looks for it when it is started again.
    fn answer(&self, socket: &Path, bundle: &Path) -> io::Result<()> {
        let address = format!("unix://{}", socket.display());
        carrack_linux::fs::replace(&bundle.join(record::ADDRESS), address.as_bytes(), 0o600)?;
        io::stdout().write_all(&self.answer_bytes(socket))?;
        io::stdout().flush()
    }

    fn answer_bytes(&self, socket: &Path) -> Vec<u8> {
        let address = format!("unix://{}", socket.display());
        match self.dialect {
            Dialect::Address => address.into_bytes(),
            Dialect::Json(newest) => {
                let version = newest.clamp(2, 3);
                let answer = serde_json::json!({
                    "version": version,
                    "address": address,
                    "protocol": "ttrpc",
                });
                answer.to_string().into_bytes()
            }
            Dialect::Message => {
                Message::new().number(1, 3_u32).text(2, &address).text(3, "ttrpc").into_bytes()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(input: &Message, newest: Option<&str>) -> Told {
        let flags = Flags { id: "web".into(), address: "/flag.sock".into(), ..Flags::default() };
        Told::of(&flags, input.as_bytes(), newest, "/env.ttrpc".into()).expect("understood")
    }

    fn answer(told: &Told) -> String {
        String::from_utf8(told.answer_bytes(Path::new("/s/1"))).expect("text")
    }

    #[test]
    fn each_age_of_containerd_is_answered_in_its_own_way() {
        let options = Any::of("containerd.runc.v1.Options", Message::new().text(7, "/r"));
        let old = told(&options.encode(), None);
        assert_eq!((answer(&old).as_str(), &old.options), ("unix:///s/1", &Some(options.clone())));
        let newer = told(&Message::new(), Some("2"));
        let json = r#"{"address":"unix:///s/1","protocol":"ttrpc","version":2}"#;
        assert_eq!((answer(&newer).as_str(), newer.options), (json, None));
        assert!(answer(&told(&Message::new(), Some("9"))).contains("\"version\":3"));

        let debug = (-4_i64).cast_unsigned();
        let newest = Message::new()
            .text(1, "web")
            .text(2, "default")
            .number(3, debug)
            .text(5, "/told.ttrpc")
            .text(6, "/told.sock")
            .text(7, "/usr/bin/containerd")
            .message(8, &Message::new().message(1, &options.encode()))
            .text(9, "/run/s");
        let newest = told(&newest, Some("2"));
        assert_eq!(newest.dialect, Dialect::Message);
        assert_eq!(newest.options, Some(options));
        assert!(newest.debug);
        assert_eq!(newest.sockets, Path::new("/run/s"));
        assert_eq!(newest.destination(), Destination::Socket("/told.ttrpc".into()));
        assert_eq!(
            newest.answer_bytes(Path::new("/s/1")),
            b"\x08\x03\x12\x0bunix:///s/1\x1a\x05ttrpc"
        );
    }

    #[test]
    fn containers_of_a_group_meet_at_one_socket() {
        let path = |namespace, group| socket_path(Path::new("/s"), "/c.sock", namespace, group);
        assert_eq!(path("k8s.io", "pod"), path("k8s.io", "pod"));
        assert_ne!(path("k8s.io", "pod"), path("k8s.io", "pod2"));
        assert_ne!(path("k8s.io", "pod"), path("default", "pod"));
        assert!(path("k8s.io", "pod").as_os_str().len() < 100);
    }

    #[test]
    fn the_group_is_read_from_the_annotations() {
        let bundle = tempfile::tempdir().expect("directory");
        let group_of = |config: &str| {
            fs::write(bundle.path().join("config.json"), config).expect("written");
            group(bundle.path()).expect("read")
        };
        assert_eq!(group_of("{}"), None);
        assert_eq!(group_of(r#"{"annotations":null}"#), None);
        let pod = r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}"#;
        assert_eq!(group_of(pod).as_deref(), Some("pod"));
    }

    #[test]
    fn a_second_listener_finds_the_first_and_a_dead_ones_place_is_taken() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("s/socket");
        let first = listen(&path).expect("bound").expect("the first");
        assert!(listen(&path).expect("found").is_none());
        drop(first);
        assert!(listen(&path).expect("bound again").is_some());
    }
}

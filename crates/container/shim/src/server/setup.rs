//! Everything that has to stand before the shim can serve.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use carrack_container_runtime::Created;
use carrack_linux::session::Signals;
use rustix::process::Pid;

use super::container::{Container, Ends};
use super::log::LogFile;
use super::output::{Output, Stream};
use super::{Refused, attempting};
use crate::config::{Log, ShimConfig};
use crate::poll::{EventFlags, Poll, Token};
use crate::record::{self, InitProcess};

/// All that could end or stop the shim. Only the end of a child means something to it.
const SIGNALS: [i32; 7] = [
    libc::SIGCHLD,
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

/// A created container, and all that is needed to hold it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) config: ShimConfig,
    pub(super) container: Container,
    pub(super) init: Pid,
    pub(super) poll: Poll,
    pub(super) signals: (Token, Signals),
    pub(super) listener: (Token, UnixListener),
    pub(super) output: Output,
    pub(super) console: Option<OwnedFd>,
    pub(super) stdin: Option<OwnedFd>,
}

/// Makes the container of `directory`; `output` is where it writes if it was so
/// configured. When this fails nothing of it is left.
pub(super) fn create(
    directory: &Path,
    output: Vec<OwnedFd>,
    init: Option<&[u8]>,
) -> Result<Held, Refused> {
    let config = read_config(directory).map_err(attempting("reading shim.json"))?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| attempting("adopting orphans")(error.into()))?;
    let log = open_log(&config).map_err(attempting("opening the container's log"))?;
    let listener = listen(directory).map_err(attempting("listening for clients"))?;
    let held = forget_earlier(directory)
        .and_then(|()| Ears::open(listener, log))
        .map_err(attempting("preparing to hold a container"))
        .and_then(|ears| {
            let (container, created, ends) = Container::create(&config, output, init)?;
            hold(directory, config, (container, created, ends), ears)
        });
    if held.is_err() {
        // Nobody is to find a shim without a container.
        fs::remove_file(directory.join(record::SOCKET)).ok();
    }
    held
}

/// What the shim listens to and writes to, before there is a container.
struct Ears {
    poll: Poll,
    signals: (Token, Signals),
    listener: (Token, UnixListener),
    output: Output,
}

impl Ears {
    fn open(listener: UnixListener, log: Option<LogFile>) -> io::Result<Self> {
        let mut poll = Poll::new()?;
        let signals = Signals::watch(&SIGNALS)?;
        let signals = (poll.add(&signals, EventFlags::IN)?, signals);
        let listener = (poll.add(&listener, EventFlags::IN)?, listener);
        Ok(Self { poll, signals, listener, output: Output::new(log) })
    }

    /// Starts reading what the container says.
    fn hear(&mut self, ends: &mut Ends, console: Option<&OwnedFd>) -> io::Result<()> {
        if let Some(console) = console {
            self.output.add_terminal(&mut self.poll, console.try_clone()?)?;
        }
        if let Some(stdout) = ends.stdout.take() {
            self.output.add_pipe(&mut self.poll, stdout, Stream::Stdout)?;
        }
        if let Some(stderr) = ends.stderr.take() {
            self.output.add_pipe(&mut self.poll, stderr, Stream::Stderr)?;
        }
        Ok(())
    }
}

fn hold(
    directory: &Path,
    config: ShimConfig,
    made: (Container, Created, Ends),
    mut ears: Ears,
) -> Result<Held, Refused> {
    let (container, created, mut ends) = made;
    record_processes(directory, created.pid)
        .and_then(|()| ears.hear(&mut ends, created.console.as_ref()))
        .map_err(|error| {
            // The refusal says what failed; the container must not outlive it.
            container.delete().ok();
            attempting("holding the container")(error)
        })?;
    let Ears { poll, signals, listener, output } = ears;
    let (init, console, stdin) = (created.pid, created.console, ends.stdin);
    Ok(Held { config, container, init, poll, signals, listener, output, console, stdin })
}

fn record_processes(directory: &Path, init: Pid) -> io::Result<()> {
    let init = InitProcess::of(init).ok_or_else(|| io::Error::other("it ended at once"))?;
    let own = rustix::process::getpid().as_raw_pid().to_string();
    let replace =
        |name, bytes: &[u8]| carrack_linux::fs::replace(&directory.join(name), bytes, 0o600);
    replace(record::SHIM_PID, own.as_bytes())?;
    replace(record::INIT_PID, &serde_json::to_vec(&init)?)
}

fn read_config(directory: &Path) -> io::Result<ShimConfig> {
    Ok(serde_json::from_slice(&fs::read(directory.join(record::CONFIG))?)?)
}

fn open_log(config: &ShimConfig) -> io::Result<Option<LogFile>> {
    match &config.log {
        Log::Lines { path, max_bytes, max_files } => {
            LogFile::open(path, *max_bytes, *max_files).map(Some)
        }
        Log::Descriptors | Log::Discard => Ok(None),
    }
}

/// Listens in the directory, in the place of a dead shim but not of a living one.
fn listen(directory: &Path) -> io::Result<UnixListener> {
    let opened = File::open(directory)?;
    let (opened, name) = (opened.as_fd(), OsStr::new(record::SOCKET));
    let listener = match carrack_linux::socket::listen_in(opened, name) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if carrack_linux::socket::connect_in(opened, name).is_ok() {
                return Err(io::Error::other(
                    "another shim lives here; delete its container first",
                ));
            }
            fs::remove_file(directory.join(record::SOCKET))?;
            carrack_linux::socket::listen_in(opened, name)?
        }
        listener => listener?,
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A container that is started again must not be taken for one that has ended.
fn forget_earlier(directory: &Path) -> io::Result<()> {
    for name in [record::EXIT, record::INIT_PID] {
        match fs::remove_file(directory.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

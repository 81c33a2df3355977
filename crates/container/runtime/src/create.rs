//! Making a container, and letting it go.

mod adopt;

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use carrack_linux::namespace::{self, Kinds};
use carrack_linux::process::{self, Birth, Child};
use carrack_linux::procfs::Proc;
use carrack_linux::socket;
use carrack_linux::trusted::{self, TrustedDir};
use carrack_oci::runtime as oci;
use rustix::process::Pid;

use crate::birth;
use crate::channel::{Channel, Message};
use crate::control;
use crate::error::{CreateError, SpecError, StartError};
use crate::failure::Failure;
use crate::home::{self, Home};
use crate::hooks;
use crate::id::ContainerId;
use crate::inside::{Inside, LISTENER};
use crate::interfaces;
use crate::joined::Joined;
use crate::listener;
use crate::mapping;
use crate::plan::{self, Plan};
use crate::prepared::Prepared;
use crate::state::{CONFIG, MAX_CONFIG, NOTIFY, Record, RecordedProcess, START_SOCKET, Status};
use crate::{CreateExtras, CreateRequest, Created, Runtime};

pub(crate) use adopt::adopt;

fn host(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> CreateError {
    let attempt = attempt.into();
    move |source| CreateError::Host { attempt, source }
}

/// A configuration, with the bytes it was read from.
fn read_spec(path: &Path) -> Result<(oci::Spec, Vec<u8>), SpecError> {
    let bytes = carrack_linux::fs::read_bounded(path, MAX_CONFIG)
        .map_err(|source| SpecError::Read { path: path.to_owned(), source })?;
    let spec = serde_json::from_slice(&bytes)
        .map_err(|source| SpecError::Parse { path: path.to_owned(), source })?;
    Ok((spec, bytes))
}

/// The configuration a container was made from.
pub(crate) fn kept_spec(directory: &TrustedDir) -> Result<oci::Spec, SpecError> {
    let path = || directory.path().join(CONFIG);
    let bytes = directory
        .read(CONFIG, MAX_CONFIG)
        .map_err(|source| SpecError::Read { path: path(), source })?;
    serde_json::from_slice(&bytes).map_err(|source| SpecError::Parse { path: path(), source })
}

pub(crate) fn create(
    runtime: &Runtime,
    request: CreateRequest<'_>,
    extras: &CreateExtras,
) -> Result<Created, CreateError> {
    let (mut making, config) = Making::begin(runtime, request.id, request.bundle, Some(extras))?;
    let made = making
        .keep(&config)
        .and_then(|()| if extras.notify { making.make_notify() } else { Ok(()) })
        .and_then(|()| making.run(request));
    making.or_undo(made)
}

fn record(plan: &Plan, id: &ContainerId, bundle: &Path, home: &Home) -> Record {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Record {
        version: 1,
        id: id.to_string(),
        bundle: bundle.to_owned(),
        rootfs: plan.rootfs.clone(),
        created_millis: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        process: None,
        cgroup: home.group().path().to_owned(),
        unit: home.unit(),
        rootless: home.is_rootless(),
        annotations: plan.annotations.clone(),
        has_process: plan.process.is_some(),
    }
}

/// The container's own directory below the state root.
fn make_directory(runtime: &Runtime, id: &ContainerId) -> Result<TrustedDir, CreateError> {
    let path = runtime.root.join(id.as_str());
    TrustedDir::make(path.clone()).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => CreateError::Exists { id: id.to_string() },
        _ => host(format!("making the state directory {}", path.display()))(error),
    })
}

/// A container half made, with what is needed to unmake it.
struct Making {
    plan: Plan,
    hooks: oci::Hooks,
    home: Home,
    directory: TrustedDir,
    record: Record,
}

impl Making {
    /// Works out all there is to do; of the container there is its directory then. With the
    /// configuration as it was read.
    fn begin(
        runtime: &Runtime,
        id: &ContainerId,
        bundle: &Path,
        extras: Option<&CreateExtras>,
    ) -> Result<(Self, Vec<u8>), CreateError> {
        let bundle = trusted::canonical(bundle)
            .map_err(host(format!("opening the bundle {}", bundle.display())))?;
        let (spec, bytes) = read_spec(&bundle.join(CONFIG))?;
        let mut plan = plan::plan(&spec, &bundle, id.as_str())?;
        if let Some(extras) = extras {
            plan.add(extras, &runtime.notify_directory(id))?;
        }
        let home = Home::find(&runtime.cgroups, &spec, &plan, id)?;
        let directory = make_directory(runtime, id)?;
        let record = record(&plan, id, &bundle, &home);
        Ok((Self { plan, hooks: spec.hooks, home, directory, record }, bytes))
    }

    /// Keeps the configuration, which may change in the bundle, and what is known so far.
    fn keep(&self, config: &[u8]) -> Result<(), CreateError> {
        self.directory
            .create(CONFIG, config)
            .map_err(host(format!("keeping {CONFIG} in {}", self.directory.path().display())))?;
        Ok(self.record.write(&self.directory)?)
    }

    /// What was made, or the error with nothing left of it.
    fn or_undo<T>(self, made: Result<T, CreateError>) -> Result<T, CreateError> {
        if made.is_err() {
            self.undo();
        }
        made
    }

    /// Whoever the program runs as can come here, if only through its mount.
    fn make_notify(&self) -> Result<(), CreateError> {
        let path = self.directory.path().join(NOTIFY);
        self.directory
            .make_directory(NOTIFY, 0o755)
            .map_err(host(format!("making {}", path.display())))
    }

    fn run(&mut self, request: CreateRequest<'_>) -> Result<Created, CreateError> {
        let terminal = self.plan.process.as_ref().is_some_and(|process| process.terminal);
        let streams = request
            .stdio
            .into_streams(terminal)
            .map_err(|reason| CreateError::Stdio { reason })?
            .map_err(host("opening /dev/null"))?;
        self.home.make(&self.plan.limits)?;
        self.record.cgroup = self.home.group().path().to_owned();
        if let Some(owner) = self.plan.cgroup_owner() {
            self.home.group().delegate(owner)?;
        }
        let init = request
            .init
            .map(|init| init.try_clone_to_owned())
            .transpose()
            .map_err(host("keeping the init program"))?;
        let prepared = Prepared::new(&self.plan, self.home.group(), streams, init)?;
        let listener = socket::listen_in(self.directory.as_fd(), START_SOCKET.as_ref())
            .map_err(host("making the socket the container waits at"))?;
        let listener = OwnedFd::from(listener);
        let (ours, theirs) = Channel::pair().map_err(host("making a socket"))?;
        let child = self.bear(&prepared, &theirs, &listener, request.preserve_fds)?;
        drop(theirs);
        match self.accompany(&child, &ours, request.pid_file) {
            Ok(console) => {
                let warnings = std::mem::take(&mut self.plan.warnings);
                Ok(Created { pid: child.pid(), pidfd: child.into_pidfd(), console, warnings })
            }
            Err(error) => {
                child.destroy();
                // If it failed first, our own failure is only the echo of that.
                match ours.receive() {
                    Ok(Some(Message::Failed(failure))) => Err(CreateError::Inside(failure)),
                    _ => Err(error),
                }
            }
        }
    }

    /// Starts the first process, inside its namespaces.
    fn bear(
        &self,
        prepared: &Prepared,
        channel: &Channel,
        listener: &OwnedFd,
        preserve_fds: u32,
    ) -> Result<Child, CreateError> {
        let state_json = |status: &str| self.state_json(status, Some(rustix::process::getpid()));
        let cgroup = self.home.group().handle()?;
        let namespaces = &self.plan.namespaces;
        let open = "opening namespaces";
        let joined = Joined::open(&namespaces.joined).map_err(host(open))?;
        let mounts = namespaces.path_of(Kinds::MOUNT).map(namespace::open);
        let mounts = mounts.transpose().map_err(host(open))?;
        let users = namespaces.path_of(Kinds::USER).map(namespace::open);
        let users = users.transpose().map_err(host(open))?;
        let birth = Birth {
            // Its own namespace of control groups begins where the group has taken it in, its
            // own clocks once they are set.
            namespaces: namespaces.new - Kinds::CGROUP - Kinds::TIME,
            cgroup: cgroup.as_ref().map(AsFd::as_fd),
            sibling: false,
        };
        let start = |birth: Birth<'_>| {
            let mounts = mounts.as_ref().map(OwnedFd::try_clone).transpose()?;
            let inside = Inside {
                plan: &self.plan,
                hooks: &self.hooks,
                state_json: &state_json,
                prepared,
                channel,
                listener,
                preserve_fds,
                joined: false,
                mounts,
            };
            match &users {
                Some(users) => birth::start_within(users, &joined, birth, || inside.run()),
                None => birth::start_in(&joined, birth, || inside.run()),
            }
        };
        let started = match start(birth) {
            // systemd will move it.
            Err(error) if self.record.unit.is_some() && home::is_refusal(&error) => {
                start(Birth { cgroup: None, ..birth })
            }
            started => started,
        };
        started.map_err(host("starting the first process in its namespaces"))
    }

    /// Does for the first process what it cannot do itself, until it only waits.
    fn accompany(
        &mut self,
        child: &Child,
        channel: &Channel,
        pid_file: Option<&Path>,
    ) -> Result<Option<OwnedFd>, CreateError> {
        let talk = "talking to the first process";
        if self.plan.namespaces.new.contains(Kinds::USER) {
            let mapped = mapping::write(child.pid(), &self.plan.uid_map, &self.plan.gid_map);
            mapped.map_err(host("mapping ids"))?;
            channel.send(&Message::Mapped).map_err(host(talk))?;
        }
        if self.plan.namespaces.new.contains(Kinds::TIME) {
            self.set_clocks(child, channel)?;
        }
        self.adjust(child.pid())?;
        self.home.take_in(child.pid())?;
        channel.send(&Message::Joined).map_err(host(talk))?;
        let console = loop {
            match channel.receive().map_err(host(talk))? {
                Some(Message::Ready(console)) => break console,
                Some(Message::Prepared) => {
                    // The old kind of hook was defined to run after creation, and its
                    // programs look for the status that came with it.
                    let state = self.state_json("created", Some(child.pid()));
                    hooks::run("prestart", &self.hooks.prestart, &state)?;
                    let state = self.state_json("creating", Some(child.pid()));
                    hooks::run("createRuntime", &self.hooks.create_runtime, &state)?;
                    channel.send(&Message::Hooked).map_err(host(talk))?;
                }
                Some(Message::Failed(failure)) => return Err(CreateError::Inside(failure)),
                Some(_) => {
                    return Err(host(talk)(io::Error::other("it said something unexpected")));
                }
                None => return Err(died(child)),
            }
        };
        let pid = child.pid();
        let started = process::start_time(pid).ok_or_else(|| died(child))?;
        self.record.process = Some(RecordedProcess { pid: pid.as_raw_nonzero().get(), started });
        self.record.write(&self.directory)?;
        if let Some(path) = pid_file {
            crate::write_pid_file(path, pid)
                .map_err(host(format!("writing {}", path.display())))?;
        }
        Ok(console)
    }

    /// Clocks are set while nobody is in their namespace yet.
    fn set_clocks(&self, child: &Child, channel: &Channel) -> Result<(), CreateError> {
        let talk = "talking to the first process";
        match channel.receive().map_err(host(talk))? {
            Some(Message::Unshared) => {}
            Some(Message::Failed(failure)) => return Err(CreateError::Inside(failure)),
            Some(_) => return Err(host(talk)(io::Error::other("it said something unexpected"))),
            None => return Err(died(child)),
        }
        let offsets = &self.plan.namespaces.time_offsets;
        if !offsets.is_empty() {
            Proc::mounted()
                .and_then(|proc| proc.write_of(child.pid(), "timens_offsets", offsets))
                .map_err(host("setting the clocks (linux.timeOffsets)"))?;
        }
        channel.send(&Message::Offset).map_err(host(talk))
    }

    /// What needs privilege over the host.
    fn adjust(&self, pid: Pid) -> Result<(), CreateError> {
        interfaces::hand_over(&self.plan, pid)?;
        let Some(process) = &self.plan.process else { return Ok(()) };
        if let Some(score) = process.oom_score_adj {
            adjust_oom_score(pid, score)
                .map_err(host(format!("setting the out-of-memory score to {score}")))?;
        }
        if self.plan.has_user_namespace() {
            for limit in &process.rlimits {
                rustix::process::prlimit(Some(pid), limit.resource, crate::inside::rlimit(limit))
                    .map_err(|error| host(format!("limiting {:?}", limit.resource))(error.into()))?;
            }
        }
        Ok(())
    }

    fn state_json(&self, status: &str, pid: Option<Pid>) -> String {
        state_json(&self.record, status, pid)
    }

    /// Takes everything away again; the error that led here is the one to report.
    fn undo(mut self) {
        self.home.undo();
        self.directory.remove_all().ok();
    }
}

fn died(child: &Child) -> CreateError {
    let how = match child.wait() {
        Ok(exit) => format!("it ended with code {}", exit.shell_code()),
        Err(error) => format!("it is gone ({error})"),
    };
    host("setting up the first process")(io::Error::other(how))
}

/// Leaves a score that is right already alone: lowering it takes privilege.
pub(crate) fn adjust_oom_score(pid: Pid, score: i32) -> io::Result<()> {
    const FILE: &str = "oom_score_adj";
    let (proc, score) = (Proc::mounted()?, score.to_string());
    if proc.read_of(pid, FILE)?.trim() == score {
        return Ok(());
    }
    proc.write_of(pid, FILE, &score)
}

/// The state as hooks are told.
pub(crate) fn state_json(record: &Record, status: &str, pid: Option<Pid>) -> String {
    let mut state = serde_json::json!({
        "ociVersion": oci::VERSION,
        "id": record.id,
        "status": status,
        "bundle": record.bundle,
    });
    if let Some(pid) = pid {
        state["pid"] = pid.as_raw_nonzero().get().into();
    }
    if !record.annotations.is_empty() {
        state["annotations"] = serde_json::json!(record.annotations);
    }
    state.to_string()
}

/// Looks into the image again, by the configuration that was kept.
pub(crate) fn explain_exit(runtime: &Runtime, id: &ContainerId, code: i32) -> Option<String> {
    if code < 126 {
        return None;
    }
    let directory = runtime.directory(id).ok()?;
    let record = Record::read(&directory, id).ok()?;
    let spec = kept_spec(&directory).ok()?;
    let plan = plan::plan(&spec, &record.bundle, id.as_str()).ok()?;
    crate::diagnose::explain_exit(&plan, code)
}

pub(crate) fn start(runtime: &Runtime, id: &ContainerId) -> Result<(), StartError> {
    let directory = runtime.directory(id)?;
    let record = Record::read(&directory, id)?;
    let state = record.state(&directory, id)?;
    if state.status != Status::Created {
        return Err(StartError::NotCreated { id: id.to_string(), status: state.status });
    }
    let spec = kept_spec(&directory)?;
    let answer = ask_to_start(&directory, |listener| {
        let told = state_json(&record, "created", state.pid);
        listener::hand_over(&spec, &listener, state.pid, &told)
    });
    let answer = answer.map_err(|source| StartError::Talk { id: id.to_string(), source })?;
    if !answer.is_empty() {
        return Err(StartError::Inside(Failure::decode(&answer)));
    }
    if !record.has_process {
        return Err(StartError::NoProcess { id: id.to_string() });
    }
    let state = state_json(&record, "running", state.pid);
    hooks::run("poststart", &spec.hooks.poststart, &state).map_err(|error| {
        // The specification has the container stop; the hook's failure is what to tell.
        control::stop(&record).ok();
        StartError::Hook(error)
    })
}

/// Knocks; silence means that the program runs. What a seccomp filter leaves to a listener is
/// handed to `listener`; when that fails, the program is not executed.
fn ask_to_start(
    directory: &TrustedDir,
    mut listener: impl FnMut(OwnedFd) -> io::Result<()>,
) -> io::Result<Vec<u8>> {
    let mut socket = socket::connect_in(directory.as_fd(), START_SOCKET.as_ref())?;
    socket.write_all(b"s")?;
    let mut answer = Vec::new();
    let mut buffer = vec![0; 4096];
    loop {
        let mut passed = Vec::new();
        let length = socket::receive(&socket, &mut buffer, &mut passed)?;
        let mut bytes = buffer.get(..length).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        if let Some(passed) = passed.pop() {
            bytes = bytes.strip_prefix(LISTENER).unwrap_or(bytes);
            listener(passed)?;
            socket.write_all(b"k")?;
        }
        answer.extend_from_slice(bytes);
    }
    directory.remove(START_SOCKET)?;
    Ok(answer)
}

//! The life of a container's first process, from its birth to the user's program.
//!
//! This runs in a copy of the caller, inside the new namespaces. It never returns: it
//! becomes the program, or reports a [`Failure`] and leaves. Everything it touches below
//! the root goes through a [`RootedDir`], and everything it needs of the host was opened
//! by the caller before.

mod cgroup_mount;
mod console;
mod copy_up;
mod devices;
mod masks;
mod mounts;
mod program;
mod stage;
mod user;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use carrack_linux::label::{ExecLabel, System};
use carrack_linux::mount::{self, Attributes, Change, Propagation};
use carrack_linux::namespace::{self, Kinds};
use carrack_linux::rooted::RootedDir;
use carrack_linux::schedule::{self, Numbers};
use carrack_linux::{netlink, process, socket};
use carrack_oci::runtime as oci;

use crate::channel::{Channel, Message};
use crate::error::CreateError;
use crate::failure::{Attempt, Failure};
use crate::hooks;
use crate::plan::{Plan, ProcessPlan};
use crate::prepared::{Prepared, Trees};
use crate::stdio::Streams;

use program::{Program, Ready};
use stage::Stage;
pub(crate) use user::rlimit;

/// The number of the loopback interface, in any network namespace.
const LOOPBACK: u32 = 1;

/// Goes along with the descriptor of a seccomp listener, ahead of any failure.
pub(crate) const LISTENER: &[u8] = b"n";

/// What the first process is given.
pub(crate) struct Inside<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) hooks: &'a oci::Hooks,
    /// The state as hooks in here are told, with this process's id as seen in here.
    pub(crate) state_json: &'a dyn Fn(&str) -> String,
    pub(crate) prepared: &'a Prepared,
    pub(crate) channel: &'a Channel,
    pub(crate) listener: &'a OwnedFd,
    pub(crate) preserve_fds: u32,
    /// Whether a namespace of control groups was made already.
    pub(crate) joined: bool,
    /// The mount namespace to enter, when it is another's.
    pub(crate) mounts: Option<OwnedFd>,
}

impl Inside<'_> {
    /// Lives that life.
    pub(crate) fn run(mut self) {
        let failure = match self.set_up() {
            Ok(()) => {
                // Nothing of the caller's may stay open while we wait, perhaps for days.
                let init = self.prepared.init_program().map(AsFd::as_fd);
                let keep: Vec<_> = [self.listener.as_fd()].into_iter().chain(init).collect();
                match process::close_from_except(3 + self.preserve_fds, &keep) {
                    Ok(()) => return self.wait_and_become(),
                    Err(error) => Failure::new("closing the caller's descriptors", &error),
                }
            }
            Err(failure) => failure,
        };
        // If nobody listens any more, nobody needs to know.
        self.channel.send(&Message::Failed(failure)).ok();
        process::leave(1)
    }

    fn set_up(&mut self) -> Result<(), Failure> {
        // Without privilege the maps are written by another program, which has to see us.
        if self.prepared.trees.is_some() {
            process::set_undumpable().attempt(|| "hiding from other processes".into())?;
        }
        if self.plan.namespaces.new.contains(Kinds::USER) {
            expect(self.channel, |message| matches!(message, Message::Mapped))?;
        }
        if self.plan.has_user_namespace() {
            user::become_mapped_root()?;
        }
        let labels = Labels::open(self.plan.process.as_ref())?;
        rustix::process::setsid().attempt(|| "starting a session".into())?;
        if self.plan.new_keyring {
            user::new_session_keyring()?;
        }
        self.finish_namespaces()?;
        let opened;
        let trees = match &self.prepared.trees {
            Some(trees) => trees,
            None => {
                opened = Trees::open(self.plan).map_err(failure_of)?;
                &opened
            }
        };
        let root = self.attach_root(trees)?;
        self.mount_all(&root, trees).map_err(|failure| self.explain_mount(failure))?;
        let console = self.furnish(&root, trees)?;
        self.join_cgroup()?;
        self.run_hooks()?;
        self.enter_root(root)?;
        labels.write()?;
        let program = self.find_program()?;
        drop(program);
        self.prepared.stdio.install().attempt(|| "installing standard streams".into())?;
        if let Some(terminal) = &console {
            console::install(terminal)?;
        }
        let console = console.map(|terminal| terminal.master);
        self.channel.send(&Message::Ready(console)).attempt(|| "reporting to the runtime".into())
    }

    /// What a new process is not born with: clocks, mounts of another's, a way to itself.
    fn finish_namespaces(&self) -> Result<(), Failure> {
        let new = self.plan.namespaces.new;
        if new.contains(Kinds::TIME) {
            namespace::unshare(Kinds::TIME).attempt(|| "making a time namespace".into())?;
            self.channel.send(&Message::Unshared).attempt(|| "reporting to the runtime".into())?;
            expect(self.channel, |message| matches!(message, Message::Offset))?;
            namespace::open_time_for_children()
                .and_then(|own| namespace::enter(own.as_fd(), Kinds::TIME))
                .attempt(|| "entering the time namespace".into())?;
        }
        if new.contains(Kinds::NETWORK) {
            netlink::Socket::open(netlink::Family::Route)
                .and_then(|mut socket| socket.set_up(LOOPBACK))
                .attempt(|| "bringing the loopback interface up".into())?;
        }
        if let Some(mounts) = &self.mounts {
            namespace::enter(mounts.as_fd(), Kinds::MOUNT)
                .attempt(|| "entering the mount namespace".into())?;
        }
        if new.contains(Kinds::MOUNT) {
            mount::set_root_propagation(self.outer_propagation())
                .attempt(|| "detaching from the host's mounts".into())?;
        }
        Ok(())
    }

    fn outer_propagation(&self) -> Propagation {
        match self.plan.propagation {
            Some((Propagation::Private, _)) => Propagation::Private,
            // The copy of the host's tree is dropped soon; it must not tell the host.
            _ => Propagation::Slave,
        }
    }

    /// Puts the root file system onto `/`. We still stand below it, at the host's root.
    ///
    /// Where the mounts are the host's it is attached nowhere, now and later: no container
    /// changes what the host has mounted.
    fn attach_root(&self, trees: &Trees) -> Result<RootedDir, Failure> {
        let root = trees.root.try_clone().attempt(|| "keeping the root file system".into())?;
        if !self.plan.namespaces.own().contains(Kinds::MOUNT) {
            return Ok(RootedDir::from_fd(root));
        }
        let host = RootedDir::open(Path::new("/")).attempt(|| "opening /".into())?;
        mount::attach(root.as_fd(), host.root())
            .attempt(|| "mounting the root file system".into())?;
        Ok(RootedDir::from_fd(root))
    }

    /// Mounts on mounts that are attached nowhere are a recent ability.
    fn explain_mount(&self, failure: Failure) -> Failure {
        let shares = !self.plan.namespaces.own().contains(Kinds::MOUNT);
        if shares && failure.errno == libc::EINVAL {
            return failure.hint(
                "a container that shares the host's mounts needs Linux 6.15; \
                 add a mount namespace to linux.namespaces",
            );
        }
        failure
    }

    fn mount_all(&mut self, root: &RootedDir, trees: &Trees) -> Result<(), Failure> {
        // Where the mounts are others' too, nothing may be attached but what is asked for.
        let own = self.plan.namespaces.new.contains(Kinds::MOUNT);
        let stage = own.then(Stage::open).transpose()?;
        for (index, planned) in self.plan.mounts.iter().enumerate() {
            if planned.source == crate::plan::MountSource::Cgroup {
                self.join_cgroup()?;
                cgroup_mount::mount(root, planned, self.prepared)?;
            } else {
                let bind = trees.binds.get(index).and_then(Option::as_ref);
                mounts::mount(root, planned, bind, stage.as_ref())?;
            }
        }
        Ok(())
    }

    /// Devices, terminal, names, settings, and what must not be seen or written.
    fn furnish(
        &self,
        root: &RootedDir,
        trees: &Trees,
    ) -> Result<Option<console::Terminal>, Failure> {
        if self.plan.own_dev {
            devices::make(root, self.plan, trees)?;
        }
        let console = match &self.plan.process {
            Some(process) if process.terminal => Some(console::open(root, process)?),
            Some(_) | None => None,
        };
        if let Some(name) = &self.plan.hostname {
            rustix::system::sethostname(name.as_bytes())
                .attempt(|| format!("setting the host name {name}"))?;
        }
        if let Some(name) = &self.plan.domainname {
            rustix::system::setdomainname(name.as_bytes())
                .attempt(|| format!("setting the domain name {name}"))?;
        }
        user::write_sysctls(&self.plan.sysctls)?;
        if let Some(process) = &self.plan.process {
            make_working_directory(root, &process.cwd)?;
        }
        masks::read_only(root, &self.plan.readonly)?;
        masks::mask(root, &self.plan.masked, &trees.null)?;
        if self.plan.rootfs_readonly {
            let change = Change { set: Attributes::READ_ONLY, ..Change::default() };
            mount::set_attributes(root.root(), false, change)
                .attempt(|| "making the root file system read-only".into())?;
        }
        Ok(console)
    }

    /// Waits for the control group, once, and makes it the root of a namespace.
    fn join_cgroup(&mut self) -> Result<(), Failure> {
        if self.joined {
            return Ok(());
        }
        expect(self.channel, |message| matches!(message, Message::Joined))?;
        if self.plan.namespaces.new.contains(Kinds::CGROUP) {
            namespace::unshare(Kinds::CGROUP).attempt(|| "making a cgroup namespace".into())?;
        }
        self.joined = true;
        Ok(())
    }

    fn run_hooks(&self) -> Result<(), Failure> {
        if !hooks::any_before_start(self.hooks) {
            return Ok(());
        }
        self.channel.send(&Message::Prepared).attempt(|| "reporting to the runtime".into())?;
        expect(self.channel, |message| matches!(message, Message::Hooked))?;
        let state = (self.state_json)("creating");
        hooks::run("createContainer", &self.hooks.create_container, &state)
            .map_err(|error| Failure::refused(hooks::describe(&error), String::new()))
    }

    fn enter_root(&self, root: RootedDir) -> Result<(), Failure> {
        if !self.plan.namespaces.own().contains(Kinds::MOUNT) {
            return mount::change_root(root.root()).attempt(|| "changing the root".into());
        }
        mount::pivot_root(root.root()).attempt(|| "changing the root".into())?;
        if let Some((propagation, recursive)) = self.plan.propagation {
            let change = Change { propagation: Some(propagation), ..Change::default() };
            mount::set_attributes(root.root(), recursive, change)
                .attempt(|| "setting the propagation of the root".into())?;
        }
        Ok(())
    }

    /// A missing program is told at creation, when somebody still looks.
    fn find_program(&self) -> Result<Option<Program>, Failure> {
        self.plan.process.as_ref().map(Program::find).transpose()
    }

    /// Waits for the start, and becomes the program.
    fn wait_and_become(&self) {
        loop {
            let Ok(starter) =
                rustix::net::accept_with(self.listener, rustix::net::SocketFlags::CLOEXEC)
            else {
                continue; // Interrupted, or the starter left before we looked.
            };
            let mut request = [0; 1];
            match rustix::io::read(&starter, &mut request) {
                Ok(1) => {}
                Ok(_) | Err(_) => continue,
            }
            let Some(process) = &self.plan.process else { process::leave(1) };
            let finish = Finish {
                process,
                mapped: self.plan.has_user_namespace(),
                personality: self.plan.personality,
                memory_policy: self.plan.memory_policy.as_ref(),
                preserve_fds: self.preserve_fds,
                listener: &|listener| {
                    socket::send(&starter, LISTENER, &[listener.as_fd()])?;
                    drop(listener);
                    let mut heard = [0; 1];
                    match socket::receive(&starter, &mut heard, &mut Vec::new())? {
                        0 => Err(nobody_listens()),
                        _ => Ok(()),
                    }
                },
            };
            let told = std::cell::Cell::new(false);
            // The hint, which comes last in a failure, may follow.
            let tell = |failure: &Failure| {
                told.set(rustix::io::write(&starter, &failure.encode()).is_ok());
            };
            let failure = finish.run(self.prepared.init_program(), tell, || {
                if self.hooks.start_container.is_empty() {
                    return Ok(());
                }
                let state = (self.state_json)("created");
                hooks::run("startContainer", &self.hooks.start_container, &state)
                    .map_err(|error| Failure::refused(hooks::describe(&error), String::new()))
            });
            let rest = if told.get() { failure.hint.into_bytes() } else { failure.encode() };
            // If nobody listens any more, nobody needs to know.
            rustix::io::write(&starter, &rest).ok();
            process::leave(1)
        }
    }
}

/// A process that joins a container that runs.
pub(crate) struct Newcomer<'a> {
    pub(crate) process: &'a ProcessPlan,
    pub(crate) streams: &'a Streams,
    pub(crate) channel: &'a Channel,
    /// The container's first process.
    pub(crate) first: BorrowedFd<'a>,
    /// Its namespaces, but for that of process ids, which this one was born in.
    pub(crate) kinds: Kinds,
    /// The container's root, where that is all that keeps it from the host's files.
    pub(crate) root: Option<&'a OwnedFd>,
    pub(crate) personality: Option<u32>,
    pub(crate) memory_policy: Option<&'a (i32, Numbers)>,
    pub(crate) preserve_fds: u32,
}

impl Newcomer<'_> {
    /// Joins, and becomes the program.
    pub(crate) fn run(self) {
        let failure = match self.join() {
            Ok(()) => {
                let finish = Finish {
                    process: self.process,
                    mapped: self.kinds.contains(Kinds::USER),
                    personality: self.personality,
                    memory_policy: self.memory_policy,
                    preserve_fds: self.preserve_fds,
                    listener: &|listener| {
                        self.channel.send(&Message::Listener(Some(listener)))?;
                        match self.channel.receive()? {
                            Some(Message::Heard) => Ok(()),
                            Some(_) | None => Err(nobody_listens()),
                        }
                    },
                };
                let tell = |failure: &Failure| {
                    // If nobody listens any more, nobody needs to know.
                    self.channel.send(&Message::Failed(failure.clone())).ok();
                };
                finish.run(None, tell, || Ok(()))
            }
            Err(failure) => failure,
        };
        // If nobody listens any more, nobody needs to know.
        self.channel.send(&Message::Failed(failure)).ok();
        process::leave(1)
    }

    fn join(&self) -> Result<(), Failure> {
        process::set_undumpable().attempt(|| "hiding from the container's processes".into())?;
        expect(self.channel, |message| matches!(message, Message::Joined))?;
        let labels = Labels::open(Some(self.process))?;
        namespace::enter_of(self.first, self.kinds)
            .attempt(|| "entering the container's namespaces".into())?;
        if let Some(root) = self.root {
            mount::change_root(root.as_fd()).attempt(|| "entering the container's root".into())?;
        }
        if self.kinds.contains(Kinds::USER) {
            user::become_mapped_root()?;
        }
        rustix::process::setsid().attempt(|| "starting a session".into())?;
        user::new_session_keyring()?;
        self.streams.install().attempt(|| "installing standard streams".into())?;
        if self.process.terminal {
            let root = RootedDir::open(Path::new("/"))
                .attempt(|| "opening the container's root".into())?;
            let terminal = console::open_pair(&root, self.process)?;
            console::install(&terminal)?;
            let master = Some(terminal.master);
            self.channel
                .send(&Message::Ready(master))
                .attempt(|| "handing over the terminal".into())?;
        }
        labels.write()
    }
}

fn expect(channel: &Channel, wanted: impl Fn(&Message) -> bool) -> Result<(), Failure> {
    match channel.receive() {
        Ok(Some(message)) if wanted(&message) => Ok(()),
        // The runtime was killed: nobody will ever start this container.
        Ok(None) => process::leave(1),
        Ok(Some(message)) => {
            Err(Failure::refused("talking to the runtime", format!("it said {message:?}")))
        }
        Err(error) => Err(Failure::new("talking to the runtime", &error)),
    }
}

/// A program whose calls nobody decides on does not start.
fn nobody_listens() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "nobody took it")
}

/// The working directory of an image need not be in its layers.
fn make_working_directory(root: &RootedDir, cwd: &Path) -> Result<(), Failure> {
    match root.make_directories(cwd, 0o755) {
        Ok(_) => Ok(()),
        // A file system that takes no writes may still hold it for the user; chdir decides.
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::EROFS | libc::EACCES | libc::EPERM)) =>
        {
            Ok(())
        }
        Err(error) => Err(working_directory_failure(cwd, &error)),
    }
}

fn working_directory_failure(cwd: &Path, error: &io::Error) -> Failure {
    let failure =
        Failure::new(format!("changing to the working directory {}", cwd.display()), error);
    match error.raw_os_error() {
        Some(libc::ELOOP) => failure.hint("it leads through a link of /proc, out of the container"),
        _ => failure,
    }
}

/// The last steps, the same for a first process and for one that comes later.
pub(crate) struct Finish<'a> {
    pub(crate) process: &'a ProcessPlan,
    /// Whether limits were set from outside, where the privilege is.
    pub(crate) mapped: bool,
    pub(crate) personality: Option<u32>,
    pub(crate) memory_policy: Option<&'a (i32, Numbers)>,
    pub(crate) preserve_fds: u32,
    /// Hands over where to listen for calls that the filter leaves to a listener, and returns
    /// once somebody has it.
    pub(crate) listener: &'a dyn Fn(OwnedFd) -> io::Result<()>,
}

impl Finish<'_> {
    /// Gives up privileges and becomes the program; returns why it could not. `told` hears
    /// first of a program that the kernel does not execute.
    pub(crate) fn run(
        &self,
        init: Option<&OwnedFd>,
        told: impl FnOnce(&Failure),
        hooks: impl FnOnce() -> Result<(), Failure>,
    ) -> Failure {
        match self.prepare().and_then(|ready| self.give_up_privileges(hooks).map(|()| ready)) {
            Ok(ready) => ready.execute(self.process, init, told),
            Err(failure) => failure,
        }
    }

    /// All that a seccomp filter, written for the program and not for us, might forbid.
    fn prepare(&self) -> Result<Ready, Failure> {
        let process = self.process;
        if let Some(personality) = self.personality {
            user::set_personality(personality)?;
        }
        if !self.mapped {
            user::set_rlimits(&process.rlimits)?;
        }
        if let Some(priority) = process.io_priority {
            user::set_io_priority(priority)?;
        }
        if let Some(policy) = &process.scheduler {
            schedule::set_policy(policy).attempt(|| format!("scheduling by {policy:?}"))?;
        }
        if let Some((mode, nodes)) = self.memory_policy {
            schedule::set_memory_policy(*mode, nodes)
                .attempt(|| format!("taking memory by policy {mode} from nodes {nodes:?}"))?;
        }
        if let Some(processors) = &process.affinity.last {
            schedule::set_affinity(processors)
                .attempt(|| format!("running on processors {processors:?}"))?;
        }
        user::switch(process)?;
        Ready::new(process, 3 + self.preserve_fds)
    }

    /// Capabilities and filter, in the order that each needs the other.
    fn give_up_privileges(
        &self,
        hooks: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let process = self.process;
        if process.no_new_privileges {
            rustix::thread::set_no_new_privs(true).attempt(|| "setting no_new_privs".into())?;
            user::set_capabilities(process)?;
            hooks()?;
            self.load_filter()
        } else {
            // Without no_new_privs the filter takes a privilege that then goes.
            if process.seccomp.is_some() {
                user::raise_permitted()?;
                self.load_filter()?;
            }
            user::set_capabilities(process)?;
            hooks()
        }
    }

    fn load_filter(&self) -> Result<(), Failure> {
        let Some(filter) = &self.process.seccomp else { return Ok(()) };
        let listener = filter.load().attempt(|| "loading the seccomp filter".into())?;
        listener.map_or(Ok(()), |listener| {
            (self.listener)(listener).attempt(|| "handing over the seccomp listener".into())
        })
    }
}

/// Labels of the program, with the places to write them to.
struct Labels<'a>(Vec<(ExecLabel, System, &'a str)>);

impl<'a> Labels<'a> {
    /// Opens the places while the host's `/proc` is still there.
    fn open(process: Option<&'a ProcessPlan>) -> Result<Self, Failure> {
        let asked = process.map_or(&[][..], |process| &process.labels);
        let open = |(system, label): &'a (System, String)| {
            let attempt = format!("applying the {} label {label:?}", system.name());
            if !system.is_enabled() {
                let hint = format!("{} is not enabled on this host; remove it", system.name());
                return Err(Failure::refused(attempt, hint));
            }
            let place = ExecLabel::open(*system).attempt(|| attempt)?;
            Ok((place, *system, label.as_str()))
        };
        asked.iter().map(open).collect::<Result<_, _>>().map(Self)
    }

    fn write(self) -> Result<(), Failure> {
        self.0.into_iter().try_for_each(|(place, system, label)| {
            let attempt = || format!("applying the {} label {label:?}", system.name());
            place.write(label).attempt(attempt).map_err(|failure| {
                if failure.errno == libc::ENOENT {
                    return failure.hint("no such profile is loaded on this host");
                }
                failure
            })
        })
    }
}

/// What the caller would have said, said from here.
fn failure_of(error: CreateError) -> Failure {
    match error {
        CreateError::Host { attempt, source } => Failure::new(attempt, &source),
        other => Failure::refused("opening what is to be mounted", other.to_string()),
    }
}

//! Control groups, version 1, version 2 and hybrid.
//!
//! ```text
//! /proc/self/mountinfo ─▶ Layout ─┬─▶ Group::create ─▶ apply(Limits) ─▶ join … freeze, kill, stats ─▶ delete
//!                         a path ─┘
//! ```
//!
//! On version 1 a group is a directory in each hierarchy, on version 2 it is one
//! directory. On a hybrid system the controllers are on version 1 and we stay there.
//! [`Limits`] says what is wanted in one vocabulary; what to write where is decided by
//! two pure functions, one per version, and only then written.
//!
//! A path here is one the caller trusts: it names groups of the host, never anything a
//! container wrote.

mod current;
mod device;
mod device_list;
mod error;
mod layout;
mod limits;
mod oom;
mod setting;
pub mod stats;
pub mod systemd;
mod v1;
mod v2;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;

use current::Current;
use device_list::List;
use setting::Setting;

pub use device::{DeviceAccess, DeviceKind, DeviceRule};
pub use error::CgroupError;
pub use layout::{Hierarchy, Layout, Version};
pub use limits::{Cpu, DeviceRate, DeviceWeight, Io, Limits, Memory};
pub use oom::{OomEvents, OomWatch};
pub use stats::Stats;

/// Attempts to remove a group whose last process is still being taken down.
const REMOVALS: u32 = 200;

/// Rounds of killing before giving up on a group that keeps forking.
const KILL_ROUNDS: u32 = 100;

/// A group by its path, in every hierarchy of the layout. It need not exist yet.
#[derive(Clone, Debug)]
pub struct Group {
    layout: Layout,
    path: PathBuf,
}

impl Group {
    /// Names the group at `path`, counted from the hierarchies' roots.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Path`] when the path is the root or contains `..`.
    pub fn new(layout: Layout, path: &Path) -> Result<Self, CgroupError> {
        use std::path::Component;
        let mut relative = PathBuf::new();
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => relative.push(name),
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(CgroupError::Path { path: path.to_owned() });
                }
            }
        }
        if relative.as_os_str().is_empty() {
            return Err(CgroupError::Path { path: path.to_owned() });
        }
        Ok(Self { layout, path: relative })
    }

    /// No group: taking processes in and removing it do nothing, and everything else is
    /// refused with [`CgroupError::NoGroup`].
    pub fn none() -> Self {
        Self { layout: Layout::none(), path: PathBuf::new() }
    }

    /// Whether this is no group.
    pub fn is_none(&self) -> bool {
        self.layout.hierarchies().is_empty()
    }

    /// The hierarchies it is in.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The group in those hierarchies that have it.
    #[must_use]
    pub fn present(&self) -> Self {
        let layout = self.layout.filtered(|hierarchy| hierarchy.mount.join(&self.path).is_dir());
        Self { layout, path: self.path.clone() }
    }

    /// Creates the group where the caller may, and says where; with the last refusal, if any.
    ///
    /// # Errors
    ///
    /// Whatever is no refusal for want of privilege.
    pub fn create_where_allowed(&self) -> Result<(Self, Option<CgroupError>), CgroupError> {
        let mut refusal = None;
        let mut other = None;
        let layout = self.layout.filtered(|hierarchy| {
            let alone =
                Self { layout: self.layout.filtered(|one| one == hierarchy), ..self.clone() };
            match alone.create() {
                Ok(()) => return true,
                Err(error) if error.is_refusal() => refusal = Some(error),
                Err(error) => other = Some(error),
            }
            false
        });
        match other {
            Some(error) => Err(error),
            None => Ok((Self { layout, path: self.path.clone() }, refusal)),
        }
    }

    /// The path, without a leading slash.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The interface the group is made with.
    pub fn version(&self) -> Version {
        self.layout.version()
    }

    /// Where the group's files are, for each hierarchy.
    pub fn directories(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.layout.hierarchies().iter().map(|hierarchy| hierarchy.mount.join(&self.path))
    }

    /// Where the group's files of one controller are; `None` where the machine lacks it.
    pub fn directory(&self, controller: &str) -> Option<PathBuf> {
        match self.layout.version() {
            Version::One => self.directory_of(controller).ok(),
            Version::Two => Some(self.unified_directory()),
        }
    }

    /// Whether any hierarchy has the group.
    pub fn exists(&self) -> bool {
        self.directories().any(|directory| directory.is_dir())
    }

    /// Creates the group and those above it, ready to take processes in.
    ///
    /// Groups that exist already are taken as they are.
    ///
    /// # Errors
    ///
    /// When a directory or a controller is refused.
    pub fn create(&self) -> Result<(), CgroupError> {
        for hierarchy in self.layout.hierarchies() {
            match hierarchy.version {
                Version::One => v1::create(hierarchy, &self.path)?,
                Version::Two => v2::create(hierarchy, &self.path)?,
            }
        }
        Ok(())
    }

    /// Writes the limits that are set; others keep the value they have.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Write`] names file and value; [`CgroupError::Unsupported`] what this
    /// machine has no controller for. Earlier settings of the list stay written.
    pub fn apply(&self, limits: &Limits) -> Result<(), CgroupError> {
        match self.layout.version() {
            Version::One => self.apply_one(limits),
            Version::Two => {
                let directory = self.unified_directory();
                let settings = v2::settings(limits, self.current(limits))?;
                write_all(settings.iter().map(|setting| (directory.as_path(), setting)))?;
                match &limits.devices {
                    Some(rules) => device::attach(&directory, rules),
                    None => Ok(()),
                }
            }
        }
    }

    /// What holds already, as far as `limits` depend on it.
    fn current(&self, limits: &Limits) -> Current {
        match self.layout.version() {
            Version::One => {
                let [memory, cpu] = ["memory", "cpu"].map(|name| self.directory_of(name).ok());
                Current::one(memory.as_deref(), cpu.as_deref(), limits)
            }
            Version::Two => Current::two(&self.unified_directory(), limits),
        }
    }

    /// The limits in the words of a systemd of `release`, given what holds here already.
    ///
    /// # Errors
    ///
    /// As [`Self::apply`], for limits that contradict each other or what is in use.
    pub fn told(&self, limits: &Limits, release: u32) -> Result<systemd::Told, CgroupError> {
        let current = self.current(limits);
        if self.version() == Version::Two {
            v2::check_use(&limits.memory, current)?;
        }
        systemd::unit_properties(limits, self.version(), release, current)
    }

    fn apply_one(&self, limits: &Limits) -> Result<(), CgroupError> {
        let mut settings = v1::settings(limits, self.current(limits))?;
        if let Some(rules) = &limits.devices {
            let listed = read_file(&self.directory_of("devices")?.join("devices.list"))?;
            settings.extend(List::listed(&listed).changes(&List::wanted(rules)?));
        }
        let directories: Vec<PathBuf> = settings
            .iter()
            .map(|setting| self.directory_of(setting.controller))
            .collect::<Result<_, _>>()?;
        write_all(directories.iter().map(PathBuf::as_path).zip(&settings))
    }

    /// Gives the group to a user, who may then make groups below it and move processes
    /// among them; its limits stay ours. Version 1 is not safe to give away: nothing is done.
    ///
    /// # Errors
    ///
    /// When a file cannot be given away.
    pub fn delegate(&self, user: u32) -> Result<(), CgroupError> {
        if self.layout.version() == Version::One {
            return Ok(());
        }
        v2::delegate(&self.unified_directory(), user)
    }

    /// Descriptors to which a process writes `0` in order to join: one per hierarchy.
    ///
    /// They work for a process that can no longer see or open the files itself.
    ///
    /// # Errors
    ///
    /// When a file cannot be opened.
    pub fn join_handles(&self) -> Result<Vec<OwnedFd>, CgroupError> {
        self.directories()
            .map(|directory| {
                let file = directory.join("cgroup.procs");
                rustix::fs::open(&file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
                    .map_err(|error| CgroupError::Open { path: file, source: error.into() })
            })
            .collect()
    }

    /// Moves a process in, with all its threads.
    ///
    /// # Errors
    ///
    /// When a hierarchy refuses it.
    pub fn add(&self, pid: Pid) -> Result<(), CgroupError> {
        let value = pid.as_raw_nonzero().to_string();
        for directory in self.directories() {
            write_file(&directory.join("cgroup.procs"), &value)?;
        }
        Ok(())
    }

    /// Moves a process in, for the controllers of `below` to a group below this one; `""`
    /// stands for every controller.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Unsupported`] for a controller that has no hierarchy; when a group
    /// does not exist or refuses the process.
    pub fn add_below(
        &self,
        pid: Pid,
        below: &BTreeMap<String, PathBuf>,
    ) -> Result<(), CgroupError> {
        match below.get("") {
            Some(path) => return self.below(path)?.add(pid),
            None => self.add(pid)?,
        }
        let value = pid.as_raw_nonzero().to_string();
        for (controller, path) in below {
            let group = self.below(path)?;
            write_file(&group.directory_of(controller)?.join("cgroup.procs"), &value)?;
        }
        Ok(())
    }

    /// A group below this one, by the path from here.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Path`] when the path contains `..`.
    pub fn below(&self, path: &Path) -> Result<Self, CgroupError> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        Self::new(self.layout.clone(), &self.path.join(relative))
    }

    /// The group's directory on version 2, for starting a process inside it.
    ///
    /// # Errors
    ///
    /// When it cannot be opened. `None` on version 1.
    pub fn handle(&self) -> Result<Option<OwnedFd>, CgroupError> {
        if self.layout.version() == Version::One {
            return Ok(None);
        }
        let directory = self.unified_directory();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&directory, flags, Mode::empty())
            .map(Some)
            .map_err(|error| CgroupError::Open { path: directory, source: error.into() })
    }

    /// The group below this one that a process has moved to, for starting a process beside
    /// it where this one takes none, having handed its controllers down.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Left`] when the process is somewhere else; otherwise as
    /// [`Self::handle`]. `None` on version 1.
    pub fn handle_of(&self, pid: Pid) -> Result<Option<OwnedFd>, CgroupError> {
        if self.layout.version() == Version::One {
            return Ok(None);
        }
        let listed = read_file(Path::new(&format!("/proc/{}/cgroup", pid.as_raw_nonzero())))?;
        let path = unified_path(&listed).filter(|path| path.starts_with(&self.path));
        let path = path.ok_or_else(|| CgroupError::Left {
            pid: pid.as_raw_nonzero().get(),
            path: self.path.clone(),
        })?;
        Self { layout: self.layout.clone(), path: path.to_owned() }.handle()
    }

    /// The directory whose files hold processes still, where there is one.
    pub fn freezer(&self) -> Option<PathBuf> {
        match self.layout.version() {
            Version::One => self.directory_of("freezer").ok(),
            Version::Two => Some(self.unified_directory()),
        }
    }

    /// The processes in the group and in the groups below it.
    ///
    /// # Errors
    ///
    /// When the list cannot be read; a group that is gone has none.
    pub fn processes(&self) -> Result<Vec<Pid>, CgroupError> {
        if self.is_none() {
            return Err(CgroupError::NoGroup);
        }
        let mut found = Vec::new();
        if let Some(directory) = self.kill_directory() {
            collect_processes(&directory, &mut found)?;
        }
        Ok(found)
    }

    /// Stops every process of the group in its tracks, until [`Self::thaw`].
    ///
    /// Returns once they stand still.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Unsupported`] without a freezer; [`CgroupError::Freeze`] when some
    /// process would not stand still.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        match self.layout.version() {
            Version::One => v1::freeze(&self.directory_of("freezer")?),
            Version::Two => v2::freeze(&self.unified_directory(), true),
        }
    }

    /// Lets the processes of a frozen group go on.
    ///
    /// # Errors
    ///
    /// As [`Self::freeze`].
    pub fn thaw(&self) -> Result<(), CgroupError> {
        match self.layout.version() {
            Version::One => {
                write_file(&self.directory_of("freezer")?.join("freezer.state"), "THAWED")
            }
            Version::Two => v2::freeze(&self.unified_directory(), false),
        }
    }

    /// Whether the group was frozen.
    ///
    /// # Errors
    ///
    /// When the state cannot be read.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        match self.layout.version() {
            Version::One => match self.directory_of("freezer") {
                Ok(directory) => {
                    Ok(read_file(&directory.join("freezer.state"))?.trim() != "THAWED")
                }
                Err(_) => Ok(false),
            },
            Version::Two => {
                Ok(read_file(&self.unified_directory().join("cgroup.freeze"))?.trim() == "1")
            }
        }
    }

    /// Ends every process of the group and of the groups below it.
    ///
    /// Returns when all have been sent the signal and none is left that could fork.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Kill`] when processes keep appearing.
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        self.signal_all(libc::SIGKILL)
    }

    /// Sends a signal to every process of the group and of the groups below it.
    ///
    /// # Errors
    ///
    /// As [`Self::kill_all`].
    pub fn signal_all(&self, signal: i32) -> Result<(), CgroupError> {
        if self.is_none() {
            return Err(CgroupError::NoGroup);
        }
        let Some(directory) = self.kill_directory() else { return Ok(()) };
        if signal == libc::SIGKILL && fs::write(directory.join("cgroup.kill"), "1").is_ok() {
            return Ok(());
        }
        if signal != libc::SIGKILL {
            return signal_each(&self.processes()?, signal);
        }
        for _ in 0..KILL_ROUNDS {
            let processes = self.processes()?;
            if processes.is_empty() {
                return Ok(());
            }
            signal_each(&processes, signal)?;
            // A frozen process takes the signal when it is thawed.
            if self.is_frozen().unwrap_or(false) {
                self.thaw()?;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Err(CgroupError::Kill { path: self.path.clone() })
    }

    /// What the group has used so far.
    ///
    /// # Errors
    ///
    /// When a counter cannot be read; counters the machine lacks are zero.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        match self.layout.version() {
            Version::One if self.is_none() => Err(CgroupError::NoGroup),
            Version::One => stats::read_v1(|controller| self.directory_of(controller).ok()),
            Version::Two => stats::read_v2(&self.unified_directory()),
        }
    }

    /// Removes the group and the groups below it; fine when it is gone already.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Remove`] when processes are still in it.
    pub fn delete(&self) -> Result<(), CgroupError> {
        for directory in self.directories() {
            remove_tree(&directory)?;
        }
        Ok(())
    }

    fn directory_of(&self, controller: &str) -> Result<PathBuf, CgroupError> {
        let hierarchy = self.layout.with_controller(controller);
        if self.layout.hierarchies().is_empty() {
            return Err(CgroupError::NoGroup);
        }
        let hierarchy = hierarchy.ok_or_else(|| CgroupError::Unsupported {
            what: format!("controller {controller}"),
            remedy: match controller {
                "freezer" => "mount its hierarchy: containers cannot be paused without",
                _ => "remove the limit, or mount the controller's hierarchy",
            },
        })?;
        Ok(hierarchy.mount.join(&self.path))
    }

    fn unified_directory(&self) -> PathBuf {
        self.directories().next().unwrap_or_default()
    }

    /// The directory that knows all processes: the freezer's on version 1, so that no
    /// process can leave it for another group while it is being killed.
    fn kill_directory(&self) -> Option<PathBuf> {
        let directory = match self.layout.version() {
            Version::One => self
                .directory_of("freezer")
                .or_else(|_| self.directory_of("pids"))
                .or_else(|_| self.directory_of("memory"))
                .ok()
                .or_else(|| self.directories().next())?,
            Version::Two => self.unified_directory(),
        };
        directory.is_dir().then_some(directory)
    }
}

/// The version 2 group that this process is in, without a leading slash.
pub fn own_path() -> Option<PathBuf> {
    let listed = read_file(Path::new("/proc/self/cgroup")).ok()?;
    unified_path(&listed).map(Path::to_owned)
}

/// The version 2 group in the text of a `/proc/PID/cgroup`, without a leading slash.
fn unified_path(listed: &str) -> Option<&Path> {
    listed.lines().find_map(|line| line.strip_prefix("0::/")).map(Path::new)
}

fn signal_each(processes: &[Pid], signal: i32) -> Result<(), CgroupError> {
    for &pid in processes {
        let sent = crate::process::open(pid)
            .and_then(|pidfd| crate::process::signal(std::os::fd::AsFd::as_fd(&pidfd), signal));
        match sent {
            // It ended between the listing and now.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(source) => {
                return Err(CgroupError::Signal {
                    pid: pid.as_raw_nonzero().get(),
                    signal,
                    source,
                });
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

fn collect_processes(directory: &Path, found: &mut Vec<Pid>) -> Result<(), CgroupError> {
    let file = directory.join("cgroup.procs");
    let listed = match fs::read_to_string(&file) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // A threaded group lists its processes above.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => String::new(),
        Err(source) => return Err(CgroupError::Read { path: file, source }),
    };
    found.extend(listed.lines().filter_map(|line| line.parse().ok().and_then(Pid::from_raw)));
    for child in child_groups(directory) {
        collect_processes(&child, found)?;
    }
    Ok(())
}

fn child_groups(directory: &Path) -> Vec<PathBuf> {
    // A group that went away has no children left to name.
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn remove_tree(directory: &Path) -> Result<(), CgroupError> {
    let mut wait = Duration::from_micros(100);
    for _ in 0..REMOVALS {
        match rustix::fs::rmdir(directory) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(rustix::io::Errno::BUSY | rustix::io::Errno::INTR) => {}
            Err(error) => {
                return Err(CgroupError::Remove {
                    path: directory.to_owned(),
                    source: error.into(),
                });
            }
        }
        let children = child_groups(directory);
        if children.is_empty() {
            // The kernel is still taking down the last process; there is no event for it.
            std::thread::sleep(wait);
            wait = (wait * 2).min(Duration::from_millis(20));
        }
        for child in children {
            remove_tree(&child)?;
        }
    }
    let source = io::Error::from_raw_os_error(libc::EBUSY);
    Err(CgroupError::Remove { path: directory.to_owned(), source })
}

/// Writes the settings in their order, and those that the kernel wants later at the end.
fn write_all<'a>(
    settings: impl Iterator<Item = (&'a Path, &'a Setting)>,
) -> Result<(), CgroupError> {
    let mut again = Vec::new();
    for (directory, setting) in settings {
        if !setting.write(directory, false)? {
            again.push((directory, setting));
        }
    }
    for (directory, setting) in again {
        setting.write(directory, true)?;
    }
    Ok(())
}

fn create_failed(path: PathBuf, source: io::Error) -> CgroupError {
    match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem => CgroupError::ReadOnly { path },
        _ => CgroupError::Create { path, source },
    }
}

/// Writes in one call: control files take each write as one request.
fn write_file(path: &Path, value: &str) -> Result<(), CgroupError> {
    let written = fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()));
    written.map_err(|source| CgroupError::Write {
        path: path.to_owned(),
        value: value.to_owned(),
        source,
    })
}

fn read_file(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;

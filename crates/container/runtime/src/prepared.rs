//! What the first process needs of the host, opened before it is born.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use carrack_linux::cgroup::{Group, Hierarchy};
use carrack_linux::mount::{self, Change, Propagation};
use carrack_linux::namespace::{self, Kinds};
use carrack_linux::trusted;
use rustix::fs::FileType;

use crate::error::CreateError;
use crate::plan::{DevicePlan, IdMap, MountPlan, MountSource, Plan};
use crate::stdio::Streams;

/// Descriptors, and nothing that would have to be looked up.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// What is mounted. Absent where we may not copy mounts: the first process, which is root
    /// in its own user namespace, then does.
    pub(crate) trees: Option<Trees>,
    /// The container's control groups, for showing them to it.
    pub(crate) hierarchies: Vec<(Hierarchy, Option<OwnedFd>)>,
    pub(crate) stdio: Streams,
    /// The program to run as process 1 in front of the user's.
    pub(crate) init: Option<OwnedFd>,
}

/// Mounts of the host, each copied and attached nowhere.
#[derive(Debug)]
pub(crate) struct Trees {
    /// The root file system.
    pub(crate) root: OwnedFd,
    /// For each mount of the plan that is a bind: its tree.
    pub(crate) binds: Vec<Option<Bind>>,
    /// The host's `/dev/null`.
    pub(crate) null: OwnedFd,
    /// In a user namespace, where nodes cannot be made: the host's devices.
    pub(crate) devices: Vec<(PathBuf, OwnedFd)>,
}

/// A tree to attach.
#[derive(Debug)]
pub(crate) struct Bind {
    pub(crate) tree: OwnedFd,
    pub(crate) is_directory: bool,
}

fn host(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> CreateError {
    let attempt = attempt.into();
    move |source| CreateError::Host { attempt, source }
}

impl Prepared {
    pub(crate) fn new(
        plan: &Plan,
        group: &Group,
        stdio: Streams,
        init: Option<OwnedFd>,
    ) -> Result<Self, CreateError> {
        let trees = if may_copy_mounts() { Some(Trees::open(plan)?) } else { None };
        Ok(Self { trees, hierarchies: hierarchies(plan, group)?, stdio, init })
    }

    pub(crate) fn init_program(&self) -> Option<&OwnedFd> {
        self.init.as_ref()
    }
}

/// Root may, of whatever user namespace it is that owns the mounts around us.
fn may_copy_mounts() -> bool {
    rustix::process::geteuid().is_root()
}

impl Trees {
    pub(crate) fn open(plan: &Plan) -> Result<Self, CreateError> {
        let mut maps = Maps { plan, made: Vec::new() };
        let bound = plan.has_user_namespace() || namespace::has_mapped_users();
        let devices = if bound { host_devices(plan)? } else { Vec::new() };
        Ok(Self {
            root: root(plan)?,
            binds: plan
                .mounts
                .iter()
                .map(|planned| bind(planned, &mut maps))
                .collect::<Result<_, _>>()?,
            null: null()?,
            devices,
        })
    }
}

/// User namespaces that say whom the owners of a mount's files are shown as.
struct Maps<'a> {
    plan: &'a Plan,
    made: Vec<(IdMap, OwnedFd)>,
}

impl Maps<'_> {
    /// One for each map, however many mounts have it.
    fn of(&mut self, map: &IdMap) -> io::Result<&OwnedFd> {
        if !self.made.iter().any(|(other, _)| other == map) {
            let made = self.make(map)?;
            self.made.push((map.clone(), made));
        }
        let found = self.made.iter().find(|(other, _)| other == map);
        found.map(|(_, made)| made).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn make(&self, map: &IdMap) -> io::Result<OwnedFd> {
        let (uids, gids) = match map {
            IdMap::Own { uids, gids } => (uids, gids),
            IdMap::Container => match self.plan.namespaces.path_of(Kinds::USER) {
                Some(path) => return namespace::open(path),
                None => (&self.plan.uid_map, &self.plan.gid_map),
            },
        };
        namespace::user_with(uids, gids)
    }
}

fn root(plan: &Plan) -> Result<OwnedFd, CreateError> {
    let path = plan.rootfs.display();
    let directory = trusted::directory(&plan.rootfs)
        .map_err(host(format!("opening the root file system {path} (root.path)")))?;
    let tree = mount::clone_tree(directory.as_fd(), true)
        .map_err(host(format!("copying the mount of the root file system {path}")))?;
    detach_from_host(&tree, plan.propagation)
        .map_err(host(format!("setting the propagation of {path}")))?;
    Ok(tree)
}

/// Mounts made on the host may still arrive, unless asked otherwise; none goes back,
/// unless asked for.
fn detach_from_host(tree: &OwnedFd, asked: Option<(Propagation, bool)>) -> io::Result<()> {
    if !matches!(asked, Some((Propagation::Shared, _))) {
        let slave = Change { propagation: Some(Propagation::Slave), ..Change::default() };
        mount::set_attributes(tree.as_fd(), true, slave)?;
    }
    Ok(())
}

fn bind(planned: &MountPlan, maps: &mut Maps<'_>) -> Result<Option<Bind>, CreateError> {
    let MountSource::Bind { path, recursive } = &planned.source else { return Ok(None) };
    let shown = path.display();
    let source = trusted::handle(path).map_err(host(format!(
        "opening {shown}, the source of the mount at {}",
        planned.destination.display()
    )))?;
    let stat = rustix::fs::fstat(&source)
        .map_err(io::Error::from)
        .map_err(host(format!("looking at {shown}")))?;
    let tree = mount::clone_tree(source.as_fd(), *recursive)
        .map_err(host(format!("copying the mount of {shown}")))?;
    let changed = detach_from_host(&tree, planned.propagation)
        .and_then(|()| set(&tree, true, planned.recursive))
        .and_then(|()| set(&tree, false, planned.change));
    changed.map_err(host(format!("applying the options of the mount of {shown}")))?;
    if let Some((map, recursive)) = &planned.id_map {
        maps.of(map)
            .and_then(|map| mount::map_ids(tree.as_fd(), *recursive, map.as_fd()))
            .map_err(host(format!(
                "mapping the owners of {shown} (its file system has to support it)"
            )))?;
    }
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    Ok(Some(Bind { tree, is_directory }))
}

fn set(tree: &OwnedFd, recursive: bool, change: Change) -> io::Result<()> {
    let nothing = change.set.is_empty() && change.clear.is_empty() && change.propagation.is_none();
    if nothing { Ok(()) } else { mount::set_attributes(tree.as_fd(), recursive, change) }
}

/// The host's, and really that: the container's own could be a link to anything
/// (CVE-2025-31133).
fn null() -> Result<OwnedFd, CreateError> {
    device(Path::new("/dev/null"), FileType::CharacterDevice, 1, 3)
        .map_err(host("opening the host's /dev/null"))
}

/// A device of the host, if what has its name is that device.
fn device(path: &Path, kind: FileType, major: u32, minor: u32) -> io::Result<OwnedFd> {
    let node = trusted::handle_nofollow(path)?;
    let stat = rustix::fs::fstat(&node)?;
    let number = rustix::fs::makedev(major, minor);
    if FileType::from_raw_mode(stat.st_mode) != kind || stat.st_rdev != number {
        let message = format!("it is not the device {major}:{minor}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    mount::clone_tree(node.as_fd(), false)
}

fn host_devices(plan: &Plan) -> Result<Vec<(PathBuf, OwnedFd)>, CreateError> {
    let devices = plan.devices.iter().filter(|device| device.kind != FileType::Fifo);
    devices
        .map(|wanted| {
            let DevicePlan { path, kind, major, minor, .. } = wanted;
            let tree = device(path, *kind, *major, *minor)
                .map_err(host(format!("opening the host's {}", path.display())))?;
            Ok((path.clone(), tree))
        })
        .collect()
}

/// Without a namespace of its own the container is shown its groups by binding them.
fn hierarchies(
    plan: &Plan,
    group: &Group,
) -> Result<Vec<(Hierarchy, Option<OwnedFd>)>, CreateError> {
    let wanted = plan.mounts.iter().any(|mount| mount.source == MountSource::Cgroup);
    if !wanted {
        return Ok(Vec::new());
    }
    let own = plan.namespaces.new.contains(Kinds::CGROUP);
    let bind = |(hierarchy, directory): (&Hierarchy, PathBuf)| {
        if own {
            return Ok((hierarchy.clone(), None));
        }
        let tree = trusted::directory(&directory)
            .and_then(|handle| mount::clone_tree(handle.as_fd(), false))
            .map_err(host(format!("opening control group {}", directory.display())))?;
        Ok((hierarchy.clone(), Some(tree)))
    };
    group.layout().hierarchies().iter().zip(group.directories()).map(bind).collect()
}

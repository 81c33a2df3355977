//! What this host offers to containers, observed and not judged.
//!
//! Everything is read or tried here, once, into a [`Host`] of plain facts; what they mean is
//! for others to say, who can then be tested with hosts that do not exist.

mod probe;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::capability;

pub use probe::{Call, Trial};

/// The facts.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// As `uname -r` says.
    pub kernel: String,
    /// The user that asks.
    pub uid: u32,
    /// Its name, if it has one.
    pub user: Option<String>,
    /// Whether CAP_SYS_ADMIN is in force.
    pub administers: bool,
    /// System calls, and whether the kernel knows them.
    pub calls: BTreeMap<Call, bool>,
    /// What was tried in a child, with the system's answer.
    pub trials: BTreeMap<Trial, Result<(), i32>>,
    /// File systems the kernel has now.
    pub filesystems: BTreeSet<String>,
    /// Names in `/proc/self/ns`.
    pub namespaces: BTreeSet<String>,
    /// Kernel settings by their path below `/proc/sys`, those of [`SETTINGS`] that exist.
    pub settings: BTreeMap<&'static str, String>,
    /// Kernel features that are there when a file is.
    pub files: BTreeMap<&'static str, bool>,
    /// Whether control groups are of version 2 alone.
    pub unified: bool,
    /// Controllers, with the version they are on.
    pub controllers: BTreeMap<String, u8>,
    /// On version 2, those this user may use in its own group; empty for root.
    pub delegated: BTreeSet<String>,
    /// Seccomp actions the kernel knows.
    pub seccomp: Vec<String>,
    /// The AppArmor profile of this process; `None` where there is no AppArmor.
    pub apparmor: Option<String>,
    /// SELinux: whether it enforces; `None` where there is none.
    pub selinux: Option<bool>,
    /// The lockdown mode.
    pub lockdown: Option<String>,
    /// How many subordinate users and groups this user has.
    pub subordinate: (u64, u64),
    /// Programs of [`PROGRAMS`], where they are and whether they have privilege of their own.
    pub programs: BTreeMap<&'static str, (PathBuf, bool)>,
    /// What this host is itself inside of, such as `docker` or `wsl`.
    pub inside: Option<String>,
    /// Soft and hard limit on open files; `None` is unlimited.
    pub open_files: (Option<u64>, Option<u64>),
    /// Where data is kept: type and free bytes of its file system.
    pub data: Option<(String, u64)>,
}

/// Settings that matter.
pub const SETTINGS: [&str; 9] = [
    "kernel/unprivileged_userns_clone",
    "user/max_user_namespaces",
    "kernel/apparmor_restrict_unprivileged_userns",
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "fs/inotify/max_user_instances",
    "fs/inotify/max_user_watches",
    "vm/memfd_noexec",
    "kernel/unprivileged_bpf_disabled",
];

/// Files that show a feature.
pub const FILES: [&str; 3] = ["/dev/kvm", "/dev/fuse", "/sys/fs/bpf"];

/// Programs that are called, or that others call for us.
pub const PROGRAMS: [&str; 5] = ["newuidmap", "newgidmap", "nft", "criu", "fuse-overlayfs"];

impl Host {
    /// Looks around. Children are started for what has to be tried, so the process must
    /// have one thread.
    pub fn observe(data: &Path) -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let user = user_name(uid);
        let mounts = text("/proc/self/mounts");
        let version_1 = controllers_of_1(&mounts);
        let unified = version_1.is_empty() && mounts.contains(" cgroup2 ");
        Self {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            uid,
            administers: administers(),
            calls: probe::calls(),
            trials: probe::trials(),
            filesystems: filesystems(),
            namespaces: names("/proc/self/ns"),
            settings: settings(),
            files: FILES.iter().map(|&path| (path, Path::new(path).exists())).collect(),
            unified,
            controllers: controllers(version_1, &mounts),
            delegated: delegated(),
            seccomp: words(&text("/proc/sys/kernel/seccomp/actions_avail")),
            apparmor: apparmor(),
            selinux: one("/sys/fs/selinux/enforce").map(|mode| mode == "1"),
            lockdown: lockdown(),
            subordinate: (
                subordinate("/etc/subuid", uid, user.as_deref()),
                subordinate("/etc/subgid", uid, user.as_deref()),
            ),
            programs: PROGRAMS.iter().filter_map(|&name| Some((name, program(name)?))).collect(),
            inside: inside(),
            open_files: open_files(),
            data: space(data),
            user,
        }
    }
}

/// A small file; nothing when it is not there.
fn text(path: &str) -> String {
    crate::fs::read_bounded(Path::new(path), 4 << 20)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

/// Its one line, if it has one.
fn one(path: &str) -> Option<String> {
    let text = text(path);
    let line = text.trim_matches(['\n', '\0', ' ']);
    (!line.is_empty()).then(|| line.to_owned())
}

fn words(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(ToOwned::to_owned).collect()
}

fn names(directory: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn administers() -> bool {
    let admin = capability::parse("CAP_SYS_ADMIN").unwrap_or(capability::Set::empty());
    capability::current().is_ok_and(|sets| sets.effective.contains(admin))
}

fn filesystems() -> BTreeSet<String> {
    let text = text("/proc/filesystems");
    text.lines().filter_map(|line| line.split('\t').nth(1)).map(ToOwned::to_owned).collect()
}

fn settings() -> BTreeMap<&'static str, String> {
    let read = |name: &&'static str| Some((*name, one(&format!("/proc/sys/{name}"))?));
    SETTINGS.iter().filter_map(read).collect()
}

/// Controllers that are options of version 1 mounts.
fn controllers_of_1(mounts: &str) -> BTreeSet<String> {
    let known = [
        "cpu",
        "cpuacct",
        "cpuset",
        "memory",
        "devices",
        "freezer",
        "blkio",
        "pids",
        "hugetlb",
        "net_cls",
        "net_prio",
        "perf_event",
        "rdma",
        "misc",
    ];
    let lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let lines = lines.filter(|fields| fields.get(2) == Some(&"cgroup"));
    let options = lines.filter_map(|fields| fields.get(3).map(ToString::to_string));
    let options: Vec<String> = options.collect();
    let all = options.iter().flat_map(|options| options.split(','));
    all.filter(|option| known.contains(option)).map(ToOwned::to_owned).collect()
}

fn controllers(version_1: BTreeSet<String>, mounts: &str) -> BTreeMap<String, u8> {
    let roots = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let path = fields.next()?;
        (fields.next() == Some("cgroup2")).then_some(path)
    });
    let files: Vec<String> = roots.map(|root| format!("{root}/cgroup.controllers")).collect();
    let second = files.iter().flat_map(|file| words(&text(file))).map(|name| (name, 2));
    second.chain(version_1.into_iter().map(|name| (name, 1))).collect()
}

/// The controllers of our own version 2 group, if it is ours to divide.
fn delegated() -> BTreeSet<String> {
    let own = text("/proc/self/cgroup");
    let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::")) else {
        return BTreeSet::new();
    };
    let directory = format!("/sys/fs/cgroup{path}");
    let writable = rustix::fs::access(
        format!("{directory}/cgroup.subtree_control"),
        rustix::fs::Access::WRITE_OK,
    );
    if writable.is_err() {
        return BTreeSet::new();
    }
    words(&text(&format!("{directory}/cgroup.controllers"))).into_iter().collect()
}

fn apparmor() -> Option<String> {
    (one("/sys/module/apparmor/parameters/enabled")? == "Y").then(|| {
        one("/proc/self/attr/apparmor/current")
            .or_else(|| one("/proc/self/attr/current"))
            .unwrap_or_else(|| "unconfined".to_owned())
    })
}

/// The mode in brackets.
fn lockdown() -> Option<String> {
    let line = one("/sys/kernel/security/lockdown")?;
    let (_, rest) = line.split_once('[')?;
    Some(rest.split(']').next()?.to_owned())
}

fn user_name(uid: u32) -> Option<String> {
    let text = text("/etc/passwd");
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// The sum of the ranges a user has, by name or number.
fn subordinate(file: &str, uid: u32, user: Option<&str>) -> u64 {
    let (text, number) = (text(file), uid.to_string());
    let counts = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let [owner, _, count] = fields.as_slice() else { return None };
        (Some(*owner) == user || *owner == number).then(|| count.parse::<u64>().ok())?
    });
    counts.sum()
}

/// Where a program is, and whether it has set-user-id or file capabilities.
fn program(name: &str) -> Option<(PathBuf, bool)> {
    let path = std::env::var("PATH").unwrap_or_default();
    let usual = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    let directories = path.split(':').chain(usual);
    let mut found = directories.map(|directory| Path::new(directory).join(name));
    let found = found.find(|file| file.is_file())?;
    let stat = rustix::fs::stat(&found).ok()?;
    let mut value = [0_u8; 64];
    let capable = rustix::fs::getxattr(&found, "security.capability", &mut value[..]).is_ok();
    Some((found, stat.st_mode & 0o4000 != 0 || capable))
}

/// What others have left that shows where we are.
fn inside() -> Option<String> {
    let release = text("/proc/sys/kernel/osrelease").to_ascii_lowercase();
    if release.contains("microsoft") {
        return Some(if release.contains("wsl2") { "wsl2" } else { "wsl" }.to_owned());
    }
    if let Some(name) = one("/run/systemd/container") {
        return Some(name);
    }
    let marks =
        [("/.dockerenv", "docker"), ("/run/.containerenv", "podman"), ("/dev/lxd/sock", "lxd")];
    if let Some((_, name)) = marks.iter().find(|(mark, _)| Path::new(mark).exists()) {
        return Some((*name).to_owned());
    }
    let environment = fs::read("/proc/1/environ").unwrap_or_default();
    let mut variables = environment.split(|&byte| byte == 0);
    let name = variables.find_map(|variable| variable.strip_prefix(b"container="))?;
    Some(String::from_utf8_lossy(name).into_owned())
}

fn open_files() -> (Option<u64>, Option<u64>) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    (limit.current, limit.maximum)
}

/// Of the directory, or of the nearest above it that exists.
fn space(directory: &Path) -> Option<(String, u64)> {
    let there = directory.ancestors().find(|path| path.exists())?;
    let (kind, space) = (rustix::fs::statfs(there).ok()?, rustix::fs::statvfs(there).ok()?);
    let name = match kind.f_type {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x794c_7630 => "overlay",
        0x0102_1994 => "tmpfs",
        0x2fc1_2fc1 => "zfs",
        0x6969 => "nfs",
        0x6573_5546 => "fuse",
        0x0102_1997 => "9p",
        0xca45_1a4e => "bcachefs",
        0xf2f5_2010 => "f2fs",
        _ => return Some((format!("{:#x}", kind.f_type), free(&space))),
    };
    Some((name.to_owned(), free(&space)))
}

fn free(space: &rustix::fs::StatVfs) -> u64 {
    space.f_bavail.saturating_mul(space.f_frsize)
}

/// A system's answer in words.
pub fn answer(errno: i32) -> String {
    io::Error::from_raw_os_error(errno).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_told_apart_by_version() {
        let mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw,nosuid,cpu,cpuacct 0 0\n\
                      none /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let found = controllers_of_1(mounts);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["cpu", "cpuacct"]);
    }

    #[test]
    fn this_host_can_be_observed() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::observe(&directory.path().join("not/there/yet"));
        assert!(host.kernel.contains('.'), "{}", host.kernel);
        assert!(host.namespaces.contains("mnt"));
        assert!(host.filesystems.contains("proc"));
        assert!(host.data.is_some_and(|(_, free)| free > 0));
        assert!(host.calls.contains_key(&Call::Openat2));
    }
}

//! create + start + delete of `/bin/true`, through each runtime's command line.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use carrack_linux::namespace::{self, Kinds};
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use serde_json::json;

use crate::measure::{self, Contender};

const ROUNDS: usize = 60;

pub(crate) fn measure() -> anyhow::Result<()> {
    show_cgroup_v1_only()?;
    let directory = tempfile::tempdir()?;
    let bundle = bundle(directory.path())?;
    let ours = beside("carrack-runtime")?;
    let mut runtimes = vec![("carrack-runtime", ours)];
    for peer in ["crun", "runc"] {
        match which(peer) {
            Some(program) => runtimes.push((peer, program)),
            None => println!("  {peer}: not installed, not measured"),
        }
    }
    let mut contenders = Vec::new();
    for (name, program) in runtimes {
        let (bundle, state) = (bundle.clone(), directory.path().join(name));
        let mut round = 0_u32;
        contenders.push(Contender {
            name,
            work: Box::new(move || {
                round += 1;
                lifecycle(&program, &state, &bundle, &format!("bench-{name}-{round}"))
            }),
        });
    }
    let figures = measure::interleaved(ROUNDS, contenders)?;
    measure::print(
        "create + start + wait + delete of /bin/true, three calls of the program",
        &figures,
    );
    Ok(())
}

fn lifecycle(program: &Path, state: &Path, bundle: &Path, id: &str) -> anyhow::Result<()> {
    let call = |arguments: &[&str]| -> anyhow::Result<bool> {
        let mut command = Command::new(program);
        command.arg("--root").arg(state).args(arguments).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command
            .status()
            .with_context(|| format!("{} {arguments:?}", program.display()))?
            .success())
    };
    let bundle = bundle.to_str().context("a bundle path that is text")?;
    ensure!(call(&["create", "--bundle", bundle, id])?, "{} create failed", program.display());
    ensure!(call(&["start", id])?, "{} start failed", program.display());
    // `delete` without force refuses while the program still runs; `--force` does not wait.
    while !call(&["delete", id])? {}
    Ok(())
}

/// crun refuses a hybrid hierarchy, so everyone is measured where only version 1
/// shows: in a mount namespace of this process, which ends with it.
pub(crate) fn show_cgroup_v1_only() -> anyhow::Result<()> {
    let unified = "/sys/fs/cgroup/unified";
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
    if !mounts.lines().any(|line| line.split(' ').nth(4) == Some(unified)) {
        return Ok(());
    }
    namespace::unshare(Kinds::MOUNT).context("unsharing the mounts")?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    rustix::mount::unmount(unified, UnmountFlags::DETACH).context("hiding cgroup v2")?;
    Ok(())
}

fn bundle(directory: &Path) -> anyhow::Result<PathBuf> {
    let bundle = directory.join("bundle");
    let bin = bundle.join("rootfs/bin");
    std::fs::create_dir_all(&bin)?;
    std::fs::copy("/bin/busybox", bin.join("busybox")).context("busybox-static is needed")?;
    std::os::unix::fs::symlink("busybox", bin.join("true"))?;
    for mountpoint in ["proc", "sys", "dev", "tmp"] {
        std::fs::create_dir_all(bundle.join("rootfs").join(mountpoint))?;
    }
    std::fs::write(bundle.join("config.json"), config().to_string())?;
    Ok(bundle)
}

/// What `runc spec` writes, with `/bin/true` and no terminal.
fn config() -> serde_json::Value {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/true"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "bench",
        "mounts": [
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

/// A program of ours, beside this one.
pub(crate) fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name(name);
    ensure!(program.is_file(), "{} is missing: build it for release first", program.display());
    Ok(program)
}

/// Where a program is on the search path.
pub(crate) fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    places.find_map(|directory| Some(directory.join(name)).filter(|program| program.is_file()))
}

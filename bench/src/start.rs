//! create + start + delete of `/bin/true`, through each runtime's command line, beside what the
//! kernel itself takes for it; what each has resident; and whether it matters how many live.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use carrack_linux::namespace::{self, Kinds};
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use serde_json::json;

use crate::measure::{self, Contender};

const ROUNDS: usize = 100;

pub(crate) fn measure() -> anyhow::Result<()> {
    show_cgroup_v1_only()?;
    // Records live in memory, as below /run.
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
    let bundle = bundle(directory.path())?;
    let runtimes = runtimes()?;
    let floor = Floor::build(directory.path())?;
    let mut contenders = contenders(&runtimes, directory.path(), &bundle);
    let mut round = 0_u32;
    contenders.push(Contender {
        name: "the kernel (floor.c)",
        work: Box::new(|| {
            round += 1;
            floor.run(&bundle, round)
        }),
    });
    let figures = measure::interleaved(ROUNDS, contenders)?;
    measure::print(
        "create + start + wait + delete of /bin/true, three calls of the program",
        &figures,
    );
    memory(&runtimes, directory.path(), &bundle, &floor)?;
    with_live_containers(&runtimes, directory.path(), &bundle)
}

/// Ours first, then the peers that are installed.
fn runtimes() -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    let mut runtimes = vec![("carrack-runtime", beside("carrack-runtime")?)];
    for peer in ["crun", "runc"] {
        match which(peer) {
            Some(program) => runtimes.push((peer, program)),
            None => println!("  {peer}: not installed, not measured"),
        }
    }
    Ok(runtimes)
}

fn contenders<'a>(
    runtimes: &[(&'static str, PathBuf)],
    directory: &Path,
    bundle: &Path,
) -> Vec<Contender<'a>> {
    let one = |(name, program): &(&'static str, PathBuf)| {
        let (name, program) = (*name, program.clone());
        let (bundle, state) = (bundle.to_owned(), directory.join(name));
        let mut round = 0_u32;
        Contender {
            name,
            work: Box::new(move || {
                round += 1;
                lifecycle(&program, &state, &bundle, &format!("bench-{name}-{round}"))
            }),
        }
    };
    runtimes.iter().map(one).collect()
}

/// What the program of a created container has resident while it waits for its start, and the
/// most that each command had.
fn memory(
    runtimes: &[(&'static str, PathBuf)],
    directory: &Path,
    bundle: &Path,
    floor: &Floor,
) -> anyhow::Result<()> {
    println!(
        "resident memory, KiB: the most of each command, and the process that waits for its start"
    );
    let bundle = bundle.to_str().context("a bundle path that is text")?;
    for (name, program) in runtimes {
        let state = directory.join(name);
        let root = ["--root", state.to_str().context("a path that is text")?];
        let peak = |words: &[&str]| floor.peak(program, &[&root[..], words].concat());
        let id = "bench-memory";
        let pid_file = directory.join("pid");
        let pid = pid_file.to_str().context("a path that is text")?;
        let create = peak(&["create", "--bundle", bundle, "--pid-file", pid, id])?;
        let waiting = std::fs::read_to_string(&pid_file)?;
        let waiting = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", waiting.trim()))?;
        let field = |name: &str| {
            let line = waiting.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_whitespace().nth(1).unwrap_or("?").to_owned()
        };
        let start = peak(&["start", id])?;
        let delete = peak(&["delete", "--force", id])?;
        println!(
            "  {name:<16} create {create:>6}  start {start:>6}  delete {delete:>6}  waiting {:>6}, of it its own {:>5}",
            field("Rss:"),
            field("Pss_Anon:"),
        );
    }
    Ok(())
}

/// Whether what it takes depends on how many containers there are already.
fn with_live_containers(
    runtimes: &[(&'static str, PathBuf)],
    directory: &Path,
    bundle: &Path,
) -> anyhow::Result<()> {
    let live = directory.join("live");
    std::fs::create_dir(&live)?;
    let mut config = config();
    config["process"]["args"] = json!(["/bin/sleep", "1000"]);
    config["root"]["path"] = json!(bundle.join("rootfs"));
    std::fs::write(live.join("config.json"), config.to_string())?;
    let mut made: Vec<(&PathBuf, PathBuf, String)> = Vec::new();
    let measured = (|| -> anyhow::Result<()> {
        for wanted in [0_usize, 100, 1000] {
            for (name, program) in runtimes.iter().take(2) {
                let own = made.iter().filter(|(other, ..)| *other == program).count();
                for index in own..wanted {
                    let id = format!("live-{name}-{index}");
                    made.push((program, directory.join(name), id.clone()));
                    call(
                        program,
                        &directory.join(name),
                        &["create", "--bundle", text(&live)?, &id],
                    )?;
                    call(program, &directory.join(name), &["start", &id])?;
                }
            }
            let two = runtimes.get(..2.min(runtimes.len())).unwrap_or_default();
            let figures = measure::interleaved(30, contenders(two, directory, bundle))?;
            measure::print(&format!("the same beside {wanted} live containers of each"), &figures);
        }
        Ok(())
    })();
    for (program, state, id) in &made {
        call(program, state, &["delete", "--force", id]).ok(); // All the others go all the same.
    }
    measured
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is text")
}

fn call(program: &Path, state: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command.arg("--root").arg(state).args(arguments).stdin(Stdio::null());
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    ensure!(status.success(), "{} {arguments:?} failed", program.display());
    Ok(())
}

/// The calls that no container can do without, in C.
struct Floor {
    program: PathBuf,
    hierarchies: Vec<String>,
}

impl Floor {
    fn build(directory: &Path) -> anyhow::Result<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("floor/floor.c");
        let program = directory.join("floor");
        let mut compiler = Command::new("cc");
        compiler.args(["-O2", "-static", "-o"]).arg(&program).arg(&source);
        ensure!(
            compiler.status().context("cc")?.success(),
            "{} does not compile",
            source.display()
        );
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        let mut hierarchies: Vec<String> = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .filter(|fields| matches!(fields.get(2), Some(&"cgroup" | &"cgroup2")))
            .filter_map(|fields| fields.get(1).map(ToString::to_string))
            .collect();
        hierarchies.sort();
        hierarchies.dedup();
        Ok(Self { program, hierarchies })
    }

    fn run(&self, bundle: &Path, round: u32) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("run").arg(bundle.join("rootfs")).arg(format!("bench-floor-{round}"));
        ensure!(command.args(&self.hierarchies).status()?.success(), "the floor failed");
        Ok(())
    }

    /// In KiB.
    fn peak(&self, program: &Path, arguments: &[&str]) -> anyhow::Result<u64> {
        // Not through a pipe, which a waiting container would hold open.
        let out = tempfile::NamedTempFile::new()?;
        let mut command = Command::new(&self.program);
        command.arg("peak").arg(program).args(arguments).stdin(Stdio::null());
        command.stdout(out.reopen()?).stderr(Stdio::null());
        ensure!(command.status()?.success(), "{} {arguments:?} failed", program.display());
        let said = std::fs::read_to_string(out.path())?;
        said.trim().lines().last().and_then(|line| line.parse().ok()).context("a figure")
    }
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
    for name in ["true", "sleep"] {
        std::os::unix::fs::symlink("busybox", bin.join(name))?;
    }
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

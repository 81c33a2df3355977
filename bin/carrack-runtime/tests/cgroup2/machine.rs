//! The guest: what it is made of, and one run of it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// A guest that hangs is ended after this many seconds.
const SECONDS: &str = "300";
const KERNEL: &str = "linux-image-cloud-amd64";
const BUSYBOX: &str = "/bin/busybox";

/// What one guest is given beside the kernel.
pub(crate) struct Guest<'a> {
    /// Its process 1, or what leads to that.
    pub(crate) script: &'a str,
    /// The containers it runs, by name.
    pub(crate) bundles: Vec<(String, Value)>,
    /// The runtime asked instead of ours.
    pub(crate) peer: Option<&'a Path>,
    /// Programs of this machine, kept at their places.
    pub(crate) programs: &'a [&'a str],
    /// Files, by path and text.
    pub(crate) files: &'a [(&'a str, &'a str)],
    /// What the kernel is told.
    pub(crate) options: &'a str,
}

/// Runs the guest to its end and returns what its console said, or why it cannot be run.
pub(crate) fn run(guest: &Guest<'_>) -> Result<String, String> {
    for (program, package) in
        [("qemu-system-x86_64", "qemu-system-x86"), ("cpio", "cpio"), (BUSYBOX, "busybox-static")]
    {
        if !Command::new(program).arg("--help").output().is_ok_and(|said| said.status.success()) {
            return Err(format!("{program} is missing; install {package}"));
        }
    }
    let kernel = Kernel::find()?;
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("initramfs");
    furnish(&directory.path().join("root"), &kernel, guest);
    pack(&directory.path().join("root"), &archive);
    let said = Command::new("timeout")
        .args(["--signal=KILL", SECONDS, "qemu-system-x86_64"])
        .args(["-machine", "pc", "-accel", "tcg,thread=single", "-cpu", "max", "-smp", "2"])
        .args(["-m", "512M", "-nographic", "-no-reboot", "-nic", "none"])
        .args(["-append", &format!("console=ttyS0 quiet panic=-1 {}", guest.options)])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(&archive)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}

/// Debian's kernel for machines like this one, unpacked; nothing of it is installed.
struct Kernel {
    image: PathBuf,
    /// Modules the guest loads, where the kernel has them as such.
    modules: Vec<PathBuf>,
}

impl Kernel {
    fn find() -> Result<Self, String> {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest-kernel");
        if !cache.join("boot").exists() {
            download(&cache)?;
        }
        let image = entry(&cache.join("boot"), "vmlinuz-")?;
        let modules = entry(&cache.join("lib/modules"), "")?.join("kernel");
        let modules = ["drivers/block/loop.ko", "fs/overlayfs/overlay.ko"]
            .map(|name| modules.join(name))
            .into_iter()
            .filter(|module| module.exists())
            .collect();
        Ok(Self { image, modules })
    }
}

fn entry(directory: &Path, prefix: &str) -> Result<PathBuf, String> {
    let failed = |error: io::Error| format!("{}: {error}", directory.display());
    fs::read_dir(directory)
        .map_err(failed)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        })
        .ok_or_else(|| format!("{} has no {prefix}*", directory.display()))
}

/// Fetches the package that the kernel's name stands for, and unpacks it into `cache`.
fn download(cache: &Path) -> Result<(), String> {
    let named = answer(Command::new("apt-cache").args(["depends", KERNEL]))?;
    let package = named
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: linux-image-"))
        .ok_or_else(|| format!("apt knows no {KERNEL}; run apt-get update"))?;
    let parent = cache.parent().unwrap_or(cache);
    let work = tempfile::tempdir_in(parent).map_err(|error| error.to_string())?;
    answer(
        Command::new("apt-get")
            .args(["download", &format!("linux-image-{package}")])
            .current_dir(work.path()),
    )?;
    let unpacked = work.path().join("unpacked");
    let archive = entry(work.path(), "linux-image-")?;
    answer(Command::new("dpkg-deb").arg("-x").arg(archive).arg(&unpacked))?;
    match fs::rename(&unpacked, cache) {
        // Another run was faster.
        Err(error) if !cache.join("boot").exists() => Err(format!("{}: {error}", cache.display())),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn answer(command: &mut Command) -> Result<String, String> {
    let said = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !said.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&said.stderr)));
    }
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}

/// Lays out the guest's files.
fn furnish(root: &Path, kernel: &Kernel, asked: &Guest<'_>) {
    let guest = root.join("guest");
    for name in ["bin", "guest", "bundle"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    let init = root.join("init");
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cgroup2");
    fs::copy(scripts.join(asked.script), &init).unwrap();
    fs::copy(scripts.join("say.sh"), guest.join("say.sh")).unwrap();
    make_executable(&init);
    for module in &kernel.modules {
        fs::copy(module, guest.join(module.file_name().unwrap())).unwrap();
    }
    for program in asked.programs {
        let place = root.join(program.trim_start_matches('/'));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        bring(root, Path::new(program), &place);
    }
    for (path, text) in asked.files {
        let place = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, text).unwrap();
    }
    let runtime = if let Some(peer) = asked.peer {
        bring(root, peer, &guest.join("peer"));
        "/guest/peer"
    } else {
        let ours = Path::new(env!("CARGO_BIN_EXE_carrack-runtime"));
        bring(root, ours, &guest.join("carrack-runtime"));
        bring(root, &std::env::current_exe().unwrap(), &guest.join("tests"));
        "/guest/carrack-runtime"
    };
    fs::write(guest.join("runtime"), runtime).unwrap();
    rootfs(&root.join("bundle/rootfs"));
    for (name, config) in &asked.bundles {
        let bundle = root.join("bundle").join(name);
        fs::create_dir(&bundle).unwrap();
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    }
}

/// What all containers of the guest share.
fn rootfs(root: &Path) {
    for name in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    for name in [
        "sh", "cat", "cut", "dd", "echo", "grep", "head", "mkdir", "mknod", "setsid", "sleep", "tr",
    ] {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
}

/// Copies a program to its place, without what only debuggers read, and the libraries it loads.
fn bring(root: &Path, program: &Path, place: &Path) {
    fs::copy(program, place).unwrap();
    make_executable(place);
    // Where it is missing the guest is only larger.
    Command::new("strip").arg("--strip-debug").arg(place).output().ok();
    let listed = Command::new("ldd").arg(program).output().unwrap();
    for library in String::from_utf8_lossy(&listed.stdout)
        .split_whitespace()
        .filter(|word| word.starts_with('/') && !word.ends_with(':'))
    {
        let place = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(library, place).unwrap();
    }
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn pack(root: &Path, archive: &Path) {
    let listed = Command::new("find").args([".", "-print0"]).current_dir(root).output().unwrap();
    let list = root.with_extension("list");
    fs::write(&list, listed.stdout).unwrap();
    let said = Command::new("cpio")
        .args(["--null", "--create", "--format=newc", "--quiet", "--owner=0:0"])
        .current_dir(root)
        .stdin(File::open(list).unwrap())
        .stdout(File::create(archive).unwrap())
        .status()
        .unwrap();
    assert!(said.success(), "packing the guest's files");
}

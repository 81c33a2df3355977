//! Bundles with busybox in them, and the runtime under test.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use carrack_oci::runtime::defaults::{DefaultSpec, default_spec};
use serde_json::{Value, json};

/// The runtime under test.
#[must_use]
pub fn runtime() -> PathBuf {
    if let Some(named) = std::env::var_os("CARRACK_CONFORMANCE_RUNTIME") {
        return named.into();
    }
    let own = std::env::current_exe().unwrap();
    let profile = own.ancestors().nth(2).unwrap();
    let program = profile.join("carrack-runtime");
    assert!(program.exists(), "{} is missing; cargo build -p carrack-runtime", program.display());
    program
}

/// A bundle with busybox in it, and a state directory of its own.
#[derive(Debug)]
pub struct Bundle {
    directory: tempfile::TempDir,
    /// Its `config.json`.
    pub config: Value,
    /// The container's id.
    pub id: String,
    root: PathBuf,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// Its output; it must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "it failed: {}{}", self.out, self.err);
        self.out
    }

    /// It must have failed.
    #[track_caller]
    pub fn fails(self) -> Self {
        assert_ne!(self.code, 0, "it succeeded: {}", self.out);
        self
    }
}

const APPLETS: [&str; 32] = [
    "sh", "cat", "ls", "id", "echo", "sleep", "true", "grep", "head", "mount", "umount", "ps",
    "env", "dd", "touch", "stat", "readlink", "kill", "mkdir", "rm", "mv", "ln", "tty", "chmod",
    "chown", "unshare", "test", "sed", "find", "mknod", "timeout", "sync",
];

impl Bundle {
    /// A bundle whose program is a shell script; `None`, with a word why, where containers
    /// cannot be made.
    #[must_use]
    pub fn script(script: &str) -> Option<Self> {
        Self::program(&["/bin/sh", "-c", script])
    }

    /// A bundle with this program.
    #[must_use]
    pub fn program(args: &[&str]) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: making containers needs root here");
            return None;
        }
        let found =
            ["/bin/busybox", "/usr/bin/busybox"].iter().find(|path| Path::new(path).exists());
        let Some(busybox) = found else {
            eprintln!("skipped: install busybox-static");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("rootfs");
        for name in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::copy(busybox, root.join("bin/busybox")).unwrap();
        for name in APPLETS {
            symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        let spec = default_spec(&DefaultSpec {
            args: args.iter().map(ToString::to_string).collect(),
            hostname: Some("box".into()),
            ..DefaultSpec::default()
        });
        let mut bundle = Self {
            directory,
            config: serde_json::to_value(spec).unwrap(),
            id: String::new(),
            root,
        };
        // Older runtimes do not read on where they see a newer version; nothing here needs it.
        bundle.config["ociVersion"] = json!("1.0.2");
        bundle.rename();
        Some(bundle)
    }

    /// Gives the next container made from it another id and group.
    pub fn rename(&mut self) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        self.id = format!("escape-{}-{count}", std::process::id());
        self.config["linux"]["cgroupsPath"] = json!(format!("/carrack-{}", self.id));
    }

    /// Its directory, which is the host's.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Its root file system.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.root.clone()
    }

    /// Shares the root file system of another bundle, as a shared volume would be.
    pub fn use_root(&mut self, root: &Path) {
        self.config["root"]["path"] = json!(root);
        self.root = root.to_owned();
    }

    /// Its mounts.
    pub fn mounts(&mut self) -> &mut Vec<Value> {
        self.config["mounts"].as_array_mut().unwrap()
    }

    /// Adds a bind mount of a directory or file of the host.
    pub fn bind(&mut self, source: &Path, destination: &str) {
        let mount = json!({
            "destination": destination, "type": "bind", "source": source, "options": ["rbind"],
        });
        self.mounts().push(mount);
    }

    /// Leaves out the mounts at and below a path, and takes the root for that.
    pub fn without_mounts_at(&mut self, path: &str) {
        self.mounts()
            .retain(|mount| !Path::new(mount["destination"].as_str().unwrap()).starts_with(path));
    }

    /// Every capability, and no system call filter: a container that is asked to do its worst.
    pub fn give_everything(&mut self) {
        self.config["linux"].as_object_mut().unwrap().remove("seccomp");
        let all = self.config["process"]["capabilities"]["bounding"].clone();
        let mut all: Vec<Value> = all.as_array().cloned().unwrap_or_default();
        for name in ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_SYS_RAWIO"] {
            if !all.contains(&json!(name)) {
                all.push(json!(name));
            }
        }
        for set in ["bounding", "effective", "permitted"] {
            self.config["process"]["capabilities"][set] = json!(all);
        }
    }

    /// Maps the container's users to ones without rights over the host.
    pub fn map_users(&mut self) {
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
        self.config["linux"]["uidMappings"] = map.clone();
        self.config["linux"]["gidMappings"] = map;
        self.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        // The default ones name groups that are not mapped.
        self.config["linux"].as_object_mut().unwrap().remove("sysctl");
        for entry in [self.path().to_owned(), self.root()] {
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(entry, open).unwrap();
        }
    }

    /// A command on this bundle's state directory, its configuration written.
    pub fn command(&self, arguments: &[&str]) -> Command {
        fs::write(self.path().join("config.json"), self.config.to_string()).unwrap();
        let mut command = Command::new(runtime());
        command.arg("--root").arg(self.path().join("state")).args(arguments);
        command.current_dir(self.path()).stdin(Stdio::null());
        command
    }

    /// Runs a command of the runtime.
    pub fn runtime(&self, arguments: &[&str]) -> Said {
        self.finish(self.command(arguments))
    }

    /// Runs a command to its end, its output not caught by pipes, which a container would
    /// keep open, but in files.
    pub fn finish(&self, mut command: Command) -> Said {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let [out, err] = ["out", "err"].map(|name| self.path().join(format!("{name}-{count}")));
        command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
        let status = command.status().unwrap();
        let read = |path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        Said { code: status.code().unwrap_or(-1), out: read(out), err: read(err) }
    }

    /// Runs it to its end, and takes it away.
    pub fn run(&self) -> Said {
        let said = self.runtime(&["run", &self.id]);
        self.remove();
        said
    }

    /// Creates and starts it.
    #[track_caller]
    pub fn started(&self) {
        self.runtime(&["create", &self.id]).ok();
        self.runtime(&["start", &self.id]).ok();
    }

    /// Its first process, as the host numbers it.
    #[track_caller]
    #[must_use]
    pub fn pid(&self) -> i32 {
        let state: Value = serde_json::from_str(&self.runtime(&["state", &self.id]).ok()).unwrap();
        i32::try_from(state["pid"].as_i64().unwrap()).unwrap()
    }

    /// Creates it with a terminal, whose other end comes back through a socket; `None`, and
    /// what was said, when it was not created.
    pub fn create_with_terminal(&self) -> Result<OwnedFd, Said> {
        let path = self.path().join("console.sock");
        fs::remove_file(&path).ok(); // There may be one of an earlier attempt.
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let socket = path.to_str().unwrap();
        let said = self.runtime(&["create", "--console-socket", socket, &self.id]);
        if said.code != 0 {
            return Err(said);
        }
        let (stream, _) = listener.accept().unwrap();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 4096];
        let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
        let flags = rustix::net::RecvFlags::CMSG_CLOEXEC;
        rustix::net::recvmsg(&stream, &mut parts, &mut control, flags).unwrap();
        let mut rights = control.drain().filter_map(|message| match message {
            rustix::net::RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
            _ => None,
        });
        Ok(rights.next().expect("the terminal came along"))
    }

    /// Removes the container, in whatever state, if there is one.
    pub fn remove(&self) {
        if self.path().join("state").join(&self.id).exists() {
            self.command(&["delete", "--force", &self.id]).output().unwrap();
        }
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        self.remove();
    }
}

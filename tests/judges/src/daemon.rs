//! Daemons in directories of their own.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use carrack_testkit::eventually;

use crate::program::{find, runtime};

/// A daemon that is told to end when dropped.
#[derive(Debug)]
struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts it and waits until it answers at `socket`.
    fn start(command: &mut Command, directory: &Path, name: &str, socket: &Path) -> Self {
        let log = fs::File::create(directory.join(format!("{name}.log"))).expect("a log");
        let errors = log.try_clone().expect("a log");
        let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
        let daemon = Self { child: child.expect("the daemon starts") };
        eventually(name, Duration::from_secs(30), || UnixStream::connect(socket).ok());
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        Command::new("kill").arg(pid).status().ok();
        self.child.wait().ok();
    }
}

/// Debian's containerd.
#[derive(Debug)]
pub struct Containerd {
    _daemon: Daemon,
    /// Where it listens.
    pub socket: PathBuf,
}

impl Containerd {
    /// Starts it on directories below `directory`.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn start(directory: &Path) -> Self {
        let shown = directory.display();
        let configuration = format!(
            "version = 2\nroot = '{shown}/root'\nstate = '{shown}/state'\n\
             disabled_plugins = ['io.containerd.grpc.v1.cri', \
             'io.containerd.snapshotter.v1.btrfs', 'io.containerd.snapshotter.v1.zfs', \
             'io.containerd.snapshotter.v1.devmapper']\n\
             [grpc]\naddress = '{shown}/containerd.sock'\n\
             [ttrpc]\naddress = '{shown}/ttrpc.sock'\n\
             [plugins.'io.containerd.internal.v1.opt']\npath = '{shown}/opt'\n"
        );
        let file = directory.join("containerd.toml");
        fs::write(&file, configuration).expect("a configuration");
        let socket = directory.join("containerd.sock");
        let mut command = Command::new("containerd");
        command.arg("--config").arg(&file).args(["--log-level", "warn"]);
        let daemon = Daemon::start(&mut command, directory, "containerd", &socket);
        Self { _daemon: daemon, socket }
    }
}

/// Debian's Docker engine, without a network.
#[derive(Debug)]
pub struct Dockerd {
    // They end in this order.
    _daemon: Daemon,
    _containerd: Containerd,
    /// Where it listens.
    pub socket: PathBuf,
}

impl Dockerd {
    /// Starts it, and a containerd under it, with our runtime added as `carrack`.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn start(directory: &Path) -> Self {
        let containerd = Containerd::start(directory);
        let settings = directory.join("daemon.json");
        fs::write(&settings, "{}").expect("a configuration");
        let socket = directory.join("docker.sock");
        let mut command = Command::new(find("dockerd").expect("dockerd is installed"));
        for (option, value) in [
            ("--config-file", &settings),
            ("--data-root", &directory.join("docker")),
            ("--exec-root", &directory.join("docker-exec")),
            ("--pidfile", &directory.join("docker.pid")),
            ("--containerd", &containerd.socket),
        ] {
            command.arg(option).arg(value);
        }
        command
            .arg(format!("--host=unix://{}", socket.display()))
            .arg(format!("--add-runtime=carrack={}", runtime().display()))
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none"])
            .arg("--storage-driver=vfs");
        let daemon = Daemon::start(&mut command, directory, "dockerd", &socket);
        Self { _daemon: daemon, _containerd: containerd, socket }
    }
}

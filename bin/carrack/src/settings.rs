//! Where things are. The only place that reads the environment for them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use carrack_spiffe::TrustDomain;

/// The directories and programs every verb works with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// What outlives a reboot.
    pub(crate) root: PathBuf,
    /// What ends with the machine: sockets, mounts, bundles.
    pub(crate) run: PathBuf,
    /// The static runtime beside this program.
    pub(crate) runtime_program: PathBuf,
    /// The loopback port of the page, the graph and the metrics.
    pub(crate) page_port: u16,
    /// The trust domain of every identity issued here.
    pub(crate) trust_domain: String,
}

impl Settings {
    pub(crate) fn engine_socket(&self) -> PathBuf {
        self.run.join("engine.sock")
    }

    pub(crate) fn identity_socket(&self) -> PathBuf {
        self.run.join("identity.sock")
    }

    pub(crate) fn control_socket(&self) -> PathBuf {
        self.run.join("control.sock")
    }

    pub(crate) fn observe_socket(&self) -> PathBuf {
        self.run.join("observe.sock")
    }

    pub(crate) fn proxy_socket(&self) -> PathBuf {
        self.run.join("proxy.sock")
    }

    pub(crate) fn resources(&self) -> PathBuf {
        self.run.join("resources.json")
    }

    pub(crate) fn access_log(&self) -> PathBuf {
        self.root.join("mesh/access.log")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// The trust domain, checked.
    pub(crate) fn trust_domain(&self) -> anyhow::Result<TrustDomain> {
        TrustDomain::new(&self.trust_domain)
            .with_context(|| format!("reading the trust domain `{}`", self.trust_domain))
    }

    /// These settings as arguments, for a role started with them.
    pub(crate) fn as_arguments(&self) -> Vec<OsString> {
        let pairs: [(&str, OsString); 5] = [
            ("--root", self.root.clone().into()),
            ("--run-dir", self.run.clone().into()),
            ("--runtime-program", self.runtime_program.clone().into()),
            ("--page-port", self.page_port.to_string().into()),
            ("--trust-domain", self.trust_domain.clone().into()),
        ];
        pairs.into_iter().flat_map(|(flag, value)| [flag.into(), value]).collect()
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.root.join("log")
    }
}

/// This program's path. After an upgrade that replaced the file, the path of the new one.
pub(crate) fn own_program() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("finding this program's own path")?;
    let bytes = program.as_os_str().as_encoded_bytes();
    match bytes.strip_suffix(b" (deleted)") {
        Some(path) => Ok(PathBuf::from(OsStr::from_bytes(path))),
        None => Ok(program),
    }
}

/// `carrack-runtime` lies beside this program, as cargo leaves it, or in the
/// libexec directory of the same prefix, as a package installs it.
pub(crate) fn find_runtime() -> anyhow::Result<PathBuf> {
    let program = own_program()?;
    let directory = program.parent().unwrap_or(Path::new("/"));
    let places =
        [directory.join("carrack-runtime"), directory.join("../libexec/carrack/carrack-runtime")];
    let found = places.iter().find(|place| place.is_file());
    found.cloned().with_context(|| {
        format!(
            "carrack-runtime is not beside {}; build it with `cargo build --package \
             carrack-runtime` or name it with --runtime-program",
            program.display()
        )
    })
}

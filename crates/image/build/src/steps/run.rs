//! A command run in a container of our own runtime.
//!
//! ```text
//! intent on disk ─▶ network ─▶ rootfs attached ─▶ shim ─▶ command ─▶ all of it taken down
//! ```
//!
//! What is about to be made is written down first. [`clear`] takes it down from
//! that note alone: after a command as after a crash.

use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use carrack_linux::cgroup::{Group, Layout};
use carrack_linux::rooted::RootedDir;
use carrack_oci::runtime::defaults::{DefaultSpec, NetworkNamespace, default_spec, mount};
use carrack_oci::runtime::{Mount, Spec};
use carrack_shim::{Client, Exit, Log, Refusal, ShimConfig, ShimError};
use serde::{Deserialize, Serialize};

use super::interrupt::Interrupter;
use super::network::{RunNetwork, Standing};
use super::stubs::Stubs;
use super::workspace::Workspace;
use super::{StepError, workspace};
use crate::files::Tree;
use crate::files::accounts::{Accounts, Identity};
use crate::graph::RunStep;

/// The note of what a `RUN` has made, in its workspace.
const NOTE: &str = "run.json";

/// What a command needs of the machine.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// `carrack-runtime`.
    pub(crate) program: PathBuf,
    /// Where the runtime keeps its state.
    pub(crate) runtime_root: PathBuf,
    /// Held while a subnet is chosen.
    pub(crate) subnet_lock: PathBuf,
    /// Where this machine's name servers are written down.
    pub(crate) resolv_conf: PathBuf,
    /// Stops commands.
    pub(crate) interrupter: Interrupter,
}

/// A command about to be run.
#[derive(Debug)]
pub(crate) struct Command<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) step: &'a RunStep,
    pub(crate) network: RunNetwork,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    cgroup: PathBuf,
    network: Option<Standing>,
}

impl Command<'_> {
    /// Runs the command on the workspace's root filesystem, handing what it writes to `output`.
    /// The workspace's changes are then in the directory that comes back.
    pub(crate) fn run(
        &self,
        workspace: Workspace,
        output: &(dyn Fn(Vec<u8>) + Sync),
    ) -> Result<workspace::Finished, StepError> {
        let root = workspace.root()?;
        let bundle = workspace.run_directory.clone();
        let note = self.note(&workspace)?;
        let spec = self.spec(&workspace, &root, &note)?;
        let mounts = &spec.mounts;
        let stubs = Stubs::note(&root, mounts.iter().map(|mount| mount.destination.as_path()));
        let outcome = self.run_noted(&workspace, &note, &spec, output);
        let cleared = clear(&workspace.directory, &bundle);
        self.machine.interrupter.check()?;
        let exit = outcome?;
        cleared?;
        if exit.code != 0 {
            return Err(StepError::Command { code: exit.code, oom: exit.oom });
        }
        let tidied = stubs.remove(&root);
        drop(root);
        let finished = workspace.finish();
        tidied
            .and_then(|()| stubs.prune(&finished.upper()))
            .map_err(StepError::workspace("tidying", &finished.upper()))?;
        Ok(finished)
    }

    fn note(&self, workspace: &Workspace) -> Result<Note, StepError> {
        let network = (self.network == RunNetwork::Default)
            .then(|| Standing::named(&workspace.id, workspace.directory.join("netns")));
        let cgroup = PathBuf::from(format!("/carrack/build-{}", workspace.id));
        let note = Note { cgroup, network };
        let path = workspace.directory.join(NOTE);
        let write = || -> io::Result<()> {
            carrack_linux::fs::write_atomic(&path, &serde_json::to_vec(&note)?, 0o600)
        };
        write().map_err(StepError::workspace("writing", &path))?;
        Ok(note)
    }

    fn spec(
        &self,
        workspace: &Workspace,
        root: &RootedDir,
        note: &Note,
    ) -> Result<Spec, StepError> {
        let failed = StepError::workspace("holding", &workspace.directory);
        let clone = root.try_clone().map_err(failed)?;
        let accounts = Accounts::read(&Tree::image(clone, "the image"))?;
        let Identity { uid, gid, groups, home } = accounts.identity(&self.step.user)?;
        let mut env = self.step.env.clone();
        env.extend(self.step.proxies.iter().cloned());
        if !env.iter().any(|entry| entry.starts_with("HOME=")) {
            env.push(format!("HOME={home}"));
        }
        Ok(default_spec(&DefaultSpec {
            args: self.step.args.clone(),
            env,
            cwd: PathBuf::from(&self.step.cwd),
            uid,
            gid,
            additional_gids: groups,
            hostname: Some("build".to_owned()),
            cgroups_path: Some(note.cgroup.clone()),
            rootfs: workspace.run_directory.join("rootfs"),
            network: match (&note.network, self.network) {
                (Some(standing), _) => NetworkNamespace::Path(standing.namespace().to_owned()),
                (None, RunNetwork::Host) => NetworkNamespace::Host,
                (None, _) => NetworkNamespace::New,
            },
            mounts: self.name_files(&workspace.directory)?,
            ..DefaultSpec::default()
        }))
    }

    /// The files that tell the command who is who: this machine's name servers, and itself.
    fn name_files(&self, directory: &Path) -> Result<Vec<Mount>, StepError> {
        let servers = fs::read_to_string(&self.machine.resolv_conf).unwrap_or_default();
        let servers = match self.network {
            RunNetwork::Default => reachable_servers(&servers),
            RunNetwork::None => String::new(),
            RunNetwork::Host => servers,
        };
        let hosts = "127.0.0.1\tlocalhost build\n::1\tlocalhost\n".to_owned();
        let mut mounts = Vec::new();
        for (name, content) in [("resolv.conf", servers), ("hosts", hosts)] {
            let path = directory.join(name);
            fs::write(&path, content).map_err(StepError::workspace("writing", &path))?;
            // Writable, since package scripts write to them; the file is thrown away.
            let options = ["bind", "nosuid", "nodev", "noexec"];
            let source = path.to_string_lossy();
            mounts.push(mount(&format!("/etc/{name}"), "bind", &source, &options));
        }
        Ok(mounts)
    }

    fn run_noted(
        &self,
        workspace: &Workspace,
        note: &Note,
        spec: &Spec,
        output: &(dyn Fn(Vec<u8>) + Sync),
    ) -> Result<Exit, StepError> {
        if let Some(network) = &note.network {
            network.raise(&self.machine.subnet_lock)?;
        }
        let bundle = &workspace.run_directory;
        let lay_out = || -> io::Result<()> {
            fs::create_dir_all(bundle.join("rootfs"))?;
            workspace.root().map_err(io::Error::other)?.make_directories(
                Path::new(self.step.cwd.trim_start_matches('/')).components().as_path(),
                0o755,
            )?;
            workspace.attach(&bundle.join("rootfs"))?;
            fs::write(bundle.join("config.json"), serde_json::to_vec(spec)?)
        };
        lay_out().map_err(StepError::workspace("laying out the bundle", bundle))?;
        let config = ShimConfig {
            id: format!("build-{}", workspace.id),
            bundle: bundle.clone(),
            runtime_root: self.machine.runtime_root.clone(),
            terminal: false,
            open_stdin: false,
            log: Log::Descriptors,
            init: false,
        };
        let (reader, writer) =
            io::pipe().map_err(StepError::workspace("making a pipe for", bundle))?;
        let errors =
            writer.try_clone().map_err(StepError::workspace("making a pipe for", bundle))?;
        std::thread::scope(|scope| {
            scope.spawn(move || pass_on(reader, output));
            let held = [OwnedFd::from(writer), OwnedFd::from(errors)];
            self.hold(bundle, &config, held).map_err(|error| self.refusal(error))
        })
    }

    fn refusal(&self, error: ShimError) -> StepError {
        match &error {
            ShimError::Refused { kind: Refusal::ProgramNotFound, .. } => StepError::NoProgram {
                program: self.step.args.first().cloned().unwrap_or_default(),
                is_shell: self.step.has_shell,
            },
            _ => StepError::Container(error),
        }
    }

    /// From the shim's start to its end. The pipe's reader sees its end no later than that.
    fn hold(
        &self,
        bundle: &Path,
        config: &ShimConfig,
        [stdout, stderr]: [OwnedFd; 2],
    ) -> Result<Exit, ShimError> {
        let program = &self.machine.program;
        let watched = self.machine.interrupter.watch(bundle);
        let client = Client::spawn_with_output(program, bundle, config, stdout, stderr)?;
        let exit = client.start().and_then(|()| {
            watched.started();
            client.wait()
        });
        drop(watched);
        let deleted = client.delete(true);
        let exit = exit?;
        deleted?;
        Ok(exit)
    }
}

/// Hands on what comes through the pipe until its last writer is gone.
fn pass_on(mut reader: impl Read, output: &(dyn Fn(Vec<u8>) + Sync)) {
    let mut buffer = vec![0; 16 * 1024];
    // A pipe that breaks has nothing more to say.
    while let Ok(count) = reader.read(&mut buffer) {
        match buffer.get(..count) {
            Some(bytes) if !bytes.is_empty() => output(bytes.to_vec()),
            _ => break,
        }
    }
}

/// Name servers on loopback are out of a container's reach.
fn reachable_servers(resolv_conf: &str) -> String {
    let is_loopback = |line: &&str| {
        let mut words = line.split_whitespace();
        words.next() == Some("nameserver")
            && words
                .next()
                .and_then(|address| address.parse::<std::net::IpAddr>().ok())
                .is_some_and(|address| address.is_loopback())
    };
    let kept = resolv_conf.lines().filter(|line| !is_loopback(line));
    kept.map(|line| format!("{line}\n")).collect()
}

/// Whether something of a command may stand that [`clear`] has not taken down.
pub(super) fn is_noted(workspace: &Path) -> bool {
    workspace.join(NOTE).exists()
}

/// Takes down whatever a command has left: its container, mount, network and control group.
pub(super) fn clear(workspace: &Path, bundle: &Path) -> Result<(), StepError> {
    let Ok(bytes) = fs::read(workspace.join(NOTE)) else { return Ok(()) };
    if let Ok(client) = Client::connect(bundle) {
        client.delete(true).map_err(StepError::Container)?;
    }
    if let Ok(note) = serde_json::from_slice::<Note>(&bytes) {
        clear_cgroup(&note.cgroup)?;
        if let Some(network) = &note.network {
            network.lower()?;
        }
    }
    let rootfs = bundle.join("rootfs");
    match carrack_linux::mount::detach(&rootfs) {
        Err(error)
            if !matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound) =>
        {
            return Err(StepError::workspace("unmounting", &rootfs)(error));
        }
        _ => {}
    }
    for path in [bundle, &workspace.join(NOTE)] {
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StepError::workspace("removing", path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Kills what is left in the control group of a container whose shim is gone, and removes it.
fn clear_cgroup(path: &Path) -> Result<(), StepError> {
    let layout = Layout::detect().map_err(StepError::Cgroup)?;
    let group = Group::new(layout, path).map_err(StepError::Cgroup)?;
    if !group.exists() {
        return Ok(());
    }
    group.kill_all().map_err(StepError::Cgroup)?;
    group.delete().map_err(StepError::Cgroup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_on_loopback_are_left_out() {
        let text =
            "search example.org\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 10.0.0.2\n";
        assert_eq!(reachable_servers(text), "search example.org\nnameserver 10.0.0.2\n");
    }
}

//! What a shim is handed: a root filesystem, `config.json`, and the files of `/etc` that the
//! engine writes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use carrack_linux::fs::replace;
use carrack_objects::compose::{MountKind, Restart};
use carrack_oci::runtime::defaults::{
    CapabilityChanges, CapabilityList, DefaultSpec, Limits, NetworkNamespace, Seccomp,
    default_spec, mount,
};
use carrack_oci::runtime::{Mount, Process, Spec};

use crate::api::ExecRequest;
use crate::container::{Container, Places};
use crate::definition::{Definition, MountDefinition};
use crate::engine::{Engine, private_directory};
use crate::error::EngineError;
use crate::user::{self, Account};
use crate::volume::volume_of;

/// Makes everything a shim needs, however much of it there is already.
pub(crate) fn prepare(engine: &Engine, container: &Container) -> Result<(), EngineError> {
    let places = engine.places(&container.id);
    private_directory(&places.keep)?;
    private_directory(&places.bundle)?;
    mount_rootfs(engine, container, &places)?;
    let account = user::lookup(&places.rootfs, &container.definition.user)?;
    let mut mounts = etc_files(engine, container, &places)?;
    for mount in &container.definition.mounts {
        mounts.push(asked_mount(engine, container, mount, &places)?);
    }
    let spec = default_spec(&wish(container, &places, account, mounts)?);
    write_spec(&places, &spec).map_err(EngineError::failed(format!(
        "writing the bundle of {} to {}",
        container.name,
        places.bundle.display()
    )))
}

fn mount_rootfs(
    engine: &Engine,
    container: &Container,
    places: &Places,
) -> Result<(), EngineError> {
    let definition = &container.definition;
    let attempt = || {
        format!("making the root filesystem of {} from {}", container.name, definition.image_name)
    };
    let image = engine.images.get(&definition.image).map_err(EngineError::failed(attempt()))?;
    let mut layers = Vec::new();
    for (layer, diff_id) in image.layers() {
        let unpacked = engine.layers.unpacked(layer, diff_id);
        layers.push(unpacked.map_err(EngineError::failed(attempt()))?);
    }
    let mounted = if is_passing(container) {
        // What an interrupted start has left of it is nothing anybody wrote.
        let unmounted = engine.rootfs.unmount(&places.rootfs);
        unmounted
            .and_then(|()| engine.rootfs.remove(&container.id))
            .and_then(|()| engine.rootfs.prepare_scratch(&container.id, &layers, &places.rootfs))
    } else {
        engine.rootfs.prepare(&container.id, &layers, &places.rootfs)
    };
    mounted.map_err(EngineError::failed(attempt()))
}

/// Whether a container runs once and is removed then, so that nobody sees again what it wrote.
fn is_passing(container: &Container) -> bool {
    container.auto_remove && container.definition.restart == Restart::No
}

/// The files of `/etc` that say where a container is: its names, its name server, its neighbors.
fn etc_files(
    engine: &Engine,
    container: &Container,
    places: &Places,
) -> Result<Vec<Mount>, EngineError> {
    let hostname = container.hostname();
    let address = container.address;
    let gateway = engine.networks.of(&container.definition.project).map(|n| n.network.gateway);
    let hosts = format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{address}\t{hostname}\n"
    );
    let resolv =
        gateway.map(|at| format!("nameserver {at}\noptions ndots:0\n")).unwrap_or_default();
    let files = [("hosts", hosts), ("hostname", format!("{hostname}\n")), ("resolv.conf", resolv)];
    let mut mounts = Vec::new();
    for (name, content) in files {
        let path = places.bundle.join(name);
        let written = replace(&path, content.as_bytes(), 0o644);
        written.map_err(EngineError::failed(format!("writing {}", path.display())))?;
        let target = format!("/etc/{name}");
        if !container.definition.mounts.iter().any(|mount| mount.target == target) {
            mounts.push(bind(&path, &target, container.definition.read_only));
        }
    }
    Ok(mounts)
}

fn asked_mount(
    engine: &Engine,
    container: &Container,
    asked: &MountDefinition,
    places: &Places,
) -> Result<Mount, EngineError> {
    match &asked.kind {
        MountKind::Bind { source, create } => {
            if !source.exists() {
                if !create {
                    return Err(EngineError::Invalid(format!(
                        "{} is to be mounted at {} of {} and does not exist",
                        source.display(),
                        asked.target,
                        container.name
                    )));
                }
                fs::create_dir_all(source)
                    .map_err(EngineError::failed(format!("making {}", source.display())))?;
            }
            Ok(bind(source, &asked.target, asked.read_only))
        }
        MountKind::Volume { nocopy, .. } => {
            let name = volume_of(&container.id, &asked.target, &asked.kind).unwrap_or_default();
            let path = engine.open_volume(&name, &places.rootfs, &asked.target, !nocopy)?;
            Ok(bind(&path, &asked.target, asked.read_only))
        }
        MountKind::Tmpfs { size, mode } => {
            let mut options = vec!["nosuid".to_owned(), "nodev".to_owned(), "noexec".to_owned()];
            options.push(format!("mode={:o}", mode.unwrap_or(0o1777)));
            options.extend(size.map(|bytes| format!("size={bytes}")));
            options.extend(asked.read_only.then(|| "ro".to_owned()));
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            Ok(mount(&asked.target, "tmpfs", "tmpfs", &options))
        }
    }
}

fn bind(source: &Path, target: &str, read_only: bool) -> Mount {
    let access = if read_only { "ro" } else { "rw" };
    Mount { source: source.to_owned(), ..mount(target, "bind", "", &["rbind", "rprivate", access]) }
}

/// What the container is, in the words of its runtime.
fn wish(
    container: &Container,
    places: &Places,
    account: Account,
    mounts: Vec<Mount>,
) -> Result<DefaultSpec, EngineError> {
    let definition = &container.definition;
    Ok(DefaultSpec {
        args: definition.command.clone(),
        env: environment(container, &account),
        cwd: definition.working_dir.clone().into(),
        uid: account.uid,
        gid: account.gid,
        additional_gids: account.groups,
        terminal: definition.terminal,
        hostname: Some(container.hostname().to_owned()),
        cgroups_path: Some(places.cgroup.clone()),
        rootfs: places.rootfs.clone(),
        readonly_rootfs: definition.read_only,
        capabilities: capabilities(definition)?,
        seccomp: if definition.seccomp_unconfined { Seccomp::Unconfined } else { Seccomp::Default },
        no_new_privileges: definition.no_new_privileges,
        network: NetworkNamespace::Path(places.netns.clone()),
        limits: limits(definition),
        mounts,
        ..DefaultSpec::default()
    })
}

fn capabilities(definition: &Definition) -> Result<CapabilityChanges, EngineError> {
    let parse = |words: &[String]| {
        CapabilityList::parse(words).map_err(|unknown| EngineError::Invalid(unknown.to_string()))
    };
    Ok(CapabilityChanges { add: parse(&definition.cap_add)?, drop: parse(&definition.cap_drop)? })
}

#[expect(clippy::cast_precision_loss, reason = "a billionth of a processor is not missed")]
fn limits(definition: &Definition) -> Limits {
    Limits {
        memory_bytes: definition.memory_bytes.and_then(|bytes| i64::try_from(bytes).ok()),
        cpus: definition.nano_cpus.map(|nanos| nanos as f64 / 1e9),
        pids: definition.pids.map(i64::from),
        ..Limits::default()
    }
}

/// The variables of a container's program: its own, over those every program expects.
fn environment(container: &Container, account: &Account) -> Vec<String> {
    let definition = &container.definition;
    let mut given =
        vec![("HOSTNAME", container.hostname().to_owned()), ("HOME", account.home.clone())];
    if definition.terminal {
        given.push(("TERM", "xterm".to_owned()));
    }
    let given = given
        .into_iter()
        .filter(|(name, _)| !definition.environment.contains_key(*name))
        .map(|(name, value)| format!("{name}={value}"));
    let own = definition.environment.iter().map(|(name, value)| format!("{name}={value}"));
    given.chain(own).collect()
}

fn write_spec(places: &Places, spec: &Spec) -> io::Result<()> {
    replace(&places.bundle.join("config.json"), &serde_json::to_vec(spec)?, 0o600)
}

/// Another program of a container that runs: as its own, but for what was asked.
pub(crate) fn exec_process(
    engine: &Engine,
    container: &Container,
    request: &ExecRequest,
) -> Result<Process, EngineError> {
    let places = engine.places(&container.id);
    let attempt = || format!("reading the bundle of {}", container.name);
    let config = fs::read(places.bundle.join("config.json"));
    let config = config.map_err(EngineError::failed(attempt()))?;
    let spec: Spec = serde_json::from_slice(&config).map_err(EngineError::failed(attempt()))?;
    let mut process = spec.process.unwrap_or_default();
    let mut env = std::mem::take(&mut process.env);
    if let Some(asked) = &request.user {
        let account = user::lookup(&places.rootfs, asked)?;
        process.user.uid = account.uid;
        process.user.gid = account.gid;
        process.user.additional_gids = account.groups;
        if !container.definition.environment.contains_key("HOME") {
            set_variable(&mut env, "HOME", &account.home);
        }
    }
    if request.terminal && !env.iter().any(|entry| entry.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    for (name, value) in &request.environment {
        set_variable(&mut env, name, value);
    }
    if let Some(dir) = &request.working_dir {
        process.cwd = PathBuf::from(dir);
    }
    process.args = request.command.clone();
    process.env = env;
    process.terminal = request.terminal;
    Ok(process)
}

fn set_variable(env: &mut Vec<String>, name: &str, value: &str) {
    env.retain(|entry| entry.split_once('=').is_none_or(|(key, _)| key != name));
    env.push(format!("{name}={value}"));
}

/// Takes away what [`prepare`] made for one run. The container's own files stay.
pub(crate) fn clear(engine: &Engine, container: &Container) {
    let places = engine.places(&container.id);
    if let Err(error) = engine.rootfs.unmount(&places.rootfs) {
        tracing::warn!(container = %container.name, %error, "unmounting a root filesystem");
        return;
    }
    // Only an empty directory goes: whatever is still mounted there is not ours to delete.
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    let removed = gone(fs::remove_dir(&places.rootfs))
        .and_then(|()| gone(fs::remove_dir_all(&places.bundle)));
    if let Err(error) = removed {
        tracing::warn!(container = %container.name, %error, "removing a bundle");
    }
}

/// Removes a container's own files: what it wrote, and its log.
pub(crate) fn remove(engine: &Engine, container: &Container) -> Result<(), EngineError> {
    let attempt = || format!("removing the files of {}", container.name);
    engine.rootfs.remove(&container.id).map_err(EngineError::failed(attempt()))?;
    match fs::remove_dir_all(engine.places(&container.id).keep) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(EngineError::failed(attempt())(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

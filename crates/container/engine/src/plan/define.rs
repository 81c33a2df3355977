//! From a service and its image to a definition.

use std::collections::BTreeMap;
use std::time::Duration;

use carrack_objects::compose::{
    HealthTest, Healthcheck, Mount, MountKind, PidsLimit, SeccompMode, Service, Volume,
};
use carrack_oci::ExecutionConfig;
use carrack_oci::runtime::defaults::CapabilityList;
use indexmap::IndexMap;

use super::{ImageFacts, PlanProblem};
use crate::definition::{Definition, HealthDefinition, MountDefinition};
use crate::signal;

/// What a container may have that no Compose file can say.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether its standard input stays open.
    pub interactive: bool,
    /// Its host name.
    pub hostname: Option<String>,
}

/// Decides everything about the containers of `service`.
///
/// # Errors
///
/// Everything about it that cannot be decided.
pub fn define(
    project: &str,
    service: &Service,
    image: &ImageFacts,
    volumes: &IndexMap<String, Volume>,
    extras: &Extras,
) -> Result<Definition, Vec<PlanProblem>> {
    let mut problems = Vec::new();
    let command = command(service, &image.config);
    if command.is_empty() {
        problems.push(PlanProblem::NoCommand(service.name.clone()));
    }
    let stop_signal = stop_signal(service, &image.config, &mut problems);
    for words in [&service.cap_add, &service.cap_drop] {
        if let Err(problem) = CapabilityList::parse(words) {
            let service = service.name.clone();
            problems.push(PlanProblem::NoSuchCapability { service, problem });
        }
    }
    let mounts = mounts(service, &image.config, volumes, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Definition {
        project: project.to_owned(),
        service: service.name.clone(),
        image_name: image.name.clone(),
        image: image.digest.clone(),
        command,
        environment: environment(service, &image.config),
        working_dir: working_dir(service, &image.config),
        user: service.user.clone().unwrap_or_else(|| image.config.user.clone()),
        hostname: extras.hostname.clone(),
        terminal: extras.terminal,
        interactive: extras.interactive,
        read_only: service.read_only,
        mounts,
        cap_add: service.cap_add.clone(),
        cap_drop: service.cap_drop.clone(),
        seccomp_unconfined: service.security.seccomp == SeccompMode::Unconfined,
        no_new_privileges: service.security.no_new_privileges,
        memory_bytes: service.mem_limit,
        nano_cpus: service.nano_cpus,
        pids: match service.pids_limit {
            Some(PidsLimit::AtMost(most)) => Some(most),
            Some(PidsLimit::Unlimited) | None => None,
        },
        health: health(service.healthcheck.as_ref(), &image.config),
        restart: service.restart,
        stop_signal,
        stop_grace: service.stop_grace_period,
        labels: labels(service, &image.config),
        init: service.init,
        ports: service.ports.clone(),
        exposed: exposed(service, &image.config),
        protocols: service.protocols(),
        depends_on: service.depends_on.clone().into_iter().collect(),
    })
}

/// The image's entry point and command, each replaced by the service's. As in Docker, a new entry
/// point clears the image's command.
fn command(service: &Service, image: &ExecutionConfig) -> Vec<String> {
    let entrypoint = service.entrypoint.as_ref().unwrap_or(&image.entrypoint);
    let kept: &[String] = if service.entrypoint.is_some() { &[] } else { &image.cmd };
    let arguments = service.command.as_deref().unwrap_or(kept);
    entrypoint.iter().chain(arguments).cloned().collect()
}

fn environment(service: &Service, image: &ExecutionConfig) -> BTreeMap<String, String> {
    let of_image = image.env.iter().filter_map(|entry| {
        let (name, value) = entry.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    });
    let of_service = service.environment.iter().map(|(name, value)| (name.clone(), value.clone()));
    of_image.chain(of_service).collect()
}

fn working_dir(service: &Service, image: &ExecutionConfig) -> String {
    let dir = service.working_dir.as_deref().unwrap_or(&image.working_dir);
    if dir.is_empty() { "/".to_owned() } else { dir.to_owned() }
}

fn labels(service: &Service, image: &ExecutionConfig) -> BTreeMap<String, String> {
    let mut labels = image.labels.clone();
    labels.extend(service.labels.iter().map(|(name, value)| (name.clone(), value.clone())));
    labels
}

fn stop_signal(service: &Service, image: &ExecutionConfig, problems: &mut Vec<PlanProblem>) -> i32 {
    let word = service.stop_signal.as_ref().or(image.stop_signal.as_ref());
    let Some(word) = word.filter(|word| !word.is_empty()) else { return libc::SIGTERM };
    signal::parse(word).unwrap_or_else(|| {
        problems.push(PlanProblem::NoSuchSignal {
            service: service.name.clone(),
            signal: word.clone(),
        });
        libc::SIGTERM
    })
}

/// Ports of the service and the image, TCP only: the others cannot be reached through the mesh.
fn exposed(service: &Service, image: &ExecutionConfig) -> Vec<u16> {
    let of_image = image.exposed_ports.iter().filter_map(|entry| {
        let (port, protocol) = entry.split_once('/').unwrap_or((entry, "tcp"));
        (protocol == "tcp").then(|| port.parse().ok()).flatten()
    });
    let mapped = service.ports.iter().map(|port| port.container_port);
    let mut ports: Vec<u16> =
        service.expose.iter().copied().chain(mapped).chain(of_image).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// The service's mounts, with volumes by the names they have on the host, and a volume of its own
/// for each `VOLUME` of the image that none of them covers.
fn mounts(
    service: &Service,
    image: &ExecutionConfig,
    volumes: &IndexMap<String, Volume>,
    problems: &mut Vec<PlanProblem>,
) -> Vec<MountDefinition> {
    let mut mounts = Vec::new();
    for Mount { target, read_only, kind } in &service.mounts {
        let kind = match kind {
            MountKind::Volume { name: Some(key), nocopy } => {
                let Some(volume) = volumes.get(key) else {
                    problems.push(PlanProblem::NoSuchVolume {
                        service: service.name.clone(),
                        volume: key.clone(),
                    });
                    continue;
                };
                MountKind::Volume { name: Some(volume.name.clone()), nocopy: *nocopy }
            }
            other => other.clone(),
        };
        mounts.push(MountDefinition { target: target.clone(), read_only: *read_only, kind });
    }
    let same = |one: &str, other: &str| one.trim_end_matches('/') == other.trim_end_matches('/');
    for target in &image.volumes {
        if !mounts.iter().any(|mount| same(&mount.target, target)) {
            mounts.push(MountDefinition {
                target: target.clone(),
                read_only: false,
                kind: MountKind::Volume { name: None, nocopy: false },
            });
        }
    }
    // A mount below another must come after it, or it would be covered.
    mounts.sort_by_key(|mount| mount.target.trim_end_matches('/').matches('/').count());
    mounts
}

/// The image's health check with whatever the service says in place of it, and Docker's defaults
/// for the rest.
fn health(asked: Option<&Healthcheck>, image: &ExecutionConfig) -> Option<HealthDefinition> {
    let base = image.healthcheck.as_ref();
    let command = match asked.and_then(|asked| asked.test.as_ref()) {
        Some(HealthTest::Disabled) => return None,
        Some(HealthTest::Exec(command)) => command.clone(),
        Some(HealthTest::Shell(line)) => shell(image, line),
        None => image_test(image)?,
    };
    let pick = |asked: Option<Duration>, nanos: Option<u64>, default: u64| {
        let of_image = nanos.filter(|nanos| *nanos > 0).map(Duration::from_nanos);
        asked.or(of_image).unwrap_or(Duration::from_secs(default))
    };
    let of_image = image.healthcheck.as_ref();
    let retries = base.and_then(|base| u32::try_from(base.retries).ok()).filter(|n| *n > 0);
    Some(HealthDefinition {
        command,
        interval: pick(asked.and_then(|a| a.interval), of_image.map(|i| i.interval), 30),
        timeout: pick(asked.and_then(|a| a.timeout), of_image.map(|i| i.timeout), 30),
        retries: asked.and_then(|a| a.retries).or(retries).unwrap_or(3).max(1),
        start_period: pick(asked.and_then(|a| a.start_period), of_image.map(|i| i.start_period), 0),
        start_interval: pick(
            asked.and_then(|a| a.start_interval),
            of_image.map(|i| i.start_interval),
            5,
        ),
    })
}

fn image_test(image: &ExecutionConfig) -> Option<Vec<String>> {
    let (kind, rest) = image.healthcheck.as_ref()?.test.split_first()?;
    match kind.as_str() {
        "CMD" if !rest.is_empty() => Some(rest.to_vec()),
        "CMD-SHELL" => Some(shell(image, rest.first()?)),
        _ => None,
    }
}

fn shell(image: &ExecutionConfig, line: &str) -> Vec<String> {
    let default = ["/bin/sh".to_owned(), "-c".to_owned()];
    let shell: &[String] = if image.shell.is_empty() { &default } else { &image.shell };
    shell.iter().cloned().chain([line.to_owned()]).collect()
}

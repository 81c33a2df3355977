//! One entry of `services`.

use std::time::Duration;

use super::application::{
    Condition, Dependency, EnvFile, HealthTest, Healthcheck, PidsLimit, Restart, SeccompMode,
    SecurityOptions, Service,
};
use super::reading::Reading;
use super::{build, mounts, ports};
use crate::cursor::Cursor;
use carrack_oci::Reference;
use indexmap::IndexMap;

/// How long a container may take to stop when nothing else is said.
const STOP_GRACE_PERIOD: Duration = Duration::from_secs(10);

/// The service account of the doors into a project; no service may take it.
const INGRESS: &str = "carrack-ingress";

/// Containers one service may have.
const REPLICAS_MAX: u32 = 250;

/// Reads the service called `name`.
pub(super) fn read(reading: &mut Reading<'_>, name: &str, at: &Cursor<'_>) -> Option<Service> {
    check_name(reading, name, at);
    if !at.is_mapping() {
        reading.wrong(at, format_args!("takes a mapping, not {}", at.node.kind()));
        return None;
    }
    let build = at.get("build").and_then(|at| build::read(reading, &at));
    let image = at.get("image").and_then(|at| image(reading, &at));
    if at.get("build").is_none() && at.get("image").is_none() {
        reading.wrong(at, "has neither `image` nor `build`");
    }
    networks(reading, at);
    let limits =
        at.get("deploy").and_then(|at| at.get("resources")).and_then(|at| at.get("limits"));
    let limit = |field: &str| limits.as_ref().and_then(|at| at.get(field));
    Some(Service {
        name: name.to_owned(),
        image,
        build,
        command: at.get("command").and_then(|at| reading.command(&at)),
        entrypoint: at.get("entrypoint").and_then(|at| reading.command(&at)),
        environment: at.get("environment").map(|at| reading.variables(&at)).unwrap_or_default(),
        env_files: at.get("env_file").map(|at| env_files(reading, &at)).unwrap_or_default(),
        ports: listed(reading, at, "ports")
            .iter()
            .flat_map(|at| ports::read(reading, at))
            .collect(),
        expose: listed(reading, at, "expose")
            .iter()
            .flat_map(|at| ports::expose(reading, at))
            .collect(),
        mounts: mounts(reading, at),
        depends_on: at.get("depends_on").map(|at| depends_on(reading, &at)).unwrap_or_default(),
        healthcheck: at.get("healthcheck").and_then(|at| healthcheck(reading, &at)),
        restart: at.get("restart").and_then(|at| restart(reading, &at)).unwrap_or_default(),
        user: at.get("user").and_then(|at| reading.text(&at)),
        working_dir: at.get("working_dir").and_then(|at| {
            let path = reading.text(&at)?;
            reading.container_path(&at, &path)
        }),
        read_only: flag(reading, at, "read_only"),
        cap_add: capabilities(reading, at, "cap_add"),
        cap_drop: capabilities(reading, at, "cap_drop"),
        security: at.get("security_opt").map(|at| security(reading, &at)).unwrap_or_default(),
        mem_limit: either(reading, at.get("mem_limit"), limit("memory"), Reading::bytes),
        nano_cpus: either(reading, at.get("cpus"), limit("cpus"), Reading::nano_cpus)
            .filter(|cpus| *cpus != 0),
        pids_limit: either(reading, at.get("pids_limit"), limit("pids"), pids_limit),
        replicas: replicas(reading, at),
        labels: at.get("labels").map(|at| reading.labels(&at)).unwrap_or_default(),
        stop_signal: at.get("stop_signal").and_then(|at| {
            reading.parsed(&at, "a signal such as `SIGTERM`", |text| {
                is_signal(text).then(|| text.to_owned())
            })
        }),
        stop_grace_period: at
            .get("stop_grace_period")
            .and_then(|at| reading.duration(&at))
            .unwrap_or(STOP_GRACE_PERIOD),
        init: flag(reading, at, "init"),
    })
}

fn image(reading: &mut Reading<'_>, at: &Cursor<'_>) -> Option<String> {
    let written = reading.text(at)?;
    match written.parse::<Reference>() {
        Ok(_) => Some(written),
        Err(error) => {
            reading.wrong(at, format_args!("is no image name: {error}"));
            None
        }
    }
}

/// A service's name is a host name and part of a SPIFFE ID.
fn check_name(reading: &mut Reading<'_>, name: &str, at: &Cursor<'_>) {
    let fits = name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    if !fits {
        let message = format!(
            "the service name `{name}` takes up to 63 letters, digits, `-` and `_`, first and last a letter or digit"
        );
        reading.problem_at(at.key_place, message);
    }
    if name == INGRESS {
        let message = format!("the service name `{INGRESS}` is that of the project's own doors");
        reading.problem_at(at.key_place, message);
    }
}

fn listed<'n>(reading: &mut Reading<'_>, at: &Cursor<'n>, field: &str) -> Vec<Cursor<'n>> {
    let Some(at) = at.get(field) else { return Vec::new() };
    if !at.is_sequence() {
        reading.wrong(&at, format_args!("takes a list, not {}", at.node.kind()));
    }
    at.items()
}

fn flag(reading: &mut Reading<'_>, at: &Cursor<'_>, field: &str) -> bool {
    at.get(field).and_then(|at| reading.boolean(&at)).unwrap_or(false)
}

/// A value that may stand in two places, but not in both.
fn either<'a, T>(
    reading: &mut Reading<'a>,
    short: Option<Cursor<'_>>,
    deploy: Option<Cursor<'_>>,
    read: impl FnOnce(&mut Reading<'a>, &Cursor<'_>) -> Option<T>,
) -> Option<T> {
    if let (Some(short), Some(deploy)) = (&short, &deploy) {
        reading.wrong(deploy, format_args!("and `{}` exclude each other", short.path));
    }
    read(reading, &short.or(deploy)?)
}

fn networks(reading: &mut Reading<'_>, at: &Cursor<'_>) {
    let Some(at) = at.get("networks") else { return };
    let named: Vec<(String, Cursor<'_>)> = if at.is_sequence() {
        at.items().into_iter().filter_map(|item| Some((item.scalar()?.to_owned(), item))).collect()
    } else {
        at.entries()
    };
    for (name, at) in named {
        if name != "default" {
            let message = format!(
                "`{}` names the network `{name}`, which is not supported yet: a project has one network, `default`",
                at.path
            );
            reading.problem_at(at.key_place, message);
        }
    }
}

fn env_files(reading: &mut Reading<'_>, at: &Cursor<'_>) -> Vec<EnvFile> {
    let items = if at.is_sequence() { at.items() } else { vec![at.clone()] };
    let mut files = Vec::new();
    for at in items {
        let path_at = if at.is_mapping() { at.get("path") } else { Some(at.clone()) };
        let Some(path_at) = path_at else {
            reading.wrong(&at, "lacks `path`");
            continue;
        };
        let Some(path) = reading.text(&path_at) else { continue };
        files.push(EnvFile {
            path: reading.host_path(&path),
            required: at.get("required").and_then(|at| reading.boolean(&at)).unwrap_or(true),
            raw: at.get("format").is_some(),
        });
    }
    files
}

fn mounts(reading: &mut Reading<'_>, at: &Cursor<'_>) -> Vec<super::Mount> {
    let mut found = Vec::new();
    for at in listed(reading, at, "volumes") {
        found.extend(mounts::read(reading, &at).map(|mount| (mount, at)));
    }
    if let Some(at) = at.get("tmpfs") {
        for at in reading.one_or_many(&at) {
            found.extend(mounts::tmpfs(reading, &at).map(|mount| (mount, at)));
        }
    }
    let mut mounts: Vec<super::Mount> = Vec::new();
    for (mount, at) in found {
        let same = |other: &super::Mount| {
            other.target.trim_end_matches('/') == mount.target.trim_end_matches('/')
        };
        if mounts.iter().any(same) {
            reading.wrong(&at, format_args!("mounts on `{}` a second time", mount.target));
        }
        mounts.push(mount);
    }
    mounts
}

fn depends_on(reading: &mut Reading<'_>, at: &Cursor<'_>) -> IndexMap<String, Dependency> {
    let started = Dependency { condition: Condition::Started, restart: false, required: true };
    if at.is_sequence() {
        return reading.list(at).into_iter().map(|name| (name, started)).collect();
    }
    if !at.is_mapping() {
        reading.wrong(at, format_args!("takes a list or a mapping, not {}", at.node.kind()));
    }
    let mut dependencies = IndexMap::new();
    for (name, at) in at.entries() {
        let condition = at.get("condition").and_then(|at| {
            reading.parsed(
                &at,
                "`service_started`, `service_healthy` or `service_completed_successfully`",
                |text| match text {
                    "service_started" => Some(Condition::Started),
                    "service_healthy" => Some(Condition::Healthy),
                    "service_completed_successfully" => Some(Condition::CompletedSuccessfully),
                    _ => None,
                },
            )
        });
        let dependency = Dependency {
            condition: condition.unwrap_or(Condition::Started),
            restart: flag(reading, &at, "restart"),
            required: at.get("required").and_then(|at| reading.boolean(&at)).unwrap_or(true),
        };
        dependencies.insert(name, dependency);
    }
    dependencies
}

fn healthcheck(reading: &mut Reading<'_>, at: &Cursor<'_>) -> Option<Healthcheck> {
    if !at.is_mapping() {
        reading.wrong(at, format_args!("takes a mapping, not {}", at.node.kind()));
        return None;
    }
    let test = if flag(reading, at, "disable") {
        Some(HealthTest::Disabled)
    } else {
        at.get("test").and_then(|at| health_test(reading, &at))
    };
    let mut duration = |field: &str| at.get(field).and_then(|at| reading.duration(&at));
    let interval = duration("interval");
    let timeout = duration("timeout");
    let start_period = duration("start_period");
    let start_interval = duration("start_interval");
    let retries = at.get("retries").and_then(|at| {
        reading.parsed(&at, "a number of at least 1", |text| text.parse().ok().filter(|n| *n > 0))
    });
    Some(Healthcheck { test, interval, timeout, retries, start_period, start_interval })
}

fn health_test(reading: &mut Reading<'_>, at: &Cursor<'_>) -> Option<HealthTest> {
    if !at.is_sequence() {
        return reading.text(at).map(HealthTest::Shell);
    }
    let words = reading.list(at);
    match words.split_first() {
        Some((first, [])) if first == "NONE" => Some(HealthTest::Disabled),
        Some((first, [line])) if first == "CMD-SHELL" => Some(HealthTest::Shell(line.clone())),
        Some((first, rest @ [_, ..])) if first == "CMD" => Some(HealthTest::Exec(rest.to_vec())),
        _ => {
            reading.wrong(at, "takes `[CMD, PROGRAM, …]`, `[CMD-SHELL, LINE]` or `[NONE]`");
            None
        }
    }
}

fn restart(reading: &mut Reading<'_>, at: &Cursor<'_>) -> Option<Restart> {
    reading.parsed(at, "`no`, `always`, `on-failure[:TIMES]` or `unless-stopped`", |text| {
        match text {
            // YAML 1.1 reads a plain `no` as false, and some tools write it back so.
            "no" | "false" | "" => Some(Restart::No),
            "always" => Some(Restart::Always),
            "unless-stopped" => Some(Restart::UnlessStopped),
            "on-failure" => Some(Restart::OnFailure { max_retries: None }),
            _ => {
                let times = text.strip_prefix("on-failure:")?.parse().ok()?;
                Some(Restart::OnFailure { max_retries: Some(times) })
            }
        }
    })
}

fn capabilities(reading: &mut Reading<'_>, at: &Cursor<'_>, field: &str) -> Vec<String> {
    let Some(at) = at.get(field) else { return Vec::new() };
    let names = reading.list(&at);
    let mut capabilities = Vec::new();
    for name in names {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned();
        if bare != "ALL" && !CAPABILITIES.contains(&bare.as_str()) {
            reading.wrong(&at, format_args!("names `{name}`, which is no capability"));
        }
        capabilities.push(bare);
    }
    capabilities
}

/// Capabilities by name, in the kernel's order.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

fn security(reading: &mut Reading<'_>, at: &Cursor<'_>) -> SecurityOptions {
    let mut security = SecurityOptions::default();
    for option in reading.list(at) {
        match option.replace('=', ":").as_str() {
            "no-new-privileges" | "no-new-privileges:true" => security.no_new_privileges = true,
            "no-new-privileges:false" => security.no_new_privileges = false,
            "seccomp:unconfined" => security.seccomp = SeccompMode::Unconfined,
            // No profile or label is put on a container, so asking for none changes nothing.
            "apparmor:unconfined" | "label:disable" => {}
            _ => reading.wrong(at, format_args!("holds `{option}`, which is not supported yet")),
        }
    }
    security
}

fn pids_limit(reading: &mut Reading<'_>, at: &Cursor<'_>) -> Option<PidsLimit> {
    reading.parsed(at, "a number of processes, or -1", |text| match text.parse::<i64>().ok()? {
        -1 | 0 => Some(PidsLimit::Unlimited),
        limit => u32::try_from(limit).ok().map(PidsLimit::AtMost),
    })
}

fn replicas(reading: &mut Reading<'_>, at: &Cursor<'_>) -> u32 {
    let deploy = at.get("deploy").and_then(|at| at.get("replicas"));
    either(reading, at.get("scale"), deploy, |reading, at| {
        reading.parsed(at, "a number of at most 250", |text| {
            text.parse().ok().filter(|replicas| *replicas <= REPLICAS_MAX)
        })
    })
    .unwrap_or(1)
}

/// A signal's number, or a name; which names there are the engine knows.
fn is_signal(text: &str) -> bool {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    match name.parse::<u8>() {
        Ok(number) => (1..=64).contains(&number),
        Err(_) => SIGNALS.contains(&name) || real_time(name),
    }
}

fn real_time(name: &str) -> bool {
    let offset = |prefix: &str| -> Option<u8> {
        let rest = name.strip_prefix(prefix)?;
        if rest.is_empty() { Some(0) } else { rest.get(1..)?.parse().ok() }
    };
    offset("RTMIN").or_else(|| offset("RTMAX")).is_some_and(|offset| offset <= 30)
}

const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

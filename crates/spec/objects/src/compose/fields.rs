//! Every field of the Compose specification, and what becomes of it here.
//!
//! One table says it all: the check walks a file along it, and the reference
//! page is printed from it, so the page cannot say something else than the
//! program does. In a path `*` stands for a name a person chose and `[]` for an
//! item of a list. A field whose parent is refused has no line of its own.

use super::reading::Reading;
use crate::cursor::Cursor;
use crate::yaml::Value;

/// A field of the Compose specification.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Where it stands, such as `services.*.build.context`.
    pub path: &'static str,
    /// What becomes of it.
    pub support: Support,
}

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It does what the specification says; with a note on what is special here.
    Works(&'static str),
    /// Only these values are accepted, for they ask for what happens anyway.
    Only(&'static [&'static str], &'static str),
    /// Accepted, because it means nothing here; why.
    NoEffect(&'static str),
    /// Refused; why, or what to use in its place.
    Refused(&'static str),
}

use Support::{NoEffect, Only, Refused, Works};

const fn field(path: &'static str, support: Support) -> Field {
    Field { path, support }
}

const WINDOWS: Support = Refused("it is for Windows containers");
const SWARM: Support = Refused("it is for a cluster of machines");
const LATER: Support = Refused("");
const W: Support = Works("");

/// Every field, in the order of the reference page.
pub static FIELDS: &[Field] = &[
    field("version", NoEffect("the specification has no versions any more")),
    field("name", Works("lower case letters, digits, `-` and `_`, first a letter or digit")),
    field("include", LATER),
    field("services", W),
    field("models", LATER),
    field("networks", Works("only the network `default`")),
    field("volumes", W),
    field("secrets", Refused("mount a file with `volumes`")),
    field("configs", Refused("mount a file with `volumes`")),
    // --- services
    field("services.*.annotations", LATER),
    field("services.*.attach", Only(&["true"], "`up` shows the logs of every service")),
    field("services.*.blkio_config", LATER),
    field("services.*.build", W),
    field("services.*.cap_add", W),
    field("services.*.cap_drop", W),
    field("services.*.cgroup", Only(&["private"], "every container has a cgroup namespace")),
    field("services.*.cgroup_parent", LATER),
    field("services.*.command", W),
    field("services.*.configs", Refused("mount a file with `volumes`")),
    field("services.*.container_name", Refused("containers are named `<project>-<service>-<n>`")),
    field("services.*.cpu_count", WINDOWS),
    field("services.*.cpu_percent", WINDOWS),
    field("services.*.cpu_period", Refused("use `cpus`")),
    field("services.*.cpu_quota", Refused("use `cpus`")),
    field("services.*.cpu_rt_period", LATER),
    field("services.*.cpu_rt_runtime", LATER),
    field("services.*.cpu_shares", LATER),
    field("services.*.cpus", W),
    field("services.*.cpuset", LATER),
    field("services.*.credential_spec", WINDOWS),
    field("services.*.depends_on", W),
    field("services.*.depends_on.*.condition", W),
    field("services.*.depends_on.*.required", W),
    field("services.*.depends_on.*.restart", W),
    field("services.*.deploy", W),
    field("services.*.develop", NoEffect("it configures `watch` alone")),
    field("services.*.device_cgroup_rules", LATER),
    field("services.*.devices", LATER),
    field(
        "services.*.dns",
        Refused("names are answered by the engine, others forwarded to the host's servers"),
    ),
    field("services.*.dns_opt", LATER),
    field("services.*.dns_search", LATER),
    field("services.*.domainname", LATER),
    field("services.*.entrypoint", W),
    field("services.*.env_file", W),
    field("services.*.environment", W),
    field(
        "services.*.expose",
        Works("TCP ports; containers of a project reach each other on every port"),
    ),
    field("services.*.extends", Refused("use a YAML anchor and `<<`")),
    field("services.*.external_links", LATER),
    field("services.*.extra_hosts", LATER),
    field("services.*.gpus", LATER),
    field("services.*.group_add", LATER),
    field("services.*.healthcheck", W),
    field("services.*.hostname", Refused("a container's host name is the start of its id")),
    field(
        "services.*.image",
        Works("an image of the local store, or the name of what `build` makes"),
    ),
    field("services.*.init", W),
    field("services.*.ipc", Only(&["private"], "every container has an IPC namespace")),
    field("services.*.isolation", Only(&["default"], "")),
    field("services.*.label_file", LATER),
    field("services.*.labels", Works("policies select workloads by them")),
    field("services.*.links", Refused("services find each other by name")),
    field("services.*.logging", Refused("logs are kept by the engine with a bound on their size")),
    field("services.*.mac_address", LATER),
    field("services.*.mem_limit", W),
    field("services.*.mem_reservation", LATER),
    field("services.*.mem_swappiness", LATER),
    field("services.*.memswap_limit", LATER),
    field("services.*.models", LATER),
    field("services.*.network_mode", Refused("every container is in the mesh")),
    field("services.*.networks", Works("only the network `default`")),
    field("services.*.oom_kill_disable", Only(&["false"], "")),
    field("services.*.oom_score_adj", LATER),
    field("services.*.pid", LATER),
    field("services.*.pids_limit", W),
    field("services.*.platform", Refused("images are built for this machine and run on it")),
    field("services.*.ports", Works("TCP; on 127.0.0.1 unless a host address is given")),
    field("services.*.post_start", LATER),
    field("services.*.pre_start", LATER),
    field("services.*.pre_stop", LATER),
    field("services.*.privileged", Only(&["false"], "use `cap_add`")),
    field("services.*.profiles", LATER),
    field("services.*.provider", LATER),
    field(
        "services.*.pull_policy",
        Only(&["never", "missing", "if_not_present", "build"], "images come from the local store"),
    ),
    field("services.*.pull_refresh_after", Refused("images come from the local store")),
    field("services.*.read_only", W),
    field("services.*.restart", W),
    field("services.*.runtime", Refused("containers run in the runtime this program brings")),
    field("services.*.scale", Works("the same as `deploy.replicas`")),
    field("services.*.secrets", Refused("mount a file with `volumes`")),
    field(
        "services.*.security_opt",
        Works("`no-new-privileges`, `seccomp:unconfined`, `apparmor:unconfined`, `label:disable`"),
    ),
    field("services.*.shm_size", Refused("mount a `tmpfs` with a size on /dev/shm")),
    field("services.*.stdin_open", Only(&["false"], "use `carrack run -i`")),
    field("services.*.stop_grace_period", W),
    field("services.*.stop_signal", W),
    field("services.*.storage_opt", LATER),
    field("services.*.sysctls", LATER),
    field(
        "services.*.tmpfs",
        Works("mounted `nosuid,nodev,noexec`; with the options `size`, `mode`, `ro`"),
    ),
    field("services.*.tty", Only(&["false"], "use `carrack run -t`")),
    field("services.*.ulimits", LATER),
    field("services.*.use_api_socket", Only(&["false"], "there is no Docker socket")),
    field("services.*.user", W),
    field("services.*.userns_mode", LATER),
    field("services.*.uts", LATER),
    field("services.*.volumes", W),
    field("services.*.volumes_from", Refused("name the volumes")),
    field("services.*.working_dir", W),
    // --- build
    field(
        "services.*.build.additional_contexts",
        Works("`recipe://PATH`, `service:NAME`, `docker-image://NAME` or a directory"),
    ),
    field("services.*.build.args", W),
    field("services.*.build.cache_from", LATER),
    field("services.*.build.cache_to", LATER),
    field("services.*.build.context", Works("a directory; URLs are refused")),
    field("services.*.build.dockerfile", W),
    field("services.*.build.dockerfile_inline", W),
    field("services.*.build.entitlements", LATER),
    field("services.*.build.extra_hosts", LATER),
    field("services.*.build.isolation", WINDOWS),
    field("services.*.build.labels", W),
    field("services.*.build.network", LATER),
    field("services.*.build.no_cache", W),
    field("services.*.build.no_cache_filter", LATER),
    field("services.*.build.platforms", Refused("images are built for this machine")),
    field("services.*.build.privileged", Only(&["false"], "")),
    field("services.*.build.provenance", Only(&["false"], "")),
    field("services.*.build.pull", Only(&["false"], "images come from the local store")),
    field("services.*.build.sbom", Only(&["false"], "")),
    field("services.*.build.secrets", LATER),
    field("services.*.build.shm_size", LATER),
    field("services.*.build.ssh", LATER),
    field("services.*.build.tags", W),
    field("services.*.build.target", W),
    field("services.*.build.ulimits", LATER),
    // --- deploy
    field(
        "services.*.deploy.endpoint_mode",
        Only(&["vip"], "a service's name answers with one address"),
    ),
    field(
        "services.*.deploy.labels",
        NoEffect("they are on a cluster's service; containers take `labels`"),
    ),
    field("services.*.deploy.mode", Only(&["replicated"], "")),
    field("services.*.deploy.placement", SWARM),
    field("services.*.deploy.replicas", W),
    field("services.*.deploy.resources", W),
    field("services.*.deploy.resources.limits", W),
    field("services.*.deploy.resources.limits.cpus", Works("the same as `cpus`")),
    field("services.*.deploy.resources.limits.memory", Works("the same as `mem_limit`")),
    field("services.*.deploy.resources.limits.pids", Works("the same as `pids_limit`")),
    field("services.*.deploy.resources.reservations", SWARM),
    field("services.*.deploy.restart_policy", Refused("use `restart`")),
    field("services.*.deploy.rollback_config", SWARM),
    field("services.*.deploy.update_config", SWARM),
    // --- env_file
    field(
        "services.*.env_file[].format",
        Only(&["raw"], "absent, the file is read as Compose reads it"),
    ),
    field("services.*.env_file[].path", W),
    field("services.*.env_file[].required", W),
    // --- healthcheck
    field("services.*.healthcheck.disable", W),
    field("services.*.healthcheck.interval", W),
    field("services.*.healthcheck.retries", W),
    field("services.*.healthcheck.start_interval", W),
    field("services.*.healthcheck.start_period", W),
    field("services.*.healthcheck.test", W),
    field("services.*.healthcheck.timeout", W),
    // --- networks of a service
    field("services.*.networks.*.aliases", LATER),
    field("services.*.networks.*.driver_opts", LATER),
    field("services.*.networks.*.gw_priority", LATER),
    field("services.*.networks.*.interface_name", LATER),
    field("services.*.networks.*.ipv4_address", LATER),
    field("services.*.networks.*.ipv6_address", LATER),
    field("services.*.networks.*.link_local_ips", LATER),
    field("services.*.networks.*.mac_address", LATER),
    field("services.*.networks.*.priority", NoEffect("there is one network")),
    // --- ports
    field(
        "services.*.ports[].app_protocol",
        Works("`http`, `http2` (also `h2c`, `grpc`) or `tcp`; detected when absent"),
    ),
    field("services.*.ports[].host_ip", W),
    field(
        "services.*.ports[].mode",
        Only(&["host", "ingress"], "the node proxy listens either way"),
    ),
    field("services.*.ports[].name", NoEffect("it is for people")),
    field("services.*.ports[].protocol", Only(&["tcp"], "the mesh carries TCP")),
    field("services.*.ports[].published", W),
    field("services.*.ports[].target", W),
    // --- volumes of a service
    field("services.*.volumes[].bind", W),
    field("services.*.volumes[].bind.create_host_path", W),
    field("services.*.volumes[].bind.propagation", Only(&["rprivate", "private"], "")),
    field("services.*.volumes[].bind.recursive", Only(&["enabled"], "")),
    field("services.*.volumes[].bind.selinux", NoEffect("files are not relabeled")),
    field(
        "services.*.volumes[].consistency",
        NoEffect("it is for hosts whose files are shared over a network"),
    ),
    field("services.*.volumes[].image", LATER),
    field("services.*.volumes[].read_only", W),
    field("services.*.volumes[].source", W),
    field("services.*.volumes[].target", W),
    field("services.*.volumes[].tmpfs", W),
    field("services.*.volumes[].tmpfs.mode", W),
    field("services.*.volumes[].tmpfs.size", W),
    field("services.*.volumes[].type", Works("`bind`, `volume` or `tmpfs`")),
    field("services.*.volumes[].volume", W),
    field("services.*.volumes[].volume.labels", LATER),
    field("services.*.volumes[].volume.nocopy", W),
    field("services.*.volumes[].volume.subpath", LATER),
    // --- networks
    field("networks.*.attachable", Only(&["true", "false"], "")),
    field("networks.*.driver", Only(&["bridge", "default"], "")),
    field("networks.*.driver_opts", LATER),
    field("networks.*.enable_ipv4", Only(&["true"], "")),
    field("networks.*.enable_ipv6", Only(&["false"], "")),
    field("networks.*.external", Only(&["false"], "")),
    field("networks.*.internal", Only(&["false"], "")),
    field("networks.*.ipam", LATER),
    field("networks.*.labels", NoEffect("nothing reads them")),
    field("networks.*.name", LATER),
    // --- volumes
    field("volumes.*.driver", Only(&["local"], "")),
    field("volumes.*.driver_opts", LATER),
    field("volumes.*.external", W),
    field("volumes.*.external.name", Refused("use `name` beside `external: true`")),
    field("volumes.*.labels", W),
    field("volumes.*.name", W),
];

/// Finds every field of `root` that is unknown or refused.
pub(super) fn check(reading: &mut Reading<'_>, root: &Cursor<'_>) {
    walk(reading, root, "");
}

/// Walks what stands under `pattern`, a path of the table.
fn walk(reading: &mut Reading<'_>, at: &Cursor<'_>, pattern: &str) {
    match &at.node.value {
        Value::Scalar { .. } => {}
        Value::Sequence(_) => {
            let pattern = format!("{pattern}[]");
            if has_fields_under(&pattern) {
                for item in at.items() {
                    walk(reading, &item, &pattern);
                }
            }
        }
        Value::Mapping(_) if has_fields_under(&format!("{pattern}.*")) || names_follow(pattern) => {
            let pattern = format!("{pattern}.*");
            for (_, child) in at.entries() {
                walk(reading, &child, &pattern);
            }
        }
        Value::Mapping(_) if has_fields_under(pattern) => {
            for (key, child) in at.entries() {
                if !key.starts_with("x-") {
                    judge(reading, &key, &child, &join(pattern, &key));
                }
            }
        }
        // A mapping of names a person chose to plain values: labels, variables.
        Value::Mapping(_) => {}
    }
}

/// Mappings whose keys are names although nothing below them has a line.
fn names_follow(pattern: &str) -> bool {
    matches!(pattern, "services" | "networks" | "volumes")
}

fn judge(reading: &mut Reading<'_>, key: &str, child: &Cursor<'_>, pattern: &str) {
    let Some(field) = FIELDS.iter().find(|field| field.path == pattern) else {
        let hint = nearest(pattern).map(|near| format!("; did you mean `{near}`?"));
        let message = format!(
            "`{}` is not a field of the Compose specification{}",
            child.path,
            hint.unwrap_or_default()
        );
        reading.problem_at(child.key_place, message);
        return;
    };
    match field.support {
        Works(_) => walk(reading, child, pattern),
        NoEffect(_) => {}
        Only(values, why) => {
            let allowed = child.node.is_null()
                || child
                    .scalar()
                    .is_some_and(|text| values.contains(&text.to_ascii_lowercase().as_str()));
            if !allowed {
                let values = values.join("` or `");
                let message = format!(
                    "`{}` is not supported yet but as `{values}`{}",
                    child.path,
                    reason(why)
                );
                reading.problem_at(child.key_place, message);
            }
        }
        Refused(why) => {
            let message = format!("`{}` is not supported yet{}", child.path, reason(why));
            reading.problem_at(child.key_place, message);
        }
    }
    debug_assert!(pattern.ends_with(key), "the pattern ends in the key");
}

fn reason(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(": {why}") }
}

fn join(pattern: &str, key: &str) -> String {
    if pattern.is_empty() { key.to_owned() } else { format!("{pattern}.{key}") }
}

fn has_fields_under(pattern: &str) -> bool {
    FIELDS.iter().any(|field| match field.path.strip_prefix(pattern) {
        Some(rest) => pattern.is_empty() || rest.starts_with('.'),
        None => false,
    })
}

/// The sibling whose name looks most like the last word of `pattern`.
fn nearest(pattern: &str) -> Option<&'static str> {
    let (parent, word) = match pattern.rsplit_once('.') {
        Some((parent, word)) => (format!("{parent}."), word),
        None => (String::new(), pattern),
    };
    FIELDS
        .iter()
        .filter_map(|field| field.path.strip_prefix(parent.as_str()))
        .filter(|sibling| !sibling.contains(['.', '[']))
        .map(|sibling| (distance(word, sibling), sibling))
        .filter(|&(distance, sibling)| distance <= 1 + sibling.len() / 5)
        .min()
        .map(|(_, sibling)| sibling)
}

/// How many letters have to change for one word to become the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in b.iter().enumerate() {
            let change = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

/// The reference page of supported fields, as Markdown.
pub fn reference() -> String {
    let mut page = String::from(
        "# Compose fields\n\n\
         Generated from `crates/spec/objects/src/compose/fields.rs`; do not edit.\n\n\
         Every field of the [Compose specification](https://compose-spec.io) is here. One that is \
         refused stops `carrack up` with its file, line and column; nothing is ignored in silence. \
         Fields whose names begin with `x-` are accepted everywhere. `*` stands for a name you \
         chose, `[]` for an item of a list.\n\n\
         | field | here | |\n|---|---|---|\n",
    );
    for Field { path, support } in FIELDS {
        let (word, note) = match support {
            Works(note) => ("works", (*note).to_owned()),
            NoEffect(why) => ("accepted, no effect", (*why).to_owned()),
            Refused(why) => ("refused", (*why).to_owned()),
            Only(values, why) => {
                ("works in part", format!("only as `{}`{}", values.join("` or `"), reason(why)))
            }
        };
        page.push_str(&format!("| `{path}` | {word} | {note} |\n"));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_stands_in_the_table_twice() {
        let mut paths: Vec<_> = FIELDS.iter().map(|field| field.path).collect();
        paths.sort_unstable();
        let count = paths.len();
        paths.dedup();
        assert_eq!(paths.len(), count);
    }

    #[test]
    fn a_field_below_another_has_a_parent_that_works() {
        for field in FIELDS {
            let Some((parent, _)) = field.path.rsplit_once('.') else { continue };
            let parent = parent.trim_end_matches(".*").trim_end_matches("[]");
            let parent = FIELDS.iter().find(|f| f.path == parent).expect(field.path);
            assert!(matches!(parent.support, Works(_)), "{} under {}", field.path, parent.path);
        }
    }

    #[test]
    fn the_reference_page_says_what_the_table_says() {
        let page = include_str!("../../../../../docs/reference/compose.md");
        assert!(
            page == reference(),
            "docs/reference/compose.md is out of date; write it again with \
             `cargo run -p carrack-objects --example compose-reference > docs/reference/compose.md`"
        );
    }

    #[test]
    fn the_nearest_name_is_offered() {
        assert_eq!(nearest("services.*.comand"), Some("command"));
        assert_eq!(nearest("services.*.health_check"), Some("healthcheck"));
        assert_eq!(nearest("services.*.zzz"), None);
    }
}

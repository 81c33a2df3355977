//! `carrack run`: one container from one command line, in Docker's spelling.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use carrack_engine::api::{AttachRequest, RemoveRequest, RunRequest};
use carrack_engine::client::EngineClient;
use carrack_objects::compose::{Mount, MountKind, PidsLimit, Port, Restart, Volume};
use indexmap::IndexMap;

use super::daemon;
use super::streams::{self, Join};
use crate::settings::Settings;
use crate::{exit, output};

/// Run a command in a new container
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    carrack run --rm -it shop-edge sh\n  \
    carrack run -d -p 8080:80 --name web nginx\n\n\
    Published ports listen on 127.0.0.1 unless an address is given: -p 0.0.0.0:8080:80")]
pub(crate) struct RunArgs {
    /// Print the id and go on; do not wait for the end
    #[arg(short, long)]
    detach: bool,
    /// Keep stdin open
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Remove the container when it has ended
    #[arg(long)]
    rm: bool,
    /// Name of the container
    #[arg(long)]
    name: Option<String>,
    /// Set a variable; without a value, take it from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Publish a container's port: [ADDRESS:][HOST:]CONTAINER
    #[arg(short, long, value_name = "PORT")]
    publish: Vec<String>,
    /// Mount: /HOST/PATH:/PATH[:ro] or VOLUME:/PATH[:ro]
    #[arg(short, long, value_name = "MOUNT")]
    volume: Vec<String>,
    /// Mount an empty tmpfs at this path
    #[arg(long, value_name = "PATH")]
    tmpfs: Vec<String>,
    /// User, as `name`, `uid`, `name:group` or `uid:gid`
    #[arg(short, long)]
    user: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Program in place of the image's entry point
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Memory it may use, such as `512m`
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<String>,
    /// CPUs it may use, such as `1.5`
    #[arg(long, value_name = "COUNT")]
    cpus: Option<String>,
    /// Processes it may have; -1 is no limit
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Add a capability
    #[arg(long, value_name = "NAME")]
    cap_add: Vec<String>,
    /// Take a capability away
    #[arg(long, value_name = "NAME")]
    cap_drop: Vec<String>,
    /// Make the root filesystem read-only
    #[arg(long)]
    read_only: bool,
    /// no | always | unless-stopped | on-failure[:MAX]
    #[arg(long, value_name = "POLICY", default_value = "no")]
    restart: String,
    /// Put a small init in front of the command
    #[arg(long)]
    init: bool,
    /// Set a label
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// Host name [default: the short id]
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Join this project's network and namespace of identities
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Image to run
    image: String,
    /// Command and arguments [default: the image's own]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl RunArgs {
    pub(crate) async fn execute(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let join = Join { stdin: self.interactive, terminal: self.tty };
        if !self.detach {
            streams::check_terminal(join)?;
        }
        let request = self.request()?;
        let client = daemon::client(settings).await?;
        let created = client.create(&request).await.map_err(streams::refusal)?;
        for warning in &created.warnings {
            output::message(warning);
        }
        let outcome = if self.detach {
            let started = client.start(&created.id).await.map_err(streams::refusal);
            started.map(|()| {
                output::line(&created.id);
                ExitCode::SUCCESS
            })
        } else {
            self.attached(&client, &created.id, join).await
        };
        if outcome.is_err() && self.rm {
            // It never ran, so nothing else removes it.
            let request = RemoveRequest { force: true, volumes: true };
            client.rm(&created.id, &request).await.ok(); // Removed already, or why is said above.
        }
        outcome
    }

    async fn attached(
        &self,
        client: &EngineClient,
        id: &str,
        join: Join,
    ) -> anyhow::Result<ExitCode> {
        let attach = AttachRequest {
            start: true,
            stdin: self.interactive,
            size: streams::terminal_size().filter(|_| self.tty),
        };
        let session = client.attach(id, &attach).await.map_err(streams::refusal)?;
        let exit = streams::join(session, join).await.map_err(streams::refusal)?;
        Ok(streams::code_of(&exit))
    }

    fn request(&self) -> anyhow::Result<RunRequest> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => format!("{}-{}", default_name(&self.image), six_digits()?),
        };
        let mut request = RunRequest::new(&name, &self.image);
        request.name.clone_from(&self.name);
        request.project.clone_from(&self.project);
        request.terminal = self.tty;
        request.interactive = self.interactive;
        request.auto_remove = self.rm;
        request.hostname.clone_from(&self.hostname);
        let service = &mut request.service;
        service.command = Some(self.command.clone()).filter(|command| !command.is_empty());
        service.entrypoint = self.entrypoint.clone().map(|program| vec![program]);
        service.environment = variables(&self.env);
        service.ports = self.publish.iter().map(|text| port(text)).collect::<Result<_, _>>()?;
        for text in &self.volume {
            let mount = mount(text)?;
            if let MountKind::Volume { name: Some(name), .. } = &mount.kind {
                let volume =
                    Volume { name: name.clone(), external: false, labels: IndexMap::new() };
                request.volumes.insert(name.clone(), volume);
            }
            service.mounts.push(mount);
        }
        service.mounts.extend(self.tmpfs.iter().map(|path| tmpfs(path)));
        service.user.clone_from(&self.user);
        service.working_dir.clone_from(&self.workdir);
        service.mem_limit = self.memory.as_deref().map(bytes).transpose()?;
        service.nano_cpus = self.cpus.as_deref().map(nano_cpus).transpose()?;
        service.pids_limit = self.pids_limit.map(pids_limit).transpose()?;
        service.cap_add.clone_from(&self.cap_add);
        service.cap_drop.clone_from(&self.cap_drop);
        service.read_only = self.read_only;
        service.restart = restart(&self.restart)?;
        service.init = self.init;
        service.labels = self.label.iter().map(|text| pair(text)).collect();
        Ok(request)
    }
}

/// Six hexadecimal digits that tell one unnamed container from another.
fn six_digits() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 3];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .context("asking for random bytes")?;
    Ok(hex::encode(bytes))
}

/// A service name out of an image's: its last part, as a DNS label.
fn default_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let stem = last.split([':', '@']).next().unwrap_or(last);
    let label: String = stem
        .chars()
        .map(
            |letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' },
        )
        .collect();
    label.trim_matches('-').to_owned()
}

/// `NAME=VALUE` pairs; a name alone takes its value from this environment, or is left out.
pub(crate) fn variables(given: &[String]) -> IndexMap<String, String> {
    let value = |text: &String| match text.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => Some((text.clone(), std::env::var(text).ok()?)),
    };
    given.iter().filter_map(value).collect()
}

fn pair(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (name.to_owned(), value.to_owned())
}

fn port(text: &str) -> anyhow::Result<Port> {
    let wrong = || {
        let form = "[ADDRESS:][HOST:]CONTAINER, each port a number, TCP only";
        exit::usage(format!("`-p {text}` is not understood; write {form}"))
    };
    let text = text.strip_suffix("/tcp").unwrap_or(text);
    let (before, container) = text.rsplit_once(':').map_or((None, text), |(a, b)| (Some(a), b));
    let container_port = container.parse().map_err(|_| wrong())?;
    let (address, host) = match before.map(|before| (before, before.rsplit_once(':'))) {
        None => (None, None),
        Some((_, Some((address, host)))) => (Some(address), Some(host)),
        Some((host, None)) => (None, Some(host)),
    };
    let listened = match address {
        Some(address) => address.trim_matches(['[', ']']).parse().map_err(|_| wrong())?,
        None => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    let host_port = match host {
        None | Some("") => None,
        Some(number) => Some(number.parse().map_err(|_| wrong())?),
    };
    Ok(Port { host: listened, host_port, container_port, protocol: None })
}

fn mount(text: &str) -> anyhow::Result<Mount> {
    let wrong = || exit::usage(format!("`-v {text}` is not understood; write SOURCE:/TARGET[:ro]"));
    let mut parts = text.split(':');
    let (source, target) = (parts.next().unwrap_or_default(), parts.next().ok_or_else(wrong)?);
    let read_only = match parts.next() {
        None | Some("rw") => false,
        Some("ro") => true,
        Some(_) => return Err(wrong()),
    };
    if !target.starts_with('/') || source.is_empty() || parts.next().is_some() {
        return Err(wrong());
    }
    let is_path = source.starts_with(['/', '.', '~']);
    let kind = if is_path {
        let source = std::path::absolute(PathBuf::from(source))
            .with_context(|| format!("resolving {source}"))?;
        MountKind::Bind { source, create: true }
    } else {
        MountKind::Volume { name: Some(source.to_owned()), nocopy: false }
    };
    Ok(Mount { target: target.to_owned(), read_only, kind })
}

fn tmpfs(path: &str) -> Mount {
    let kind = MountKind::Tmpfs { size: None, mode: None };
    Mount { target: path.to_owned(), read_only: false, kind }
}

fn bytes(text: &str) -> anyhow::Result<u64> {
    let wrong = || exit::usage(format!("`{text}` is no size; write a number and b, k, m or g"));
    carrack_objects::compose::parse_bytes(text).ok_or_else(wrong)
}

fn nano_cpus(text: &str) -> anyhow::Result<u64> {
    let wrong = || exit::usage(format!("`--cpus {text}` is no number of CPUs, such as 1.5"));
    carrack_objects::compose::parse_nano_cpus(text).filter(|&cpus| cpus > 0).ok_or_else(wrong)
}

fn pids_limit(limit: i64) -> anyhow::Result<PidsLimit> {
    match u32::try_from(limit) {
        Ok(limit @ 1..) => Ok(PidsLimit::AtMost(limit)),
        _ if limit == -1 => Ok(PidsLimit::Unlimited),
        _ => Err(exit::usage(format!("`--pids-limit {limit}` is neither -1 nor a count"))),
    }
}

fn restart(text: &str) -> anyhow::Result<Restart> {
    let (word, max) = text.split_once(':').map_or((text, None), |(word, max)| (word, Some(max)));
    let wrong = || {
        exit::usage(format!(
            "`--restart {text}` is none of no, always, unless-stopped, on-failure[:MAX]"
        ))
    };
    match (word, max) {
        ("no", None) => Ok(Restart::No),
        ("always", None) => Ok(Restart::Always),
        ("unless-stopped", None) => Ok(Restart::UnlessStopped),
        ("on-failure", None) => Ok(Restart::OnFailure { max_retries: None }),
        ("on-failure", Some(max)) => {
            Ok(Restart::OnFailure { max_retries: Some(max.parse().map_err(|_| wrong())?) })
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_port(text: &str, expected: &str) {
        let port = port(text).expect("a port");
        let host_port = port.host_port.map_or("any".to_owned(), |port| port.to_string());
        assert_eq!(format!("{} {host_port} {}", port.host, port.container_port), expected);
    }

    #[test]
    fn a_published_port_listens_on_loopback_unless_an_address_is_given() {
        check_port("80", "127.0.0.1 any 80");
        check_port("8080:80", "127.0.0.1 8080 80");
        check_port("0.0.0.0:8080:80/tcp", "0.0.0.0 8080 80");
        check_port("127.0.0.1::80", "127.0.0.1 any 80");
    }

    #[test]
    fn a_port_that_is_not_understood_is_a_usage_error() {
        assert!(port("80/udp").is_err());
        assert!(port("web:80").is_err());
        assert!(port("70000").is_err());
    }

    #[test]
    fn sizes_are_binary_as_docker_reads_them() {
        assert_eq!(bytes("512m").expect("a size"), 512 << 20);
        assert_eq!(bytes("1GiB").expect("a size"), 1 << 30);
        assert!(bytes("lots").is_err());
    }

    #[test]
    fn an_image_name_gives_a_service_name() {
        assert_eq!(default_name("registry/team/Web_App:1.2"), "web-app");
    }
}

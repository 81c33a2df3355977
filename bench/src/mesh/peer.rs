//! The peer's path: wrk ─▶ nginx ─mutual TLS▶ nginx ─▶ origin, two network
//! namespaces joined by a veth pair.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use carrack_testkit::eventually;
use tempfile::TempDir;

use super::{Load, ORIGIN, parse};

pub(crate) struct Peer {
    _directory: TempDir,
    servers: Vec<Child>,
    near: String,
    far: String,
}

impl Peer {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        certificates(directory.path())?;
        let id = std::process::id();
        let (near, far) = (format!("bench-near-{id}"), format!("bench-far-{id}"));
        let mut peer = Self { _directory: directory, servers: Vec::new(), near, far };
        peer.join()?;
        let files = peer._directory.path().to_path_buf();
        peer.serve(
            &files,
            "origin",
            &peer.far.clone(),
            &ORIGIN.replace("LISTEN", "127.0.0.1:8080"),
        )?;
        peer.serve(&files, "far", &peer.far.clone(), &far_proxy(&files))?;
        peer.serve(&files, "near", &peer.near.clone(), &near_proxy(&files))?;
        eventually("nginx answers through both hops", Duration::from_secs(10), || {
            let url = "http://127.0.0.1:8081/";
            let answer = inside(&peer.near, "curl").args(["-sf", url]).output().ok()?;
            answer.status.success().then_some(())
        });
        Ok(peer)
    }

    pub(crate) fn load(&self, connections: u32, seconds: u32) -> anyhow::Result<Load> {
        let output = inside(&self.near, "wrk")
            .args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), "--latency"])
            .arg("http://127.0.0.1:8081/")
            .output()
            .context("starting wrk")?;
        parse(&String::from_utf8_lossy(&output.stdout))
    }

    fn join(&self) -> anyhow::Result<()> {
        let id = std::process::id();
        let (a, b) = (format!("bn{id}"), format!("bf{id}"));
        let commands = [
            format!("netns add {}", self.near),
            format!("netns add {}", self.far),
            format!("link add {a} netns {} type veth peer name {b} netns {}", self.near, self.far),
            format!("-n {} addr add 10.254.7.1/24 dev {a}", self.near),
            format!("-n {} addr add 10.254.7.2/24 dev {b}", self.far),
            format!("-n {} link set {a} up", self.near),
            format!("-n {} link set {b} up", self.far),
            format!("-n {} link set lo up", self.near),
            format!("-n {} link set lo up", self.far),
        ];
        for command in commands {
            let output = Command::new("ip").args(command.split(' ')).output()?;
            ensure!(
                output.status.success(),
                "ip {command}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    fn serve(
        &mut self,
        files: &Path,
        name: &str,
        namespace: &str,
        config: &str,
    ) -> anyhow::Result<()> {
        let file = files.join(format!("{name}.conf"));
        fs::write(
            &file,
            config.replace("/tmp/origin.pid", &format!("{}/{name}.pid", files.display())),
        )?;
        let child = inside(namespace, "nginx")
            .args(["-e", "stderr", "-g", "daemon off;", "-c"])
            .arg(&file)
            .stderr(Stdio::null())
            .spawn()
            .context("starting nginx")?;
        self.servers.push(child);
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        for server in &mut self.servers {
            // nginx ends its workers on SIGTERM, not on SIGKILL.
            let pid = rustix::process::Pid::from_child(server);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok(); // Ended already.
            server.wait().ok(); // Nothing left to do about it.
        }
        for namespace in [&self.near, &self.far] {
            Command::new("ip").args(["netns", "del", namespace]).status().ok(); // On the way out.
        }
    }
}

fn inside(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, program]).stdin(Stdio::null());
    command
}

fn near_proxy(files: &Path) -> String {
    let tls = tls(
        files,
        "proxy_ssl_certificate",
        "proxy_ssl_certificate_key",
        "proxy_ssl_trusted_certificate",
    );
    format!(
        "worker_processes 1; error_log stderr crit; pid {0}/near.pid;
         events {{ worker_connections 512; }}
         http {{ access_log off; keepalive_requests 1000000;
           upstream far {{ server 10.254.7.2:8443; keepalive 64; keepalive_requests 1000000; }}
           server {{ listen 127.0.0.1:8081; location / {{ proxy_pass https://far; proxy_http_version 1.1;
             proxy_set_header Connection ''; proxy_ssl_verify on; proxy_ssl_name bench;
             proxy_ssl_protocols TLSv1.3; {tls} }} }} }}",
        files.display()
    )
}

fn far_proxy(files: &Path) -> String {
    let tls = tls(files, "ssl_certificate", "ssl_certificate_key", "ssl_client_certificate");
    format!(
        "worker_processes 1; error_log stderr crit; pid {0}/far.pid;
         events {{ worker_connections 512; }}
         http {{ access_log off; keepalive_requests 1000000;
           upstream origin {{ server 127.0.0.1:8080; keepalive 64; keepalive_requests 1000000; }}
           server {{ listen 10.254.7.2:8443 ssl; ssl_verify_client on; ssl_protocols TLSv1.3; {tls}
             location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ''; }} }} }}",
        files.display()
    )
}

fn tls(files: &Path, certificate: &str, key: &str, trusted: &str) -> String {
    let file = |name: &str| -> PathBuf { files.join(name) };
    format!(
        "{certificate} {}; {key} {}; {trusted} {};",
        file("leaf.pem").display(),
        file("leaf.key").display(),
        file("ca.pem").display()
    )
}

/// An authority and one leaf for both ends, ECDSA P-256 as ours.
fn certificates(files: &Path) -> anyhow::Result<()> {
    let script = "set -e
        curve='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
        openssl req -x509 $curve -keyout ca.key -out ca.pem -days 2 -subj /CN=bench-ca
        openssl req $curve -keyout leaf.key -out leaf.csr -subj /CN=bench
        echo subjectAltName=DNS:bench > ext
        openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out leaf.pem";
    let output = Command::new("sh").args(["-c", script]).current_dir(files).output()?;
    ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

//! One request through the mesh (two mutual-TLS hops) against the same path
//! through nginx with TLS both ways, wrk at one end and the same nginx origin
//! at the other.

mod peer;

use std::fs;

use anyhow::{Context as _, ensure};
use carrack_testkit::Machine;

const SECONDS: u32 = 3;
const ROUNDS: usize = 3;

const COMPOSE: &str = "name: bench
services:
  origin:
    build:
      context: .
      dockerfile_inline: |
        FROM nginx
        COPY nginx.conf /etc/nginx/nginx.conf
        CMD [\"nginx\", \"-g\", \"daemon off;\"]
      additional_contexts: {nginx: 'recipe://nginx.yaml'}
    tmpfs: [/tmp, /var/log/nginx, /var/lib/nginx]
  load:
    build:
      context: .
      dockerfile_inline: |
        FROM wrk
        CMD [\"sleep\", \"3600\"]
      additional_contexts: {wrk: 'recipe://wrk.yaml'}
    stop_signal: SIGKILL
";

/// The origin of both paths.
pub(crate) const ORIGIN: &str = "worker_processes 1;
error_log stderr crit;
pid /tmp/origin.pid;
events { worker_connections 512; }
http {
  access_log off;
  keepalive_requests 1000000;
  server { listen LISTEN; location / { default_type text/plain; return 200 'hello from the origin\\n'; } }
}
";

pub(crate) fn measure() -> anyhow::Result<()> {
    let machine = Machine::new();
    bring_up(&machine)?;
    let peer = peer::Peer::start()?;
    for connections in [1, 16] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(load(&machine, connections, SECONDS)?);
            theirs.push(peer.load(connections, SECONDS)?);
        }
        let (ours, theirs) = (median(ours), median(theirs));
        println!("{connections} connection(s), median of {ROUNDS} rounds of {SECONDS} s");
        print("carrack (2 mTLS hops)", ours, theirs);
        print("nginx, TLS both ways", theirs, theirs);
    }
    Ok(())
}

/// What wrk said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    per_second: f64,
    p50_micros: f64,
    p99_micros: f64,
}

fn median(mut loads: Vec<Load>) -> Load {
    loads.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    loads[loads.len() / 2]
}

fn print(name: &str, load: Load, base: Load) {
    println!(
        "  {name:<24} {:>8.0} requests/s (ratio {:.2})   p50 {:>7.0} µs (ratio {:.2})   p99 {:>7.0} µs",
        load.per_second,
        load.per_second / base.per_second,
        load.p50_micros,
        load.p50_micros / base.p50_micros,
        load.p99_micros,
    );
}

/// An nginx and a wrk, joined by the mesh.
pub(crate) fn bring_up(machine: &Machine) -> anyhow::Result<()> {
    let directory = machine.files().join("bench");
    fs::create_dir_all(&directory)?;
    let path = "environment: {PATH: '/usr/sbin:/usr/bin:/sbin:/bin'}\n";
    fs::write(directory.join("compose.yaml"), COMPOSE)?;
    fs::write(directory.join("nginx.conf"), ORIGIN.replace("LISTEN", "8080"))?;
    fs::write(
        directory.join("nginx.yaml"),
        format!("contents: {{packages: [nginx-light]}}\n{path}"),
    )?;
    fs::write(
        directory.join("wrk.yaml"),
        format!("contents: {{packages: [wrk, coreutils]}}\n{path}"),
    )?;
    let directory = directory.to_str().context("a path that is text")?;
    machine.carrack(&["up", "--wait", directory]).expect_ok();
    Ok(())
}

/// wrk in its container against the origin by its service name.
pub(crate) fn load(machine: &Machine, connections: u32, seconds: u32) -> anyhow::Result<Load> {
    let (connections, duration) = (format!("-c{connections}"), format!("-d{seconds}s"));
    let arguments = [
        "exec",
        "bench-load-1",
        "wrk",
        "-t1",
        &connections,
        &duration,
        "--latency",
        "http://origin:8080/",
    ];
    parse(&machine.carrack(&arguments).expect_ok())
}

/// Reads wrk's report.
fn parse(report: &str) -> anyhow::Result<Load> {
    ensure!(
        !report.contains("Non-2xx") && !report.contains("Socket errors"),
        "requests failed:\n{report}"
    );
    let word_after = |label: &str| {
        let line = report.lines().find(|line| line.trim_start().starts_with(label));
        line.and_then(|line| line.split_whitespace().last()).map(str::to_owned)
    };
    let micros = |label: &str| -> anyhow::Result<f64> {
        let word = word_after(label).with_context(|| format!("no {label} in:\n{report}"))?;
        let digits = word.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        let factor = match word.trim_start_matches(digits) {
            "us" => 1.0,
            "ms" => 1e3,
            _ => 1e6,
        };
        Ok(digits.parse::<f64>()? * factor)
    };
    let per_second =
        word_after("Requests/sec:").with_context(|| format!("no rate in:\n{report}"))?.parse()?;
    Ok(Load { per_second, p50_micros: micros("50%")?, p99_micros: micros("99%")? })
}

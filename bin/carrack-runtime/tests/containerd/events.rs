//! Events, as containerd tells them to whoever listens.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::daemon::Daemon;

/// One that listens.
pub(crate) struct Events {
    client: Child,
    lines: Receiver<String>,
}

impl Events {
    /// Listens to everything from now on.
    pub(crate) fn listen(daemon: &Daemon) -> Self {
        let mut client = daemon
            .client()
            .arg("events")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(client.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let events = Self { client, lines };
        // It listens once it hears of something.
        for _ in 0..100 {
            daemon.ctr(&["namespace", "create", &daemon.name("probe")]).ok();
            if events.lines.recv_timeout(Duration::from_millis(100)).is_ok() {
                return events;
            }
        }
        panic!("the client hears nothing");
    }

    /// Events of one container until `topic`, each `topic` alone or with what was added.
    #[track_caller]
    pub(crate) fn until(&self, id: &str, topic: &str) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(20));
            let line = line.unwrap_or_else(|_| panic!("no {topic} of {id}; before: {seen:?}"));
            let Some((_, about)) = line.split_once(" /tasks/") else { continue };
            let (found, json) = about.split_once(' ').unwrap();
            let event: serde_json::Value = serde_json::from_str(json).unwrap();
            if event["container_id"] != id {
                continue;
            }
            let added = event["exec_id"].as_str().or(event["id"].as_str()).unwrap_or(id);
            let status = event["exit_status"].as_u64();
            let mut text = found.to_owned();
            if added != id {
                text.push_str(&format!(" {added}"));
            }
            if let Some(status) = status {
                text.push_str(&format!(" {status}"));
            }
            seen.push(text);
            if found == topic && added == id {
                return seen;
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.client.kill().ok();
        self.client.wait().ok();
    }
}

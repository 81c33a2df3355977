//! Health checks: a program run in the container every so often.

use std::sync::Arc;

use carrack_shim::{Client, ExecConfig};
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{ExecRequest, Health, HealthState};
use crate::bundle;
use crate::container::Container;
use crate::definition::HealthDefinition;
use crate::engine::{Engine, blocking};
use crate::error::EngineError;
use crate::session::{Program, exit_of};
use crate::streams::Output;

/// What is kept of what a check wrote.
const OUTPUT: usize = 4 << 10;

/// What one check came to.
struct Checked {
    /// None when it was cut off.
    code: Option<i32>,
    output: String,
}

impl Engine {
    /// Checks a container's health until its run ends or the engine closes.
    pub(crate) fn check_health(
        self: &Arc<Self>,
        container: &Arc<Container>,
        client: &Client,
        run: CancellationToken,
    ) {
        let Some(definition) = container.definition.health.clone() else { return };
        container.change(|state| {
            // A container that is taken over is as well as it last was.
            let known = state.life.health.unwrap_or(HealthState::Starting);
            state.life.health = Some(known);
            state.health = Some(Health {
                state: known,
                failing: 0,
                last_code: None,
                last_output: String::new(),
                last_at: None,
            });
        });
        let engine = Arc::clone(self);
        let container = Arc::clone(container);
        let client = client.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = engine.closing.cancelled() => {}
                () = run.cancelled() => {}
                () = engine.check_again_and_again(&container, &client, &definition) => {}
            }
        });
    }

    async fn check_again_and_again(
        self: &Arc<Self>,
        container: &Arc<Container>,
        client: &Client,
        definition: &HealthDefinition,
    ) {
        let begun = Instant::now();
        loop {
            let starting = begun.elapsed() < definition.start_period
                && container.look(|state| is_starting(state.health.as_ref()));
            let pause = if starting { definition.start_interval } else { definition.interval };
            tokio::time::sleep(pause).await;
            if container.look(|state| state.paused) {
                continue;
            }
            let counts = begun.elapsed() >= definition.start_period;
            let checked = self.check_once(container, client, definition).await;
            let changed = container.change(|state| {
                let health = state.health.as_mut()?;
                note(health, checked, counts, definition.retries);
                let now = health.state;
                let before = state.life.health.replace(now);
                (before != Some(now)).then_some(now)
            });
            if let Some(now) = changed {
                tracing::info!(container = %container.name, health = now.as_str(), "a container's health changed");
                self.publish();
                self.save_or_log(container);
            }
        }
    }

    async fn check_once(
        self: &Arc<Self>,
        container: &Arc<Container>,
        client: &Client,
        definition: &HealthDefinition,
    ) -> Checked {
        let checked = self.run_check(container, client, &definition.command);
        match tokio::time::timeout(definition.timeout, checked).await {
            Ok(Ok(checked)) => checked,
            Ok(Err(error)) => {
                let fault = error.fault();
                let output = [vec![fault.message], fault.causes].concat().join(": ");
                Checked { code: Some(i32::from(fault.exit_code)), output }
            }
            Err(_) => Checked {
                code: None,
                output: format!("the check took longer than {:?}", definition.timeout),
            },
        }
    }

    /// Runs one check. Dropped half way, the program is killed.
    async fn run_check(
        self: &Arc<Self>,
        container: &Arc<Container>,
        client: &Client,
        command: &[String],
    ) -> Result<Checked, EngineError> {
        let request = ExecRequest { command: command.to_vec(), ..ExecRequest::default() };
        let engine = Arc::clone(self);
        let shared = Arc::clone(container);
        let client = client.clone();
        let stream = blocking(move || {
            let process = bundle::exec_process(&engine, &shared, &request)?;
            client.exec(ExecConfig { process, stdin: false, detached: false }).map_err(|source| {
                EngineError::shim(format!("checking the health of {}", shared.name), source)
            })
        })
        .await?;
        let attempt = || format!("reading a health check of {}", container.name);
        let mut pipes = Vec::new();
        for descriptor in [stream.streams.stdout, stream.streams.stderr].into_iter().flatten() {
            pipes.push(Output::new(descriptor).map_err(EngineError::failed(attempt()))?);
        }
        let reading = futures_util::future::join_all(pipes.into_iter().map(read_some));
        let program = Program::new(stream.control).map_err(EngineError::failed(attempt()))?;
        let (outputs, exit) = tokio::join!(reading, exit_of(&program));
        let output: Vec<u8> = outputs.concat();
        let output = output.get(..OUTPUT).unwrap_or(&output);
        let exit = exit.map_err(|source| EngineError::shim(attempt(), source))?;
        Ok(Checked { code: Some(exit.code), output: String::from_utf8_lossy(output).into_owned() })
    }
}

/// Reads all there is, and keeps the beginning.
async fn read_some(mut pipe: Output) -> Vec<u8> {
    let mut kept = Vec::new();
    while let Ok(Some(bytes)) = pipe.read().await {
        let room = OUTPUT.saturating_sub(kept.len());
        kept.extend_from_slice(bytes.get(..room).unwrap_or(&bytes));
    }
    kept
}

fn is_starting(health: Option<&Health>) -> bool {
    health.is_none_or(|health| health.state == HealthState::Starting)
}

/// Takes in what a check came to. During the start period failures do not count; the first
/// success ends it.
fn note(health: &mut Health, checked: Checked, counts: bool, retries: u32) {
    health.last_code = checked.code;
    health.last_output = checked.output;
    health.last_at = Some(Timestamp::now());
    if checked.code == Some(0) {
        health.failing = 0;
        health.state = HealthState::Healthy;
    } else if counts || health.state != HealthState::Starting {
        health.failing += 1;
        if health.failing >= retries {
            health.state = HealthState::Unhealthy;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Health {
        Health {
            state: HealthState::Starting,
            failing: 0,
            last_code: None,
            last_output: String::new(),
            last_at: None,
        }
    }

    fn after(codes: &[(Option<i32>, bool)], retries: u32) -> HealthState {
        let mut health = health();
        for (code, counts) in codes {
            note(&mut health, Checked { code: *code, output: String::new() }, *counts, retries);
        }
        health.state
    }

    #[test]
    fn one_success_makes_it_healthy() {
        assert_eq!(after(&[(Some(1), true), (Some(0), true)], 3), HealthState::Healthy);
    }

    #[test]
    fn failures_in_a_row_make_it_unhealthy_and_fewer_do_not() {
        let failed = (Some(1), true);
        assert_eq!(after(&[failed, failed], 3), HealthState::Starting);
        assert_eq!(after(&[failed, failed, failed], 3), HealthState::Unhealthy);
        assert_eq!(
            after(&[(Some(0), true), failed, failed, (Some(0), true), failed, failed], 3),
            HealthState::Healthy
        );
    }

    #[test]
    fn a_check_that_is_cut_off_failed() {
        assert_eq!(after(&[(None, true)], 1), HealthState::Unhealthy);
    }

    #[test]
    fn failures_in_the_start_period_do_not_count() {
        let early = (Some(1), false);
        assert_eq!(after(&[early; 9], 3), HealthState::Starting);
        assert_eq!(after(&[early, (Some(0), false), early], 1), HealthState::Unhealthy);
    }
}

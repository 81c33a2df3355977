//! Watching over a container that runs: its end, and what its policy says then.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use carrack_linux::cgroup::{Group, Layout};
use carrack_objects::compose::Restart;
use carrack_shim::{Client, record};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::api::Exit;
use crate::container::Container;
use crate::engine::{Engine, blocking};
use crate::error::EngineError;
use crate::record::{Life, Phase, Wanted};
use crate::streams::Readable;

/// The first pause before a container is started again; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A run this long counts as a good one: the next pause is the first again.
const GOOD_RUN: Duration = Duration::from_secs(10);

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Its program ended.
    Exited(Exit),
    /// Its shim was killed.
    Lost,
}

impl Engine {
    /// Watches over a run until it ends or the engine closes.
    pub(crate) fn watch_over(
        self: &Arc<Self>,
        container: &Arc<Container>,
        client: Client,
        run: CancellationToken,
    ) {
        if container.definition.health.is_some() {
            self.check_health(container, &client, run.clone());
        }
        let engine = Arc::clone(self);
        let container = Arc::clone(container);
        self.tasks.spawn(async move {
            let end = tokio::select! {
                () = engine.closing.cancelled() => return,
                end = end_of(&client) => end,
            };
            run.cancel();
            engine.ended(&container, end).await;
        });
    }

    /// A run ended: clears up after it and does what the policy says.
    pub(crate) async fn ended(self: &Arc<Self>, container: &Arc<Container>, end: End) {
        log_end(container, end);
        let client = container.change(|state| {
            note_end(&mut state.life, end);
            state.paused = false;
            state.health = None;
            state.life.health = None;
            state.shim.take()
        });
        // Told at once: what is sent to it from here on would be lost.
        self.publish();
        let policy = container.definition.restart;
        let engine = Arc::clone(self);
        let shared = Arc::clone(container);
        let cleared = blocking(move || {
            engine.end_processes(&shared, client);
            Ok(())
        });
        if let Err(error) = cleared.await {
            tracing::warn!(container = %container.name, %error, "clearing up after a run");
        }
        let again = container.change(|state| {
            let again = restarts(policy, &state.life, end);
            if again {
                state.life.phase = Phase::Restarting;
            }
            again
        });
        if again {
            self.save_or_log(container);
            self.publish();
            self.restart_later(container);
            return;
        }
        let over = match end {
            End::Exited(_) => Phase::Exited,
            End::Lost => Phase::Lost,
        };
        if container.auto_remove {
            // Not recorded: that it is being removed will be, and until then its end is what
            // whoever takes it over finds.
            container.change(|state| state.life.phase = over);
            self.remove_later(container);
        } else {
            self.clear(container).await;
            container.change(|state| state.life.phase = over);
            self.save_or_log(container);
            self.publish();
        }
    }

    /// Starts a container again after the pause its restarts have earned, unless it is stopped
    /// meanwhile. A start that fails is an end as well.
    pub(crate) fn restart_later(self: &Arc<Self>, container: &Arc<Container>) {
        let engine = Arc::clone(self);
        let container = Arc::clone(container);
        self.tasks.spawn(async move {
            loop {
                let earlier = container.look(|state| state.life.streak);
                let mut watch = container.watch();
                let called_off = watch.wait_for(|glance| glance.wanted == Wanted::Stopped);
                tokio::select! {
                    () = engine.closing.cancelled() => return,
                    _ = called_off => return,
                    () = tokio::time::sleep(pause(earlier)) => {}
                }
                let _operation = container.operation.lock().await;
                let (phase, wanted) = container.look(|state| (state.life.phase, state.life.wanted));
                if phase != Phase::Restarting || wanted != Wanted::Running {
                    return;
                }
                container.change(|state| {
                    state.life.restarts += 1;
                    state.life.streak += 1;
                });
                if engine.start_held(&container, false).await.is_ok() {
                    return;
                }
                let again = container.change(|state| {
                    let Some(exit) = state.life.exit else { return false };
                    let again =
                        restarts(container.definition.restart, &state.life, End::Exited(exit));
                    if again {
                        state.life.phase = Phase::Restarting;
                    }
                    again
                });
                if !again {
                    return;
                }
                engine.save_or_log(&container);
            }
        });
    }

    fn remove_later(self: &Arc<Self>, container: &Arc<Container>) {
        let engine = Arc::clone(self);
        let container = Arc::clone(container);
        self.tasks.spawn(async move {
            if let Err(error) = engine.remove(&container, true).await {
                tracing::warn!(container = %container.name, %error, "removing a container that ended");
            }
        });
    }

    pub(crate) fn save_or_log(&self, container: &Container) {
        if let Err(error) = self.save(container) {
            tracing::error!(container = %container.name, error = %error.fault().message, causes = ?error.fault().causes, "a change of a container is not recorded");
        }
    }

    /// Ends the shim and every process of a container, whichever of them there are.
    pub(crate) fn clear_processes(&self, container: &Container) {
        let client = container.change(|state| state.shim.take());
        let client = client.or_else(|| Client::connect(&self.places(&container.id).bundle).ok());
        self.end_processes(container, client);
    }

    fn end_processes(&self, container: &Container, client: Option<Client>) {
        let places = self.places(&container.id);
        if let Some(client) = client {
            match client.delete(true) {
                Ok(()) => {}
                Err(error) if error.is_gone() => {}
                Err(error) => {
                    tracing::warn!(container = %container.name, %error, "ending a shim");
                }
            }
        }
        if let Err(error) = kill_rest(&places.cgroup) {
            tracing::warn!(container = %container.name, %error, "ending what a container left");
        }
        if let Ok(Some(init)) = record::read_init(&places.bundle)
            && let Ok(Some(pidfd)) = init.open()
        {
            let killed = carrack_linux::process::signal(pidfd.as_fd(), libc::SIGKILL);
            if let Err(error) = killed {
                tracing::debug!(container = %container.name, %error, "killing a container's init");
            }
        }
        remove_tree(&places.runtime.join(&container.id));
    }
}

/// Kills whatever is in a cgroup, and removes it.
fn kill_rest(cgroup: &std::path::Path) -> Result<(), EngineError> {
    let failed = || format!("ending the cgroup {}", cgroup.display());
    let layout = Layout::detect().map_err(EngineError::failed(failed()))?;
    let group = Group::new(layout, cgroup).map_err(EngineError::failed(failed()))?;
    if !group.exists() {
        return Ok(());
    }
    group.kill_all().map_err(EngineError::failed(failed()))?;
    group.delete().map_err(EngineError::failed(failed()))
}

fn remove_tree(path: &std::path::Path) {
    match std::fs::remove_dir_all(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(path = %path.display(), %error, "removing a directory"),
    }
}

fn log_end(container: &Container, end: End) {
    match end {
        End::Exited(exit) => {
            tracing::info!(container = %container.name, code = exit.code, signal = ?exit.signal, "a container ended");
        }
        End::Lost => {
            tracing::error!(container = %container.name, "a container's shim was killed; what was left of the container is ended too");
        }
    }
}

/// Waits for a run's end, without a thread.
pub(crate) async fn end_of(client: &Client) -> End {
    let client = client.clone();
    let watch = blocking(move || {
        client.watch().map_err(|source| EngineError::shim("watching a container", source))
    });
    let Ok(watch) = watch.await else { return End::Lost };
    let Ok(ready) = Readable::of(watch.as_fd()) else { return End::Lost };
    if ready.wait().await.is_err() {
        return End::Lost;
    }
    match watch.receive() {
        Ok(exit) => End::Exited(Exit {
            code: exit.code,
            signal: exit.signal,
            out_of_memory: exit.oom,
            at: exit.at,
        }),
        Err(_) => End::Lost,
    }
}

fn note_end(life: &mut Life, end: End) {
    let at = match end {
        End::Exited(exit) => {
            life.exit = Some(exit);
            exit.at
        }
        End::Lost => {
            life.losses += 1;
            life.exit = None;
            Timestamp::now()
        }
    };
    let ran = life.started.map(|started| at.duration_since(started).unsigned_abs());
    if ran.is_some_and(|ran| ran >= GOOD_RUN) {
        life.streak = 0;
    }
}

/// Whether a container is started again. A lost one failed: nobody knows how it ended.
fn restarts(policy: Restart, life: &Life, end: End) -> bool {
    if life.wanted == Wanted::Stopped {
        return false;
    }
    let failed = match end {
        End::Exited(exit) => exit.code != 0,
        End::Lost => true,
    };
    match policy {
        Restart::No => false,
        Restart::Always | Restart::UnlessStopped => true,
        Restart::OnFailure { max_retries } => {
            failed && max_retries.is_none_or(|most| life.streak < most)
        }
    }
}

fn pause(restarts: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(restarts.min(16))).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(wanted: Wanted, restarts: u32) -> Life {
        Life { wanted, restarts, streak: restarts, ..Life::new() }
    }

    fn exited(code: i32) -> End {
        End::Exited(Exit { code, signal: None, out_of_memory: false, at: Timestamp::UNIX_EPOCH })
    }

    #[track_caller]
    fn check(policy: Restart, wanted: Wanted, count: u32, end: End, expected: bool) {
        assert_eq!(
            restarts(policy, &life(wanted, count), end),
            expected,
            "for {policy:?}, {wanted:?}, after {count} restarts, {end:?}"
        );
    }

    const RUNNING: Wanted = Wanted::Running;

    #[test]
    fn without_a_policy_an_end_is_an_end() {
        check(Restart::No, RUNNING, 0, exited(1), false);
        check(Restart::No, RUNNING, 0, End::Lost, false);
    }

    #[test]
    fn always_means_whatever_happened() {
        check(Restart::Always, RUNNING, 99, exited(0), true);
        check(Restart::UnlessStopped, RUNNING, 99, End::Lost, true);
    }

    #[test]
    fn a_person_who_stops_a_container_is_obeyed() {
        check(Restart::Always, Wanted::Stopped, 0, exited(137), false);
        check(Restart::UnlessStopped, Wanted::Stopped, 0, End::Lost, false);
    }

    #[test]
    fn on_failure_counts_failures_and_losses_only() {
        let policy = Restart::OnFailure { max_retries: Some(2) };
        check(policy, RUNNING, 0, exited(0), false);
        check(policy, RUNNING, 1, exited(3), true);
        check(policy, RUNNING, 2, exited(3), false);
        check(policy, RUNNING, 0, End::Lost, true);
        check(Restart::OnFailure { max_retries: None }, RUNNING, 1000, exited(1), true);
    }

    #[test]
    fn pauses_double_and_stay_within_a_minute() {
        assert_eq!(pause(0), Duration::from_millis(100));
        assert_eq!(pause(3), Duration::from_millis(800));
        assert_eq!(pause(40), LONGEST_PAUSE);
    }

    #[test]
    fn a_good_run_is_forgiven_the_restarts_before_it() {
        let mut forgiven = life(RUNNING, 5);
        forgiven.started = Some(Timestamp::UNIX_EPOCH);
        let later = Timestamp::UNIX_EPOCH + GOOD_RUN;
        note_end(
            &mut forgiven,
            End::Exited(Exit { code: 1, signal: None, out_of_memory: false, at: later }),
        );
        assert_eq!((forgiven.streak, forgiven.restarts), (0, 5), "what happened is not forgotten");
    }
}

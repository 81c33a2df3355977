//! Start, stop, remove: what a container goes through.
//!
//! ```text
//! Created ──▶ Starting ──▶ Running ──▶ Exited      stop, or its program ended
//!    ▲            ▲           │  └───▶ Lost        its shim was killed
//!    │            └ Restarting ◀┘                  its policy says so
//! ```
//!
//! A phase is recorded before what it says begins to come true, and everything done on the way is
//! done by functions that may find it done already. So a container is in order again once the
//! same step was taken again, whoever died in the middle. Containers are operated on one step at
//! a time; only their own end comes unasked.

use std::sync::Arc;
use std::time::Duration;

use carrack_shim::{Client, Log, ShimConfig, Streams};
use carrack_store::Table;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::api::Exit;
use crate::bundle;
use crate::container::{Container, Glance};
use crate::engine::{Engine, blocking};
use crate::error::EngineError;
use crate::record::{ContainerRecord, Phase, ServiceRecord, Wanted};

/// How long a killed container may take to be gone.
const AFTER_KILL: Duration = Duration::from_secs(20);

/// A program that runs.
struct Brought {
    client: Client,
    streams: Option<Streams>,
    started: Timestamp,
}

impl Engine {
    /// Starts a container unless it runs. As a person does: its restarts are counted anew.
    pub(crate) async fn start(
        self: &Arc<Self>,
        container: &Arc<Container>,
    ) -> Result<(), EngineError> {
        let started = {
            let _operation = container.operation.lock().await;
            container.change(|state| state.life.forget_restarts());
            self.start_held(container, false).await
        };
        self.or_removed(container, started.map(|_| ())).await
    }

    /// As [`start`](Self::start), and hands over the streams the program will write to.
    pub(crate) async fn start_attached(
        self: &Arc<Self>,
        container: &Arc<Container>,
    ) -> Result<Streams, EngineError> {
        let started = {
            let _operation = container.operation.lock().await;
            self.settle(container).await;
            if container.phase() == Phase::Running {
                return Err(EngineError::Conflict(format!("{} runs already", container.name)));
            }
            container.change(|state| state.life.forget_restarts());
            self.start_held(container, true).await
        };
        self.or_removed(container, started.map(Option::unwrap_or_default)).await
    }

    /// A container that is to remove itself is removed when it does not even start.
    async fn or_removed<T>(
        self: &Arc<Self>,
        container: &Arc<Container>,
        started: Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        if started.is_err()
            && container.auto_remove
            && let Err(error) = self.remove(container, true).await
        {
            tracing::warn!(container = %container.name, %error, "removing a container that did not start");
        }
        started
    }

    /// Starts a container whose operation lock the caller holds.
    pub(crate) async fn start_held(
        self: &Arc<Self>,
        container: &Arc<Container>,
        attach: bool,
    ) -> Result<Option<Streams>, EngineError> {
        self.settle(container).await;
        let (phase, wanted) = container.look(|state| (state.life.phase, state.life.wanted));
        match phase {
            Phase::Running if wanted == Wanted::Running => return Ok(None),
            // A stop that an engine was killed in the middle of comes to its end first.
            Phase::Running => self.stop_held(container, None).await?,
            Phase::Removing => {
                return Err(EngineError::Conflict(format!("{} is being removed", container.name)));
            }
            // Left by an engine that was killed in the middle of it.
            Phase::Starting => self.clear(container).await,
            Phase::Created | Phase::Restarting | Phase::Exited | Phase::Lost => {}
        }
        container.change(|state| {
            state.life.wanted = Wanted::Running;
            state.life.phase = Phase::Starting;
            state.life.error = None;
            state.paused = false;
            state.health = None;
            state.life.health = None;
        });
        self.save(container)?;
        match self.bring_up(container, attach).await {
            Ok(Brought { client, streams, started }) => {
                self.running(container, client, started)?;
                Ok(streams)
            }
            Err(error) => {
                self.start_failed(container, &error).await;
                Err(error)
            }
        }
    }

    /// Everything from nothing to a program that runs.
    async fn bring_up(
        self: &Arc<Self>,
        container: &Arc<Container>,
        attach: bool,
    ) -> Result<Brought, EngineError> {
        let engine = Arc::clone(self);
        let shared = Arc::clone(container);
        let namespace = blocking(move || engine.make_namespace(&shared));
        let engine = Arc::clone(self);
        let shared = Arc::clone(container);
        let prepare = blocking(move || bundle::prepare(&engine, &shared));
        let (network, prepared) = tokio::join!(namespace, prepare);
        let network = network?;
        prepared?;
        self.networks.answer_names(&network).await?;
        self.publish();

        // The mesh makes its sockets while everything else is made here. The program is all that
        // has to wait for it.
        let attempt = format!("waiting for the mesh to capture {}", container.name);
        let gate =
            async { self.gate.captured(&container.id).await.map_err(EngineError::failed(attempt)) };
        let engine = Arc::clone(self);
        let shared = Arc::clone(container);
        let connect = blocking(move || engine.connect(&shared, &network));
        let engine = Arc::clone(self);
        let shared = Arc::clone(container);
        let hold = blocking(move || engine.hold(&shared, attach));
        let (gate, connected, held) = tokio::join!(gate, connect, hold);
        let (client, streams) = held?;
        connected?;
        gate?;

        let name = container.name.clone();
        blocking(move || {
            // Taken before, so that no program ends before it started.
            let started = Timestamp::now();
            client
                .start()
                .map_err(|source| EngineError::shim(format!("starting {name}"), source))?;
            Ok(Brought { client, streams, started })
        })
        .await
    }

    /// Makes all of a container but its program, and has a shim hold it.
    fn hold(
        &self,
        container: &Container,
        attach: bool,
    ) -> Result<(Client, Option<Streams>), EngineError> {
        let places = self.places(&container.id);
        let config = ShimConfig {
            id: container.id.clone(),
            bundle: places.bundle.clone(),
            runtime_root: places.runtime,
            terminal: container.definition.terminal,
            open_stdin: container.definition.interactive,
            log: Log::Lines {
                path: places.log,
                max_bytes: self.config.log_bytes,
                max_files: self.config.log_files,
            },
            init: container.definition.init,
        };
        let starting = |source| EngineError::shim(format!("starting {}", container.name), source);
        let program = &self.config.runtime_program;
        let client = Client::spawn(program, &places.bundle, &config).map_err(starting)?;
        container.change(|state| state.shim = Some(client.clone()));
        let streams = if attach { Some(client.attach().map_err(starting)?) } else { None };
        Ok((client, streams))
    }

    /// Takes note that a container runs, and watches over it.
    pub(crate) fn running(
        self: &Arc<Self>,
        container: &Arc<Container>,
        client: Client,
        started: Timestamp,
    ) -> Result<(), EngineError> {
        let run = CancellationToken::new();
        container.change(|state| {
            state.life.phase = Phase::Running;
            state.life.started = Some(started);
            state.shim = Some(client.clone());
            state.run = run.clone();
        });
        // Its health is known from here on, and so is whether it is ready.
        self.watch_over(container, client, run);
        let saved = self.save(container);
        self.publish();
        saved
    }

    async fn start_failed(self: &Arc<Self>, container: &Arc<Container>, error: &EngineError) {
        let fault = error.fault();
        tracing::warn!(container = %container.name, error = %fault.message, causes = ?fault.causes, "a container did not start");
        self.clear(container).await;
        container.change(|state| {
            state.life.phase = Phase::Exited;
            state.life.exit = Some(Exit {
                code: i32::from(fault.exit_code),
                signal: None,
                out_of_memory: false,
                at: Timestamp::now(),
            });
            state.life.error = Some(fault);
        });
        if let Err(error) = self.save(container) {
            tracing::warn!(container = %container.name, %error, "recording a failed start");
        }
        self.publish();
    }

    /// Removes everything a container has while it runs, however much of it there is. What
    /// cannot be removed is logged: the next start or the container's removal tries again.
    pub(crate) async fn clear(self: &Arc<Self>, container: &Arc<Container>) {
        let engine = Arc::clone(self);
        let shared = Arc::clone(container);
        let cleared = blocking(move || {
            engine.clear_held(&shared);
            Ok(())
        });
        if let Err(error) = cleared.await {
            tracing::warn!(container = %container.name, %error, "clearing a container away");
        }
    }

    fn clear_held(&self, container: &Container) {
        self.clear_processes(container);
        bundle::clear(self, container);
        self.detach_network(container);
    }

    /// Stops a container: its stop signal, its grace period, then `SIGKILL`. Its policy does not
    /// start it again. Returns once it has ended.
    pub(crate) async fn stop(
        self: &Arc<Self>,
        container: &Arc<Container>,
        grace: Option<Duration>,
    ) -> Result<(), EngineError> {
        let _operation = container.operation.lock().await;
        self.stop_held(container, grace).await
    }

    /// Brings a stop to its end that an earlier engine began, unless somebody wants the container
    /// to run by now.
    pub(crate) async fn finish_stop(
        self: &Arc<Self>,
        container: &Arc<Container>,
    ) -> Result<(), EngineError> {
        let _operation = container.operation.lock().await;
        match container.look(|state| state.life.wanted) {
            Wanted::Stopped => self.stop_held(container, None).await,
            Wanted::Running => Ok(()),
        }
    }

    /// Stops a container whose operation lock the caller holds.
    pub(crate) async fn stop_held(
        self: &Arc<Self>,
        container: &Arc<Container>,
        grace: Option<Duration>,
    ) -> Result<(), EngineError> {
        let phase = container.phase();
        if phase.is_over() || phase == Phase::Removing {
            if container.look(|state| state.life.wanted) == Wanted::Running {
                container.change(|state| state.life.wanted = Wanted::Stopped);
                self.save(container)?;
            }
            return Ok(());
        }
        container.change(|state| state.life.wanted = Wanted::Stopped);
        self.save(container)?;
        self.publish();
        if container.phase() != Phase::Running {
            // Between two runs: nobody else starts it, since that takes the lock held here.
            self.clear(container).await;
            container.change(|state| state.life.phase = Phase::Exited);
            self.save(container)?;
            self.publish();
            return Ok(());
        }
        let definition = &container.definition;
        let asked = self.signal(container, definition.stop_signal, false).await;
        if container.look(|state| state.paused) {
            self.set_paused(container, false).await?;
        }
        if ended_within(container, grace.unwrap_or(definition.stop_grace)).await {
            // It may have ended by itself in the very moment it was asked.
            return Ok(());
        }
        if let Err(error) = asked {
            tracing::warn!(container = %container.name, error = %error.fault().message, causes = ?error.fault().causes, "a container was not asked to stop");
        }
        let killed = self.signal(container, libc::SIGKILL, false).await;
        if ended_within(container, AFTER_KILL).await {
            return Ok(());
        }
        killed?;
        Err(EngineError::Conflict(format!(
            "{} was killed and is still there; a process of it is stuck in the kernel",
            container.name
        )))
    }

    /// Waits until an end that is being dealt with is dealt with.
    async fn settle(&self, container: &Container) {
        let ending = |state: &crate::container::State| {
            state.life.phase == Phase::Running && state.shim.is_none()
        };
        if container.look(ending) {
            let mut watch = container.watch();
            let settled = watch.wait_for(|glance| glance.gone || glance.phase != Phase::Running);
            // Only an engine that closes leaves an end where it is.
            tokio::select! {
                _ = settled => {}
                () = self.closing.cancelled() => {}
            }
        }
    }

    /// Sends a signal. A container that has ended meanwhile is no error.
    pub(crate) async fn signal(
        self: &Arc<Self>,
        container: &Arc<Container>,
        signal: i32,
        all: bool,
    ) -> Result<(), EngineError> {
        let Some(client) = container.shim() else { return Ok(()) };
        let name = container.name.clone();
        blocking(move || match client.kill(signal, all) {
            Ok(()) => Ok(()),
            Err(error) if error.is_gone() || is_wrong_state(&error) => Ok(()),
            Err(error) => Err(EngineError::shim(format!("sending {name} signal {signal}"), error)),
        })
        .await
    }

    /// Sends a signal a person asked for. One that means the end keeps the policy from starting
    /// the container again, as in Docker.
    pub(crate) async fn kill(
        self: &Arc<Self>,
        container: &Arc<Container>,
        signal: i32,
    ) -> Result<(), EngineError> {
        if container.phase() != Phase::Running {
            return Err(EngineError::Conflict(format!("{} does not run", container.name)));
        }
        if signal == libc::SIGKILL || signal == container.definition.stop_signal {
            container.change(|state| state.life.wanted = Wanted::Stopped);
            self.save(container)?;
        }
        self.signal(container, signal, false).await
    }

    /// Holds a container still, or lets it go on.
    pub(crate) async fn set_paused(
        self: &Arc<Self>,
        container: &Arc<Container>,
        paused: bool,
    ) -> Result<(), EngineError> {
        let name = container.name.clone();
        let Some(client) = container.shim().filter(|_| container.phase() == Phase::Running) else {
            return Err(EngineError::Conflict(format!("{name} does not run")));
        };
        if container.look(|state| state.paused) == paused {
            let already = if paused { "is paused already" } else { "is not paused" };
            return Err(EngineError::Conflict(format!("{name} {already}")));
        }
        blocking(move || {
            let (attempt, done) = if paused {
                (format!("pausing {name}"), client.pause())
            } else {
                (format!("resuming {name}"), client.resume())
            };
            done.map_err(|source| EngineError::shim(attempt, source))
        })
        .await?;
        container.change(|state| state.paused = paused);
        self.publish();
        Ok(())
    }

    /// Removes a container that does not run, and all it has.
    pub(crate) async fn remove(
        self: &Arc<Self>,
        container: &Arc<Container>,
        volumes: bool,
    ) -> Result<(), EngineError> {
        let _operation = container.operation.lock().await;
        self.settle(container).await;
        if !container.phase().is_over() && container.phase() != Phase::Removing {
            return Err(EngineError::Conflict(format!(
                "{} is {}; stop it first, or remove it with --force",
                container.name,
                container.status().as_str()
            )));
        }
        container.change(|state| state.life.phase = Phase::Removing);
        self.record_removal(container)?;
        let address = self.networks.hold_address(container.address);
        let engine = Arc::clone(self);
        let shared = Arc::clone(container);
        let finish = move || {
            let finished = engine.finish_removal(&shared, volumes);
            drop(address);
            finished
        };
        if container.auto_remove {
            // Nobody who waits for its end has to wait for the disk and the kernel.
            self.remove_own_volumes(container, volumes)?;
            self.drop_from_table(container);
            self.finish_later(container, finish);
        } else {
            blocking(finish).await?;
            self.drop_from_table(container);
        }
        container.vanish();
        self.publish();
        Ok(())
    }

    /// Records that a container goes, and that its service is gone.
    fn record_removal(&self, container: &Container) -> Result<(), EngineError> {
        let _saving = container.saving.lock();
        let attempt = || format!("recording the removal of {}", container.name);
        let going = Table::<ContainerRecord>::write(&container.id, &container.record());
        let mut writes = vec![going.map_err(EngineError::failed(attempt()))?];
        let service = self.service_to_release(container);
        writes.extend(service.as_deref().map(Table::<ServiceRecord>::erase));
        self.records
            .commit(container.auto_remove, &writes)
            .map_err(EngineError::failed(attempt()))?;
        if let Some(service) = service {
            self.table.lock().services.remove(&service);
        }
        Ok(())
    }

    /// Takes away all a container has and, last, its record.
    fn finish_removal(&self, container: &Container, volumes: bool) -> Result<(), EngineError> {
        self.clear_held(container);
        bundle::remove(self, container)?;
        self.remove_own_volumes(container, volumes)?;
        self.records
            .commit(container.auto_remove, &[Table::<ContainerRecord>::erase(&container.id)])
            .map_err(EngineError::failed(format!("forgetting {}", container.name)))
    }

    /// What is left undone when this engine is killed is done by the next, which finds the record.
    fn finish_later(
        &self,
        container: &Container,
        finish: impl FnOnce() -> Result<(), EngineError> + Send + 'static,
    ) {
        let name = container.name.clone();
        self.tasks.spawn(async move {
            if let Err(error) = blocking(finish).await {
                let fault = error.fault();
                tracing::warn!(container = %name, error = %fault.message, causes = ?fault.causes, "something is left of a container that was removed");
            }
        });
    }

    fn drop_from_table(&self, container: &Container) {
        self.table.lock().containers.remove(&container.id);
    }

    /// Kills a container if it runs, and removes it.
    pub(crate) async fn remove_by_force(
        self: &Arc<Self>,
        container: &Arc<Container>,
        volumes: bool,
    ) -> Result<(), EngineError> {
        self.stop(container, Some(Duration::ZERO)).await?;
        self.remove(container, volumes).await
    }

    /// Waits until a container has ended for good.
    pub(crate) async fn wait(&self, container: &Arc<Container>) -> Result<Exit, EngineError> {
        let mut watch = container.watch();
        let over = |glance: &Glance| glance.gone || glance.phase.is_over() && glance.exit.is_some();
        let seen = watch.wait_for(over).await.map(|glance| *glance);
        let exit = seen.ok().and_then(|glance| glance.exit);
        exit.ok_or_else(|| {
            let why = "is gone; how it ended is not known";
            EngineError::Conflict(format!("{} {why}", container.name))
        })
    }
}

async fn ended_within(container: &Container, time: Duration) -> bool {
    let mut watch = container.watch();
    let ended = watch.wait_for(|glance| glance.phase.is_over() || glance.gone);
    tokio::time::timeout(time, ended).await.is_ok()
}

fn is_wrong_state(error: &carrack_shim::ShimError) -> bool {
    use carrack_shim::{Refusal, ShimError};
    matches!(error, ShimError::Refused { kind: Refusal::WrongState, .. })
}

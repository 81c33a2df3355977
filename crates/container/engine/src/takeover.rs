//! Taking over from an engine that is no more, however it ended.
//!
//! | recorded phase | shim | what is done |
//! |---|---|---|
//! | created, exited, lost | | nothing; started if its policy is `always` |
//! | starting | never got the program going | started from the beginning |
//! | starting, running | answers, program runs | held again |
//! | starting, running | answers or left `exit.json` | its end is dealt with now |
//! | starting, running | gone without a trace of an end | lost |
//! | restarting | | started after its pause |
//! | removing | | removed |
//!
//! Whatever a person wanted last is carried on: a stop that was under way is one still.

use std::sync::Arc;

use carrack_objects::compose::Restart;
use carrack_shim::{Client, Status, record};
use jiff::Timestamp;

use crate::api::Exit;
use crate::container::Container;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::record::{Phase, Wanted};
use crate::watch::End;

/// What is found of a run that was under way.
enum Found {
    /// It runs; since when, and whether it is held still.
    Running(Client, Timestamp, bool),
    /// It was never started.
    NotStarted,
    /// It ended.
    Ended(End),
}

impl Engine {
    /// Reads the records and takes over what they say runs.
    pub(crate) fn take_over(self: &Arc<Self>) -> Result<(), EngineError> {
        let reading = "reading the engine's records";
        for row in self.records.networks.list().map_err(EngineError::failed(reading))? {
            self.networks.add(&row.key, &row.record);
        }
        let containers = self.records.containers.list().map_err(EngineError::failed(reading))?;
        let services = self.records.services.list().map_err(EngineError::failed(reading))?;
        let volumes = self.records.volumes.list().map_err(EngineError::failed(reading))?;
        {
            let mut table = self.table.lock();
            table.services = services.into_iter().map(|row| (row.key, row.record)).collect();
            table.volumes = volumes.into_iter().map(|row| (row.key, row.record)).collect();
            for row in containers {
                let container = Container::from_record(row.key.clone(), row.record);
                table.containers.insert(row.key, container);
            }
        }
        let mut later = Vec::new();
        for container in self.containers() {
            if let Some(task) = self.take_over_one(&container) {
                later.push((container, task));
            }
        }
        self.publish();
        self.restore_names();
        for (container, task) in later {
            self.do_later(container, task);
        }
        Ok(())
    }

    fn take_over_one(self: &Arc<Self>, container: &Arc<Container>) -> Option<Task> {
        let (phase, wanted) = container.look(|state| (state.life.phase, state.life.wanted));
        match phase {
            Phase::Created => None,
            Phase::Exited | Phase::Lost => {
                (container.definition.restart == Restart::Always).then_some(Task::Start)
            }
            Phase::Removing => Some(Task::Remove),
            Phase::Restarting if wanted == Wanted::Running => Some(Task::Restart),
            Phase::Restarting => Some(Task::Stop),
            Phase::Starting | Phase::Running => match self.find_run(container, phase) {
                Found::Running(client, started, paused) => {
                    container.change(|state| state.paused = paused);
                    if let Err(error) = self.running(container, client, started) {
                        tracing::warn!(container = %container.name, %error, "taking over a container");
                    }
                    (wanted == Wanted::Stopped).then_some(Task::Stop)
                }
                Found::NotStarted if wanted == Wanted::Running => Some(Task::Start),
                Found::NotStarted => Some(Task::Stop),
                Found::Ended(end) => {
                    // As in an engine that saw it end: running, and nobody holds it any more.
                    container.change(|state| state.life.phase = Phase::Running);
                    Some(Task::Ended(end))
                }
            },
        }
    }

    fn find_run(&self, container: &Container, phase: Phase) -> Found {
        let places = self.places(&container.id);
        let recorded = container.look(|state| state.life.started);
        let state = Client::connect(&places.bundle)
            .and_then(|client| client.state().map(|state| (client, state)));
        match state {
            Ok((client, state)) => {
                // What was recorded is of this run only if the run was recorded.
                let recorded = recorded.filter(|_| phase == Phase::Running);
                let started = recorded.or(state.started_at).unwrap_or_else(Timestamp::now);
                match (state.status, state.exit) {
                    (Status::Running, _) => Found::Running(client, started, false),
                    (Status::Paused, _) => Found::Running(client, started, true),
                    (Status::Created, _) => Found::NotStarted,
                    (Status::Stopped, Some(exit)) => Found::Ended(End::Exited(exit_from(&exit))),
                    (Status::Stopped, None) => Found::Ended(End::Lost),
                }
            }
            Err(_) => match record::read_exit(&places.bundle) {
                Ok(Some(exit)) => Found::Ended(End::Exited(exit_from(&exit))),
                Ok(None) | Err(_) if phase == Phase::Starting => Found::NotStarted,
                Ok(None) | Err(_) => Found::Ended(End::Lost),
            },
        }
    }

    /// Answers names again wherever containers run.
    fn restore_names(self: &Arc<Self>) {
        let mut projects: Vec<String> = self
            .containers()
            .iter()
            .filter(|container| container.phase().is_attached())
            .map(|container| container.definition.project.clone())
            .collect();
        projects.dedup();
        let engine = Arc::clone(self);
        self.tasks.spawn(async move {
            for project in projects {
                let Some(network) = engine.networks.of(&project) else { continue };
                if let Err(error) = engine.networks.answer_names(&network).await {
                    let fault = error.fault();
                    tracing::error!(%project, error = %fault.message, causes = ?fault.causes, "names of a project are not answered");
                }
            }
        });
    }

    fn do_later(self: &Arc<Self>, container: Arc<Container>, task: Task) {
        let engine = Arc::clone(self);
        let closing = self.closing.clone();
        let carry_on = async move {
            let done = match task {
                Task::Start => engine.start(&container).await,
                Task::Restart => {
                    engine.restart_later(&container);
                    Ok(())
                }
                Task::Stop => engine.finish_stop(&container).await,
                Task::Remove => engine.remove(&container, true).await,
                Task::Ended(end) => {
                    engine.ended(&container, end).await;
                    Ok(())
                }
            };
            if let Err(error) = done {
                let fault = error.fault();
                tracing::warn!(container = %container.name, error = %fault.message, causes = ?fault.causes, "carrying on with a container");
            }
        };
        self.tasks.spawn(async move {
            tokio::select! {
                () = carry_on => {}
                () = closing.cancelled() => {}
            }
        });
    }
}

/// What is left to do with a container that was taken over.
#[derive(Clone, Copy, Debug)]
enum Task {
    Start,
    Restart,
    Stop,
    Remove,
    Ended(End),
}

fn exit_from(exit: &carrack_shim::Exit) -> Exit {
    Exit { code: exit.code, signal: exit.signal, out_of_memory: exit.oom, at: exit.at }
}

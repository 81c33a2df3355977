//! Which request is answered by what.

use std::sync::Arc;

use carrack_net::serve::Body;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::query::{Query, decode};
use super::{PENDING, body, events, lines, ok, upgrade};
use crate::api::{
    DownRequest, KillRequest, LogLine, LogsRequest, RemoveRequest, RunRequest, StatsRequest,
    StopRequest, UpRequest,
};
use crate::container::Container;
use crate::engine::{Engine, blocking};
use crate::error::EngineError;
use crate::logs::{Changes, Reader};
use crate::signal;

type Answer = Result<Response<Body>, EngineError>;

impl Engine {
    pub(super) async fn route(self: &Arc<Self>, request: Request<Incoming>) -> Answer {
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let query = Query::parse(request.uri().query());
        let segments: Vec<String> =
            path.split('/').filter(|segment| !segment.is_empty()).map(decode).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match (&method, segments.as_slice()) {
            (&Method::GET, ["version"]) => ok(&self.version()),
            (&Method::GET, ["projects"]) => ok(&self.projects()),
            (&Method::POST, ["applications"]) => self.answer_up(request).await,
            (&Method::POST, ["projects", project, "down"]) => {
                self.answer_down(project, request).await
            }
            (&Method::GET, ["stats"]) => self.answer_stats(&query).await,
            (&Method::GET, ["volumes"]) => ok(&self.volumes()),
            (&Method::DELETE, ["volumes", name]) => self.answer_remove_volume(name).await,
            (&Method::GET, ["containers"]) => {
                ok(&self.summaries(query.is_true("all"), query.get("project")))
            }
            (&Method::POST, ["containers"]) => {
                let asked: RunRequest = body(request).await?;
                ok(&self.run(asked).await?)
            }
            (_, ["containers", name]) => self.answer_container(&method, name, request).await,
            (_, ["containers", name, verb]) => {
                let container = self.find(name)?;
                self.answer_verb(&method, &container, verb, &query, request).await
            }
            _ => Err(unknown(&method, &path)),
        }
    }

    async fn answer_up(self: &Arc<Self>, request: Request<Incoming>) -> Answer {
        let asked: UpRequest = body(request).await?;
        let engine = Arc::clone(self);
        Ok(events(self, |send| async move { engine.up(asked, &send).await }))
    }

    async fn answer_down(self: &Arc<Self>, project: &str, request: Request<Incoming>) -> Answer {
        let asked: DownRequest = body(request).await?;
        let engine = Arc::clone(self);
        let project = project.to_owned();
        Ok(events(self, |send| async move { engine.down(&project, asked, &send).await }))
    }

    async fn answer_remove_volume(self: &Arc<Self>, name: &str) -> Answer {
        let engine = Arc::clone(self);
        let name = name.to_owned();
        ok(&blocking(move || engine.remove_volume(&name)).await?)
    }

    async fn answer_container(
        self: &Arc<Self>,
        method: &Method,
        name: &str,
        request: Request<Incoming>,
    ) -> Answer {
        let container = self.find(name)?;
        match *method {
            Method::GET => {
                let engine = Arc::clone(self);
                ok(&blocking(move || Ok(engine.detail(&container))).await?)
            }
            Method::DELETE => {
                let asked: RemoveRequest = body(request).await?;
                let engine = Arc::clone(self);
                self.finish(async move {
                    if asked.force {
                        engine.remove_by_force(&container, asked.volumes).await
                    } else {
                        engine.remove(&container, asked.volumes).await
                    }
                })
                .await
            }
            _ => Err(unknown(method, name)),
        }
    }

    async fn answer_verb(
        self: &Arc<Self>,
        method: &Method,
        container: &Arc<Container>,
        verb: &str,
        query: &Query,
        request: Request<Incoming>,
    ) -> Answer {
        let engine = Arc::clone(self);
        let shared = Arc::clone(container);
        match (method, verb) {
            (&Method::GET, "logs") => self.answer_logs(container, query).await,
            (&Method::POST, "start") => {
                self.finish(async move { engine.start(&shared).await }).await
            }
            (&Method::POST, "stop") => {
                let asked: StopRequest = body(request).await?;
                self.finish(async move { engine.stop(&shared, asked.timeout).await }).await
            }
            (&Method::POST, "restart") => {
                let asked: StopRequest = body(request).await?;
                self.finish(async move {
                    engine.stop(&shared, asked.timeout).await?;
                    engine.start(&shared).await
                })
                .await
            }
            (&Method::POST, "kill") => {
                let asked: KillRequest = body(request).await?;
                let word = asked.signal.unwrap_or_else(|| "SIGKILL".to_owned());
                let number = signal::parse(&word)
                    .ok_or_else(|| EngineError::Invalid(format!("`{word}` is no signal")))?;
                ok(&self.kill(container, number).await?)
            }
            (&Method::POST, "pause") => ok(&self.set_paused(container, true).await?),
            (&Method::POST, "resume") => ok(&self.set_paused(container, false).await?),
            (&Method::POST, "wait") => ok(&self.unless_closing(self.wait(container)).await?),
            (&Method::POST, "exec") => upgrade::exec(self, container, request),
            (&Method::POST, "attach") => upgrade::attach(self, container, request),
            _ => Err(unknown(method, verb)),
        }
    }

    /// Does something that is finished even if the client leaves.
    async fn finish<F>(self: &Arc<Self>, work: F) -> Answer
    where
        F: Future<Output = Result<(), EngineError>> + Send + 'static,
    {
        let engine = Arc::clone(self);
        let work = async move { engine.unless_closing(work).await };
        let done = self.tasks.spawn(work).await;
        let done = done.map_err(EngineError::failed("doing what was asked"))?;
        ok(&done?)
    }

    async fn answer_stats(self: &Arc<Self>, query: &Query) -> Answer {
        let asked = StatsRequest {
            containers: query.all("container").map(str::to_owned).collect(),
            project: query.get("project").map(str::to_owned),
            once: query.is_true("once"),
        };
        for name in &asked.containers {
            self.find(name)?;
        }
        let (send, receive) = mpsc::channel(1);
        let engine = Arc::clone(self);
        self.tasks.spawn(async move {
            tokio::select! {
                () = engine.closing.cancelled() => {}
                done = engine.stats(asked, send) => {
                    if let Err(error) = done {
                        tracing::warn!(error = %error.fault().message, "measuring containers");
                    }
                }
            }
        });
        Ok(lines(receive))
    }

    async fn answer_logs(self: &Arc<Self>, container: &Arc<Container>, query: &Query) -> Answer {
        let asked = logs_request(query)?;
        let places = self.places(&container.id);
        let most = self.config.log_files;
        let attempt = format!("reading the log of {}", container.name);
        let mut reader = Reader::new(places.log, asked.clone());
        // Watched before it is read, so that nothing written in between is missed.
        let changes = if asked.follow && places.keep.is_dir() {
            Some(Changes::of(&places.keep).map_err(EngineError::failed(attempt.clone()))?)
        } else {
            None
        };
        let (mut reader, existing) = blocking(move || {
            let lines = reader.existing(most).map_err(EngineError::failed(attempt))?;
            Ok((reader, lines))
        })
        .await?;
        let (send, receive) = mpsc::channel(PENDING);
        let engine = Arc::clone(self);
        let container = Arc::clone(container);
        self.tasks.spawn(async move {
            tokio::select! {
                () = engine.closing.cancelled() => {}
                () = follow(&container, &mut reader, existing, changes, &send) => {}
            }
        });
        Ok(lines(receive))
    }
}

/// Sends what is there, and, if it is followed, what comes until the container has ended.
async fn follow(
    container: &Container,
    reader: &mut Reader,
    existing: Vec<LogLine>,
    changes: Option<Changes>,
    send: &mpsc::Sender<LogLine>,
) {
    for line in existing {
        if send.send(line).await.is_err() {
            return;
        }
    }
    let Some(changes) = changes else { return };
    let mut watch = container.watch();
    loop {
        let over = {
            let glance = watch.borrow_and_update();
            glance.gone || glance.phase.is_over()
        };
        // Read after looking: what was written before the end is there now.
        let Ok(lines) = reader.more() else { return };
        for line in lines {
            if send.send(line).await.is_err() {
                return;
            }
        }
        if over || reader.is_over() {
            return;
        }
        tokio::select! {
            changed = changes.next() => if changed.is_err() { return },
            changed = watch.changed() => if changed.is_err() { return },
            () = send.closed() => return,
        }
    }
}

fn logs_request(query: &Query) -> Result<LogsRequest, EngineError> {
    let time = |name: &str| -> Result<Option<Timestamp>, EngineError> {
        let parse = |text: &str| {
            text.parse().map_err(|_| {
                EngineError::Invalid(format!(
                    "`{text}` is no time; write such as 2026-01-02T03:04:05Z"
                ))
            })
        };
        query.get(name).map(parse).transpose()
    };
    let tail = query.get("tail").map(|text| {
        text.parse().map_err(|_| EngineError::Invalid(format!("`{text}` is no number of lines")))
    });
    Ok(LogsRequest {
        follow: query.is_true("follow"),
        tail: tail.transpose()?,
        since: time("since")?,
        until: time("until")?,
    })
}

fn unknown(method: &Method, path: &str) -> EngineError {
    EngineError::Invalid(format!("there is nothing to {method} at {path}"))
}

//! The task service: every call, and what it does.

use std::io;
use std::time::{Duration, Instant};

use carrack_linux::cgroup::OomWatch;
use carrack_linux::session::Signals;
use carrack_oci::runtime as oci;

use super::conversation::{Conversations, Waiter};
use super::events::{Event, Publisher};
use super::frame::{Call, Code, Status};
use super::messages::{About, Create, Exec, Update};
use super::streams::{Owner, Streams};
use super::task::{Exit, Means, Phase, Task, control, precondition};
use super::wire::{Any, Message, timestamp};
use super::{log, metrics};
use crate::poll::{Poll, Token};

/// The services whose calls are taken: the same calls under two names.
const SERVICES: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];

/// How long the last events and answers may take to be heard.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long it has to be quiet for the shim to let go of the code that it ran.
const QUIET: Duration = Duration::from_secs(1);

/// An answer now, or later.
enum Reply {
    Now(Message),
    Later,
}

/// The shim: its containers, and all it listens to.
#[derive(Debug)]
pub(super) struct Shim {
    pub(super) namespace: String,
    pub(super) poll: Poll,
    pub(super) signals: (Token, Signals),
    pub(super) conversations: Conversations,
    pub(super) publisher: Publisher,
    pub(super) streams: Streams,
    pub(super) tasks: Vec<Task>,
    /// Processes are numbered through, so that streams know theirs.
    pub(super) last_owner: Owner,
    /// Set once it was told to end: when to, at the latest.
    pub(super) ending: Option<Instant>,
    /// When to let go of code, unless more of it runs before.
    pub(super) quiet: Option<Instant>,
}

impl Shim {
    /// Serves until it is told to end.
    pub(super) fn run(mut self) -> io::Result<()> {
        loop {
            let pending = self.publisher.is_pending()
                || self.conversations.is_pending()
                || self.streams.deadline().is_some();
            let now = Instant::now();
            if self.ending.is_some_and(|end| end <= now || !pending) {
                return Ok(());
            }
            if self.quiet.is_some_and(|quiet| quiet <= now) {
                self.quiet = None;
                // It saves memory and nothing else.
                carrack_linux::memory::release_code().ok();
            }
            let deadlines =
                [self.ending, self.publisher.deadline(), self.streams.deadline(), self.quiet];
            let next = deadlines.into_iter().flatten().min();
            let patience = next.map(|next| next.saturating_duration_since(now));
            // A timer that is cut to whole milliseconds must not come too early.
            let patience = patience.map(|patience| patience + Duration::from_millis(1));
            for (token, _) in self.poll.wait(patience)? {
                self.handle(token);
            }
            self.publisher.tick(&mut self.poll);
            self.streams.settle(&mut self.poll);
        }
    }

    fn handle(&mut self, token: Token) {
        if token == self.signals.0 {
            self.signals.1.drain();
            self.reap();
        } else if let Some(requests) = self.conversations.handle(&mut self.poll, token) {
            for (waiter, request) in requests {
                self.answer(waiter, &request);
                self.quiet = Some(Instant::now() + QUIET);
            }
        } else if self.publisher.handle(&mut self.poll, token) {
            // It has done it.
        } else if let Some(index) = self.oom_of(token) {
            self.look_for_oom(index);
        } else {
            self.streams.handle(&mut self.poll, token);
        }
    }

    fn oom_of(&self, token: Token) -> Option<usize> {
        let watches = |task: &Task| task.oom.as_ref().is_some_and(|(own, _)| *own == token);
        self.tasks.iter().position(watches)
    }

    /// Tells of processes killed for want of memory since the last time.
    pub(super) fn look_for_oom(&mut self, index: usize) {
        let Some(task) = self.tasks.get_mut(index) else { return };
        let killed = |watch: &mut OomWatch| watch.take().is_ok_and(|events| events.count > 0);
        if task.oom.as_mut().is_some_and(|(_, watch)| killed(watch)) {
            let message = Message::new().text(1, task.id.as_str());
            self.publish("oom", "TaskOOM", message);
        }
    }

    pub(super) fn publish(&mut self, topic: &'static str, kind: &'static str, message: Message) {
        self.publisher.publish(&mut self.poll, &Event::new(topic, kind, message));
    }

    fn answer(&mut self, waiter: Waiter, request: &[u8]) {
        let reply = Call::decode(request).map_err(Status::from).and_then(|call| {
            let reply = self.obey(waiter, &call);
            log::debug(|| match &reply {
                Ok(_) => call.method.clone(),
                Err(status) => format!("{}: {}", call.method, status.message),
            });
            reply
        });
        match reply {
            Ok(Reply::Now(message)) => self.reply(waiter, &Ok(message)),
            Ok(Reply::Later) => {}
            Err(status) => self.reply(waiter, &Err(status)),
        }
    }

    pub(super) fn reply(&mut self, waiter: Waiter, answer: &Result<Message, Status>) {
        self.conversations.answer(&self.poll, waiter, answer);
    }

    fn obey(&mut self, waiter: Waiter, call: &Call) -> Result<Reply, Status> {
        if !SERVICES.contains(&call.service.as_str()) {
            let message = format!("there is no service {} in this shim", call.service);
            return Err(Status::new(Code::Unimplemented, message));
        }
        let payload = call.payload.as_slice();
        let answer = match call.method.as_str() {
            "Wait" => return self.wait(waiter, &About::process(payload)?),
            "State" => self.state(&About::process(payload)?),
            "Create" => self.create(&Create::decode(payload)?),
            "Start" => self.start(&About::process(payload)?),
            "Delete" => self.delete(&About::process(payload)?),
            "Pids" => self.pids(&About::container(payload)?),
            "Pause" => self.set_paused(&About::container(payload)?, true),
            "Resume" => self.set_paused(&About::container(payload)?, false),
            "Kill" => self.kill(&About::process(payload)?),
            "Exec" => self.exec(&Exec::decode(payload)?),
            "ResizePty" => self.resize(&About::process(payload)?),
            "CloseIO" => self.close_io(&About::process(payload)?),
            "Update" => self.update(&Update::decode(payload)?),
            "Stats" => self.stats(&About::container(payload)?),
            "Connect" => Ok(self.connect(&About::container(payload)?)),
            "Shutdown" => Ok(self.shutdown()),
            "Checkpoint" => {
                let message = "checkpoints are not made by this shim; stop the container instead";
                Err(Status::new(Code::Unimplemented, message))
            }
            other => {
                let message = format!("the task service has no method {other}");
                Err(Status::new(Code::Unimplemented, message))
            }
        };
        answer.map(Reply::Now)
    }

    fn position(&self, id: &str) -> Result<usize, Status> {
        self.tasks.iter().position(|task| task.id.as_str() == id).ok_or_else(|| {
            Status::new(Code::NotFound, format!("there is no container {id} in this shim"))
        })
    }

    fn task(&mut self, id: &str) -> Result<&mut Task, Status> {
        let index = self.position(id)?;
        self.tasks.get_mut(index).ok_or_else(|| precondition("the container is gone"))
    }

    /// The container, and what making processes in it needs.
    fn task_and_means(&mut self, id: &str) -> Result<(&mut Task, Means<'_>), Status> {
        let index = self.position(id)?;
        let task = self.tasks.get_mut(index);
        let means =
            Means { poll: &mut self.poll, streams: &mut self.streams, namespace: &self.namespace };
        Ok((task.ok_or_else(|| precondition("the container is gone"))?, means))
    }

    fn next_owner(&mut self) -> Owner {
        self.last_owner += 1;
        self.last_owner
    }

    fn create(&mut self, request: &Create) -> Result<Message, Status> {
        if self.position(&request.id).is_ok() {
            let message = format!("container {} exists already", request.id);
            return Err(Status::new(Code::AlreadyExists, message));
        }
        let owner = self.next_owner();
        let mut means =
            Means { poll: &mut self.poll, streams: &mut self.streams, namespace: &self.namespace };
        let task = Task::create(request, owner, &mut means)?;
        let pid = task.init.number();
        self.tasks.push(task);
        // One more of the pod came just as the last had gone.
        self.ending = None;
        let streams = &request.streams;
        let named = Message::new()
            .text(1, &streams.stdin)
            .text(2, &streams.stdout)
            .text(3, &streams.stderr)
            .number(4, streams.terminal);
        let event = Message::new()
            .text(1, &request.id)
            .text(2, &request.bundle)
            .messages(3, request.rootfs.iter().map(super::messages::Mount::encode))
            .message(4, &named)
            .number(6, pid);
        self.publish("create", "TaskCreate", event);
        Ok(Message::new().number(1, pid))
    }

    fn start(&mut self, about: &About) -> Result<Message, Status> {
        let (task, mut means) = self.task_and_means(&about.id)?;
        if about.exec_id.is_empty() {
            task.start()?;
        } else {
            let started = task.start_added(&about.exec_id, &mut means);
            if let Err(status) = started {
                self.answer_waiters(about);
                return Err(status);
            }
        }
        let pid = self.task(&about.id)?.process(&about.exec_id)?.number();
        let event = Message::new().text(1, &about.id);
        if about.exec_id.is_empty() {
            self.publish("start", "TaskStart", event.number(2, pid));
        } else {
            let event = event.text(2, &about.exec_id).number(3, pid);
            self.publish("exec-started", "TaskExecStarted", event);
        }
        Ok(Message::new().number(1, pid))
    }

    /// Tells those who wait for a process that it has ended.
    fn answer_waiters(&mut self, about: &About) {
        let process = self.task(&about.id).and_then(|task| task.process(&about.exec_id));
        let Ok((Some(exit), waiters)) =
            process.map(|process| (process.exit(), std::mem::take(&mut process.waiters)))
        else {
            return;
        };
        for waiter in waiters {
            self.reply(waiter, &Ok(exit_message(1, exit)));
        }
    }

    fn delete(&mut self, about: &About) -> Result<Message, Status> {
        let index = self.position(&about.id)?;
        if about.exec_id.is_empty() { self.delete_task(index) } else { self.delete_added(about) }
    }

    fn delete_task(&mut self, index: usize) -> Result<Message, Status> {
        let Some(task) = self.tasks.get_mut(index) else {
            return Err(precondition("the container is gone"));
        };
        if task.init.phase == Phase::Running {
            return Err(precondition("the container runs; stop it before it is deleted"));
        }
        task.delete()?;
        // One that was created and never started has ended by this.
        self.reap_task(index);
        let mut task = self.tasks.swap_remove(index);
        if let Some((_, watch)) = &task.oom {
            self.poll.remove(watch);
        }
        let exit = task.init.exit().unwrap_or(Exit {
            status: 128 + libc::SIGKILL.unsigned_abs(),
            at: std::time::SystemTime::now(),
        });
        for process in task.execs.iter_mut().chain([&mut task.init]) {
            self.streams.forget(&mut self.poll, process.owner);
            for waiter in std::mem::take(&mut process.waiters) {
                self.reply(waiter, &Ok(exit_message(1, exit)));
            }
        }
        let pid = task.init.number();
        let event = Message::new().text(1, task.id.as_str()).number(2, pid);
        let at = timestamp(exit.at);
        self.publish("delete", "TaskDelete", event.number(3, exit.status).message(4, &at));
        Ok(Message::new().number(1, pid).number(2, exit.status).message(3, &at))
    }

    fn delete_added(&mut self, about: &About) -> Result<Message, Status> {
        let task = self.task(&about.id)?;
        let process = task.process(&about.exec_id)?;
        if process.phase == Phase::Running {
            return Err(precondition("the process runs; stop it before it is deleted"));
        }
        let (exit, pid, owner) = (process.exit(), process.number(), process.owner);
        let waiters = std::mem::take(&mut process.waiters);
        task.execs.retain(|process| process.exec_id != about.exec_id);
        self.streams.forget(&mut self.poll, owner);
        for waiter in waiters {
            let message = format!("process {} was deleted unstarted", about.exec_id);
            self.reply(waiter, &Err(Status::new(Code::NotFound, message)));
        }
        let message = Message::new().number(1, pid);
        Ok(match exit {
            Some(exit) => message.number(2, exit.status).message(3, &timestamp(exit.at)),
            None => message,
        })
    }

    fn exec(&mut self, request: &Exec) -> Result<Message, Status> {
        let owner = self.next_owner();
        self.task(&request.id)?.add(request, owner)?;
        let event = Message::new().text(1, &request.id).text(2, &request.exec_id);
        self.publish("exec-added", "TaskExecAdded", event);
        Ok(Message::new())
    }

    fn state(&mut self, about: &About) -> Result<Message, Status> {
        let task = self.task(&about.id)?;
        let (paused, bundle) = (task.paused, task.bundle.to_string_lossy().into_owned());
        let process = task.process(&about.exec_id)?;
        let status = match process.phase {
            Phase::Created => 1_u32,
            Phase::Running if paused => 4,
            Phase::Running => 2,
            Phase::Stopped(_) => 3,
        };
        let id = if about.exec_id.is_empty() { &about.id } else { &about.exec_id };
        let message = Message::new()
            .text(1, id)
            .text(2, &bundle)
            .number(3, process.number())
            .number(4, status)
            .text(5, &process.named.stdin)
            .text(6, &process.named.stdout)
            .text(7, &process.named.stderr)
            .number(8, process.named.terminal);
        let message = match process.exit() {
            Some(exit) => message.number(9, exit.status).message(10, &timestamp(exit.at)),
            None => message,
        };
        Ok(message.text(11, &about.exec_id))
    }

    fn wait(&mut self, waiter: Waiter, about: &About) -> Result<Reply, Status> {
        let process = self.task(&about.id)?.process(&about.exec_id)?;
        match process.exit() {
            Some(exit) => Ok(Reply::Now(exit_message(1, exit))),
            None => {
                process.waiters.push(waiter);
                Ok(Reply::Later)
            }
        }
    }

    fn kill(&mut self, about: &About) -> Result<Message, Status> {
        let [signal, all] = about.numbers;
        self.task(&about.id)?.kill(&about.exec_id, signal, all != 0)?;
        Ok(Message::new())
    }

    fn set_paused(&mut self, id: &str, paused: bool) -> Result<Message, Status> {
        self.task(id)?.set_paused(paused)?;
        let event = Message::new().text(1, id);
        match paused {
            true => self.publish("paused", "TaskPaused", event),
            false => self.publish("resumed", "TaskResumed", event),
        }
        Ok(Message::new())
    }

    fn resize(&mut self, about: &About) -> Result<Message, Status> {
        let [width, height] = about.numbers;
        self.task(&about.id)?.process(&about.exec_id)?.resize(width, height)?;
        Ok(Message::new())
    }

    fn close_io(&mut self, about: &About) -> Result<Message, Status> {
        let owner = self.task(&about.id)?.process(&about.exec_id)?.owner;
        if about.numbers[0] != 0 {
            self.streams.close_input(owner);
        }
        Ok(Message::new())
    }

    fn pids(&mut self, id: &str) -> Result<Message, Status> {
        let task = self.task(id)?;
        let pids = task.runtime.processes(&task.id).map_err(|error| control(&error))?;
        let details = |pid: u32| {
            let added = task.execs.iter().find(|process| process.number() == pid)?;
            let details = Message::new().text(1, &added.exec_id);
            Some(Any::of("containerd.runc.v1.ProcessDetails", details).encode())
        };
        let processes = pids.into_iter().map(|pid| {
            let pid = pid.as_raw_nonzero().get().unsigned_abs();
            let message = Message::new().number(1, pid);
            details(pid).map_or(message.clone(), |details| message.message(2, &details))
        });
        Ok(Message::new().messages(1, processes.collect::<Vec<_>>()))
    }

    fn update(&mut self, request: &Update) -> Result<Message, Status> {
        let task = self.task(&request.id)?;
        if request.annotates {
            let message = "annotations of a container cannot be changed; leave them out";
            return Err(Status::new(Code::Unimplemented, message));
        }
        let resources: oci::LinuxResources = serde_json::from_slice(&request.resources.value)
            .map_err(|error| Status::new(Code::InvalidArgument, format!("resources: {error}")))?;
        let updated = task.runtime.update(&task.id, &resources);
        updated.map_err(|error| control(&error))?;
        Ok(Message::new())
    }

    fn stats(&mut self, id: &str) -> Result<Message, Status> {
        let task = self.task(id)?;
        let group = task.runtime.group_of(&task.id).map_err(|error| control(&error))?;
        if !group.exists() {
            return Err(Status::new(Code::NotFound, "the container's control group is gone"));
        }
        Ok(Message::new().message(1, &metrics::of(&group).encode()))
    }

    fn connect(&mut self, id: &str) -> Message {
        let task = self.task(id).map_or(0, |task| task.init.number());
        let own = rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
        Message::new().number(1, own).number(2, task).text(3, env!("CARGO_PKG_VERSION"))
    }

    /// Ends the shim, unless it still holds a container of the pod.
    fn shutdown(&mut self) -> Message {
        if self.tasks.is_empty() && self.ending.is_none() {
            self.ending = Some(Instant::now() + FAREWELL);
        }
        Message::new()
    }
}

/// Status and time of an end, in fields `first` and the next.
pub(super) fn exit_message(first: u32, exit: Exit) -> Message {
    Message::new().number(first, exit.status).message(first + 1, &timestamp(exit.at))
}

//! Taking in processes that have ended, and telling those who wait.
//!
//! The end of a container's first process is told last: whatever was added to the container
//! ends with it, and is told before.

use std::os::fd::AsFd;
use std::time::SystemTime;

use carrack_linux::process::{self, Exit as Ended};
use rustix::process::Pid;

use super::service::{Shim, exit_message};
use super::task::{Exit, Phase, Process, Task};
use super::wire::{Message, timestamp};
use super::{log, record};

impl Shim {
    /// Takes in every child that has ended, ours and those left to us.
    pub(super) fn reap(&mut self) {
        while let Ok(Some((pid, ended))) = process::try_wait_any() {
            self.take_in(pid, ended);
        }
    }

    /// Takes in the first process of a container that was just killed, if nobody has yet.
    pub(super) fn reap_task(&mut self, index: usize) {
        let Some(task) = self.tasks.get(index) else { return };
        let Some((pid, pidfd)) = &task.init.process else { return };
        if task.init.exit().is_none()
            && let Ok(Some(ended)) = process::try_wait(pidfd.as_fd())
        {
            self.take_in(*pid, ended);
        }
    }

    fn take_in(&mut self, pid: Pid, ended: Ended) {
        let status = u32::try_from(ended.shell_code()).unwrap_or(u32::MAX);
        let exit = Exit { status, at: SystemTime::now() };
        let runs = |process: &Process| process.pid() == Some(pid) && process.exit().is_none();
        // Others are loggers, publishers and orphans of containers.
        let Some(index) = self.tasks.iter().position(|task| task.processes().any(runs)) else {
            return;
        };
        self.look_for_oom(index);
        let Some(task) = self.tasks.get_mut(index) else { return };
        if runs(&task.init) {
            self.end_init(index, exit);
        } else if let Some(added) = task.execs.iter().position(runs) {
            self.end_added(index, added, exit);
        }
    }

    /// The first process has ended: the others are to follow.
    fn end_init(&mut self, index: usize, exit: Exit) {
        let Some(task) = self.tasks.get_mut(index) else { return };
        if let Err(error) = record::keep_exit(&task.bundle, exit) {
            log::error(&format!("recording the end of {}: {error}", task.id.as_str()));
        }
        // With process ids of its own the kernel has ended them all.
        if let Err(error) = task.runtime.kill(&task.id, libc::SIGKILL, true) {
            log::debug(|| format!("ending the rest of {}: {error}", task.id.as_str()));
        }
        task.ending = Some(exit);
        self.finish(index);
    }

    fn end_added(&mut self, index: usize, added: usize, exit: Exit) {
        let Some(task) = self.tasks.get_mut(index) else { return };
        let Some(process) = task.execs.get_mut(added) else { return };
        process.phase = Phase::Stopped(exit);
        process.console = None;
        let (exec_id, pid, owner) = (process.exec_id.clone(), process.number(), process.owner);
        let waiters = std::mem::take(&mut process.waiters);
        let id = task.id.as_str().to_owned();
        self.streams.drop_input(&self.poll, owner);
        self.tell_exit(&id, &exec_id, pid, exit);
        for waiter in waiters {
            self.reply(waiter, &Ok(exit_message(1, exit)));
        }
        self.finish(index);
    }

    /// Tells of the container's end, once everything in it has ended.
    fn finish(&mut self, index: usize) {
        let Some(task) = self.tasks.get_mut(index) else { return };
        let running = |process: &Process| process.phase == Phase::Running;
        let Some(exit) = task.ending.filter(|_| !task.execs.iter().any(running)) else { return };
        task.ending = None;
        task.init.phase = Phase::Stopped(exit);
        task.init.console = None;
        let (pid, owner, failed) = (task.init.number(), task.init.owner, task.init.failed);
        let waiters = std::mem::take(&mut task.init.waiters);
        let id = task.id.as_str().to_owned();
        self.streams.drop_input(&self.poll, owner);
        if !failed {
            self.tell_exit(&id, &id, pid, exit);
        }
        for waiter in waiters {
            self.reply(waiter, &Ok(exit_message(1, exit)));
        }
    }

    fn tell_exit(&mut self, container: &str, id: &str, pid: u32, exit: Exit) {
        let event = Message::new()
            .text(1, container)
            .text(2, id)
            .number(3, pid)
            .number(4, exit.status)
            .message(5, &timestamp(exit.at));
        self.publish("exit", "TaskExit", event);
    }
}

impl Task {
    fn processes(&self) -> impl Iterator<Item = &Process> {
        self.execs.iter().chain([&self.init])
    }
}

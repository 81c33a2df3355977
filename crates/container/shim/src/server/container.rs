//! The runtime's side of the shim: making the container and its processes.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use carrack_container_runtime::{
    ContainerId, CreateRequest, Created, ExecRequest, Executed, Runtime, Stdio,
};
use carrack_linux::seal;
use rustix::pipe::PipeFlags;

use super::{Refused, attempting, open_nothing};
use crate::config::{ExecConfig, Log, ShimConfig};
use crate::protocol::Stats;

/// Our ends of a process's streams.
#[derive(Debug, Default)]
pub(super) struct Ends {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
}

/// A container and the runtime that knows it.
#[derive(Debug)]
pub(super) struct Container {
    runtime: Runtime,
    id: ContainerId,
}

impl Container {
    /// Makes the container and says how to reach its streams; those of a terminal are
    /// in `Created::console`.
    pub(super) fn create(
        config: &ShimConfig,
        output: Vec<OwnedFd>,
        init: Option<&[u8]>,
    ) -> Result<(Self, Created, Ends), Refused> {
        let runtime = Runtime::new(&config.runtime_root);
        let id: ContainerId = config.id.parse().map_err(|error| Refused::because(&error, None))?;
        let init = if config.init { Some(init_program(init)?) } else { None };
        let (stdio, ends) = main_streams(config, output)?;
        let request = CreateRequest {
            id: &id,
            bundle: &config.bundle,
            stdio,
            pid_file: None,
            preserve_fds: 0,
            init: init.as_ref().map(|program| program.as_fd()),
        };
        let created =
            runtime.create(request).map_err(|error| Refused::because(&error, error.exit_code()))?;
        Ok((Self { runtime, id }, created, ends))
    }

    pub(super) fn start(&self) -> Result<(), Refused> {
        let started = self.runtime.start(&self.id);
        started.map_err(|error| Refused::because(&error, error.exit_code()))
    }

    pub(super) fn kill(&self, signal: i32, all: bool) -> Result<(), Refused> {
        self.runtime.kill(&self.id, signal, all).map_err(|error| Refused::because(&error, None))
    }

    pub(super) fn pause(&self) -> Result<(), Refused> {
        self.runtime.pause(&self.id).map_err(|error| Refused::because(&error, None))
    }

    pub(super) fn resume(&self) -> Result<(), Refused> {
        self.runtime.resume(&self.id).map_err(|error| Refused::because(&error, None))
    }

    pub(super) fn delete(&self) -> Result<(), Refused> {
        self.runtime.delete(&self.id, true).map_err(|error| Refused::because(&error, None))
    }

    pub(super) fn stats(&self) -> Result<Stats, Refused> {
        let used = self.runtime.stats(&self.id).map_err(|error| Refused::because(&error, None))?;
        Ok(Stats {
            cpu_ns: used.cpu_nanos,
            throttled_ns: used.throttled_nanos,
            memory_bytes: used.memory_bytes,
            memory_inactive_file_bytes: used.memory_inactive_file_bytes,
            memory_limit_bytes: used.memory_limit_bytes,
            oom_kills: used.oom_kills,
            pids: used.pids,
            pids_limit: used.pids_limit,
            block_read_bytes: used.io_read_bytes,
            block_written_bytes: used.io_write_bytes,
        })
    }

    /// Runs one more process. With a terminal both ends are handles on it.
    pub(super) fn exec(&self, config: &ExecConfig) -> Result<(Executed, Ends), Refused> {
        let mut process = config.process.clone();
        if config.detached {
            process.terminal = false;
        }
        let (stdio, mut ends) = exec_streams(config)?;
        let request = ExecRequest { process: &process, stdio, pid_file: None, preserve_fds: 0 };
        let mut executed = self
            .runtime
            .exec(&self.id, request)
            .map_err(|error| Refused::because(&error, error.exit_code()))?;
        if let Some(console) = executed.console.take() {
            let other = console.try_clone().map_err(attempting("passing on the terminal"))?;
            ends = Ends { stdin: Some(console), stdout: Some(other), stderr: None };
        }
        Ok((executed, ends))
    }
}

/// Memory of its own: nothing of this program is mapped in the container.
fn init_program(bytes: Option<&[u8]>) -> Result<OwnedFd, Refused> {
    let attempt = "making the program of the init";
    let bytes = bytes.ok_or_else(|| {
        let reason = "this shim carries none; use the shim of carrack-runtime";
        attempting(attempt)(io::Error::new(io::ErrorKind::Unsupported, reason))
    })?;
    seal::program(c"carrack-init", bytes).map_err(attempting(attempt))
}

fn main_streams(config: &ShimConfig, output: Vec<OwnedFd>) -> Result<(Stdio, Ends), Refused> {
    if config.terminal {
        return Ok((Stdio::Terminal, Ends::default()));
    }
    let failed = attempting("making the container's pipes");
    if config.log == Log::Descriptors {
        let mut given = output.into_iter();
        let (Some(stdout), Some(stderr)) = (given.next(), given.next()) else {
            return Err(failed(io::Error::other("its two descriptors were not sent along")));
        };
        return Ok((Stdio::Pipes { stdin: None, stdout, stderr }, Ends::default()));
    }
    pipes(config.open_stdin, true).map_err(failed)
}

fn exec_streams(config: &ExecConfig) -> Result<(Stdio, Ends), Refused> {
    let failed = attempting("making the process's pipes");
    if config.detached {
        let nothing = || open_nothing();
        let streams = nothing().and_then(|stdout| Ok((stdout, nothing()?)));
        let (stdout, stderr) = streams.map_err(failed)?;
        return Ok((Stdio::Pipes { stdin: None, stdout, stderr }, Ends::default()));
    }
    if config.process.terminal {
        return Ok((Stdio::Terminal, Ends::default()));
    }
    pipes(config.stdin, false).map_err(failed)
}

/// Pipes for a process, and our ends of them. Those we read ourselves never block.
fn pipes(stdin: bool, ours_to_read: bool) -> io::Result<(Stdio, Ends)> {
    let (our_stdin, their_stdin) = if stdin {
        let (theirs, ours) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        (Some(ours), Some(theirs))
    } else {
        (None, None)
    };
    let (our_stdout, their_stdout) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (our_stderr, their_stderr) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    if ours_to_read {
        rustix::io::ioctl_fionbio(&our_stdout, true)?;
        rustix::io::ioctl_fionbio(&our_stderr, true)?;
    }
    let stdio = Stdio::Pipes { stdin: their_stdin, stdout: their_stdout, stderr: their_stderr };
    let ends = Ends { stdin: our_stdin, stdout: Some(our_stdout), stderr: Some(our_stderr) };
    Ok((stdio, ends))
}

//! Staying with a process until it ends: its terminal, signals for it, and orphans.

use std::io::{self, Write};
use std::os::fd::OwnedFd;

use carrack_linux::process::{self, Exit};
use carrack_linux::session::Signals;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::notify::Notify;
use crate::terminal::Terminal;

/// Signals held back from now on, to be passed on once there is somebody to get them.
///
/// To be called before the process starts, or one that comes early would end us alone.
pub(crate) fn hold_signals() -> io::Result<Signals> {
    // Faults are our own; what cannot be held back is left out.
    const OURS: [i32; 9] = [
        libc::SIGKILL,
        libc::SIGSTOP,
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGABRT,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGSEGV,
        libc::SIGSYS,
    ];
    let plain = (1..32).filter(|signal| !OURS.contains(signal));
    let real_time = libc::SIGRTMIN()..=libc::SIGRTMAX();
    Signals::watch(&plain.chain(real_time).collect::<Vec<_>>())
}

/// A process and what connects it to us.
pub(crate) struct Attended {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) signals: Signals,
    /// The container's terminal and ours.
    pub(crate) terminal: Option<(OwnedFd, Terminal)>,
    pub(crate) notify: Option<Notify>,
}

impl Attended {
    /// Passes on signals, keys and output until the process ends, and says how.
    pub(crate) fn attend(mut self) -> io::Result<Exit> {
        let mut lines = match &mut self.terminal {
            None => None,
            Some((console, terminal)) => {
                terminal.lend(console)?;
                rustix::io::ioctl_fionbio(&*console, true)?;
                Some(Lines::default())
            }
        };
        loop {
            if let Some(exit) = self.step(&mut lines)? {
                if let (Some((console, _)), Some(lines)) = (&self.terminal, &mut lines) {
                    lines.output(console)?;
                }
                return Ok(exit);
            }
        }
    }

    /// Waits for something to happen, and sees to it.
    fn step(&self, lines: &mut Option<Lines>) -> io::Result<Option<Exit>> {
        let stdin = rustix::stdio::stdin();
        let mut watched = vec![PollFd::new(&self.signals, PollFlags::IN)];
        if let (Some((console, _)), Some(lines)) = (&self.terminal, &*lines) {
            let (keys, output) = lines.interests();
            watched.push(PollFd::new(console, output));
            watched.push(PollFd::from_borrowed_fd(stdin, keys));
        }
        if let Some(notify) = &self.notify {
            watched.push(PollFd::new(notify, PollFlags::IN));
        }
        match rustix::event::poll(&mut watched, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let came: Vec<PollFlags> = watched.iter().map(PollFd::revents).collect();
        if let (Some((console, _)), Some(lines)) = (&self.terminal, lines) {
            let at = |index: usize| came.get(index).copied().unwrap_or(PollFlags::empty());
            lines.carry(console, at(1), at(2))?;
        }
        if let Some(notify) = &self.notify
            && came.last().is_some_and(|came| !came.is_empty())
        {
            notify.pass_on(self.pid.as_raw_nonzero().get())?;
        }
        self.take_signals()
    }

    fn take_signals(&self) -> io::Result<Option<Exit>> {
        while let Some(signal) = self.signals.next_arrived()? {
            match signal {
                libc::SIGCHLD => {
                    if let Some(exit) = self.reap()? {
                        return Ok(Some(exit));
                    }
                }
                libc::SIGWINCH => {
                    if let Some((console, terminal)) = &self.terminal {
                        terminal.resize(console);
                    }
                }
                // It may have just ended; its SIGCHLD is next.
                signal => _ = process::signal(std::os::fd::AsFd::as_fd(&self.pidfd), signal),
            }
        }
        Ok(None)
    }

    /// Reaps all that has ended, orphans too; the process's end, if it was among them.
    fn reap(&self) -> io::Result<Option<Exit>> {
        loop {
            match process::try_wait_any() {
                Ok(Some((pid, exit))) if pid == self.pid => return Ok(Some(exit)),
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Keys on their way in.
#[derive(Debug, Default)]
struct Lines {
    pending: Vec<u8>,
    no_more_keys: bool,
    no_more_output: bool,
}

impl Lines {
    /// What to wait for at our input and at the container's terminal.
    fn interests(&self) -> (PollFlags, PollFlags) {
        let hungry = self.pending.is_empty() && !self.no_more_keys;
        let keys = if hungry { PollFlags::IN } else { PollFlags::empty() };
        let mut output = PollFlags::empty();
        output.set(PollFlags::IN, !self.no_more_output);
        output.set(PollFlags::OUT, !self.pending.is_empty());
        (keys, output)
    }

    fn carry(&mut self, console: &OwnedFd, output: PollFlags, keys: PollFlags) -> io::Result<()> {
        if !keys.is_empty() && self.pending.is_empty() && !self.no_more_keys {
            self.input()?;
        }
        if !self.pending.is_empty() {
            match rustix::io::write(console, &self.pending) {
                Ok(written) => drop(self.pending.drain(..written)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => self.pending.clear(), // Nobody reads there any more.
            }
        }
        if !output.is_empty() && !self.no_more_output {
            self.output(console)?;
        }
        Ok(())
    }

    fn input(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Ok(0) | Err(Errno::IO) => self.no_more_keys = true,
            Ok(length) => self.pending.extend(buffer.iter().take(length)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// All that is there right now.
    fn output(&mut self, console: &OwnedFd) -> io::Result<()> {
        let mut buffer = [0; 8192];
        let mut out = io::stdout().lock();
        loop {
            match rustix::io::read(console, &mut buffer) {
                Ok(0) | Err(Errno::IO) => {
                    self.no_more_output = true;
                    return out.flush();
                }
                Ok(length) => out.write_all(buffer.get(..length).unwrap_or_default())?,
                Err(Errno::AGAIN) => return out.flush(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use carrack_linux::mount;
use carrack_linux::rooted::RootedDir;
use rustix::fs::{Gid, OFlags, Uid};
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, OutputModes};

use super::mounts::target_outside_proc;
use crate::failure::{Attempt, Failure};
use crate::plan::ProcessPlan;

/// The magic number of `/dev/pts`.
const DEVPTS: i64 = 0x1cd1;

/// Both ends of a terminal.
pub(super) struct Terminal {
    pub(super) master: OwnedFd,
    pub(super) peer: OwnedFd,
}

/// A terminal of the container's own `/dev/pts`, its end bound to `/dev/console`.
///
/// The end is never looked up by its name, which could have been exchanged
/// (CVE-2025-52565).
pub(super) fn open(root: &RootedDir, process: &ProcessPlan) -> Result<Terminal, Failure> {
    let terminal = open_pair(root, process)?;
    let console = target_outside_proc(root, Path::new("/dev/console"))?;
    mount::clone_tree(terminal.peer.as_fd(), false)
        .and_then(|tree| mount::attach(tree.as_fd(), console.as_fd()))
        .attempt(|| "binding the terminal to /dev/console".into())?;
    Ok(terminal)
}

/// A terminal of the container's own `/dev/pts`.
pub(super) fn open_pair(root: &RootedDir, process: &ProcessPlan) -> Result<Terminal, Failure> {
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let attempt = || "opening /dev/pts/ptmx (process.terminal needs a mount of devpts)".into();
    // Looked at before anything is opened: opening some devices has an effect.
    let terminals = root.subdirectory(Path::new("/dev/pts")).attempt(attempt)?;
    let kind = rustix::fs::fstatfs(terminals.root()).attempt(|| "looking at /dev/pts".into())?;
    if kind.f_type != DEVPTS {
        return Err(Failure::refused("opening /dev/pts/ptmx", "it is not the kernel's"));
    }
    let master = terminals.open_own("ptmx", flags).attempt(attempt)?;
    rustix::pty::unlockpt(&master).attempt(|| "unlocking the terminal".into())?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let peer =
        rustix::pty::ioctl_tiocgptpeer(&master, flags).attempt(|| "opening the terminal".into())?;
    if let Some((width, height)) = process.console_size {
        let size =
            rustix::termios::Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&peer, size)
            .attempt(|| "setting the terminal's size".into())?;
    }
    if process.plain_newlines {
        rustix::termios::tcgetattr(&peer)
            .and_then(|mut settings| {
                settings.output_modes -= OutputModes::ONLCR;
                rustix::termios::tcsetattr(&peer, OptionalActions::Now, &settings)
            })
            .attempt(|| "setting the terminal's newlines".into())?;
    }
    let (uid, gid) = (Uid::from_raw(process.uid), None::<Gid>);
    rustix::fs::fchown(&peer, Some(uid), gid)
        .attempt(|| "giving the terminal to the user".into())?;
    Ok(Terminal { master, peer })
}

/// Makes the terminal this session's, and standard input, output and error.
pub(super) fn install(terminal: &Terminal) -> Result<(), Failure> {
    rustix::process::ioctl_tiocsctty(&terminal.peer).attempt(|| "taking the terminal".into())?;
    rustix::stdio::dup2_stdin(&terminal.peer)
        .and_then(|()| rustix::stdio::dup2_stdout(&terminal.peer))
        .and_then(|()| rustix::stdio::dup2_stderr(&terminal.peer))
        .attempt(|| "installing the terminal".into())
}

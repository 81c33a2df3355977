use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use carrack_linux::mount;
use carrack_linux::rooted::RootedDir;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::pty::OpenptFlags;

use super::mounts::target;
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
    let console = target(root, Path::new("/dev/console"), false)?;
    mount::clone_tree(terminal.peer.as_fd(), false)
        .and_then(|tree| mount::attach(tree.as_fd(), console.as_fd()))
        .attempt(|| "binding the terminal to /dev/console".into())?;
    Ok(terminal)
}

/// A terminal of the container's own `/dev/pts`.
pub(super) fn open_pair(root: &RootedDir, process: &ProcessPlan) -> Result<Terminal, Failure> {
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let path = Path::new("/dev/pts/ptmx");
    let master = root
        .open_with(path, flags, Mode::empty())
        .attempt(|| "opening /dev/pts/ptmx (process.terminal needs a mount of devpts)".into())?;
    let kind = rustix::fs::fstatfs(&master).attempt(|| "looking at /dev/pts/ptmx".into())?;
    if kind.f_type != DEVPTS {
        return Err(Failure::refused("opening /dev/pts/ptmx", "it is not the kernel's"));
    }
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

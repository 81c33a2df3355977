//! How far a path leads.
//!
//! The kernel says that a path leads nowhere, not where it ends. So it is walked name by
//! name, each step through the root's own lookup, and links are followed by hand.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use carrack_linux::rooted::{self, RootedDir};
use rustix::fs::{FileType, Stat};

/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;

/// Where a walk ends before its path does.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Nothing has this name; the link, if any, that led to it, and what it says.
    Missing { at: PathBuf, link: Option<(PathBuf, PathBuf)> },
    /// Links that lead to each other.
    Loop { link: PathBuf },
    /// A directory this user may not look into.
    Closed { at: PathBuf, stat: Option<Box<Stat>> },
    /// A name on the way that is no directory.
    NotDirectory { at: PathBuf },
    /// Something else the system answered.
    Failed { at: PathBuf, error: io::Error },
}

impl Stop {
    /// A directory that is there.
    pub(crate) fn closed(at: &Path, stat: Stat) -> Self {
        Self::Closed { at: at.to_owned(), stat: Some(Box::new(stat)) }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { at, link: None } => write!(out, "there is no {}", at.display()),
            Self::Missing { at, link: Some((link, target)) } => write!(
                out,
                "{} is a link to {}, and there is no {}",
                link.display(),
                target.display(),
                at.display()
            ),
            Self::Loop { link } => {
                write!(out, "the link {} leads back to itself", link.display())
            }
            Self::Closed { at, stat } => {
                write!(out, "the directory {} cannot be searched by this user", at.display())?;
                stat.as_ref().map_or(Ok(()), |stat| {
                    let mode = stat.st_mode & 0o7777;
                    write!(out, " (mode {mode:04o}, user {}, group {})", stat.st_uid, stat.st_gid)
                })
            }
            Self::NotDirectory { at } => write!(out, "{} is not a directory", at.display()),
            Self::Failed { at, error } => write!(out, "looking up {}: {error}", at.display()),
        }
    }
}

/// What a path leads to.
pub(crate) struct Found {
    /// A handle on it.
    pub(crate) file: OwnedFd,
    pub(crate) stat: Stat,
}

/// Follows `path`, relative ones from `from`.
pub(crate) fn walk(root: &RootedDir, from: &Path, path: &Path) -> Result<Found, Stop> {
    let mut ahead: Vec<OsString> = Vec::new();
    push(&mut ahead, &from.join(path));
    let mut at = PathBuf::from("/");
    let mut followed: Vec<(PathBuf, PathBuf)> = Vec::new();
    while let Some(name) = ahead.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        let (file, stat) = step(root, &at, &next, followed.last())?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                if followed.len() >= MAX_LINKS {
                    return Err(Stop::Loop { link: next });
                }
                let target = target(&file, &next)?;
                push(&mut ahead, &target);
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                followed.push((next, target));
            }
            FileType::Directory => at = next,
            _ if ahead.is_empty() => return Ok(Found { file, stat }),
            _ => return Err(Stop::NotDirectory { at: next }),
        }
    }
    let (file, stat) = step(root, &at, &at, followed.last())?;
    Ok(Found { file, stat })
}

/// The names of `path`, the first on top.
fn push(ahead: &mut Vec<OsString>, path: &Path) {
    let names = path.components().rev().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        Component::ParentDir => Some(OsStr::new("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    ahead.extend(names.map(ToOwned::to_owned));
}

fn step(
    root: &RootedDir,
    at: &Path,
    next: &Path,
    link: Option<&(PathBuf, PathBuf)>,
) -> Result<(OwnedFd, Stat), Stop> {
    let found = root.handle_nofollow(next).and_then(|file| {
        let stat = rustix::fs::fstat(&file)?;
        Ok((file, stat))
    });
    found.map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT) => Stop::Missing { at: next.to_owned(), link: link.cloned() },
        Some(libc::ENOTDIR) => Stop::NotDirectory { at: at.to_owned() },
        Some(libc::EACCES) => {
            let directory = root.handle_nofollow(at).ok();
            let stat = directory.and_then(|directory| rustix::fs::fstat(directory).ok());
            Stop::Closed { at: at.to_owned(), stat: stat.map(Box::new) }
        }
        _ => Stop::Failed { at: next.to_owned(), error },
    })
}

fn target(link: &OwnedFd, path: &Path) -> Result<PathBuf, Stop> {
    rooted::link_text(link.as_fd()).map_err(|error| Stop::Failed { at: path.to_owned(), error })
}

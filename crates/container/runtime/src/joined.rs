//! Namespaces joined by path: entered by us, inherited by the first process, left again.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use carrack_linux::namespace::{self, Kinds};

/// Namespaces to be in while a process is born.
#[derive(Debug)]
pub(crate) struct Joined(Vec<Place>);

#[derive(Debug)]
struct Place {
    kind: Kinds,
    there: OwnedFd,
    back: OwnedFd,
}

impl Joined {
    /// Those that can be left again: the users and the mounts are for the process that is born.
    pub(crate) fn open(wanted: &[(Kinds, PathBuf)]) -> io::Result<Self> {
        wanted
            .iter()
            .filter(|(kind, _)| !matches!(*kind, Kinds::USER | Kinds::MOUNT))
            .map(|(kind, path)| {
                let there = namespace::open(path).map_err(|error| {
                    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
                })?;
                Self::place(*kind, there)
            })
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// The process id namespace of a process, for a process that joins it later on.
    pub(crate) fn pid_of(process: rustix::process::Pid) -> io::Result<Self> {
        let there = namespace::open_of(process, Kinds::PID)?;
        Ok(Self(vec![Self::place(Kinds::PID, there)?]))
    }

    fn place(kind: Kinds, there: OwnedFd) -> io::Result<Place> {
        let back = if kind == Kinds::PID {
            namespace::open_for_children()?
        } else {
            namespace::open_own(kind)?
        };
        Ok(Place { kind, there, back })
    }

    /// Whether we may come back: not where an outer namespace belongs to users above ours, as
    /// for root of a user namespace that joins a container's process ids.
    pub(crate) fn can_be_left(&self) -> bool {
        self.0.iter().all(|place| namespace::enter(place.back.as_fd(), place.kind).is_ok())
    }

    /// Goes there for good.
    ///
    /// # Errors
    ///
    /// When one of them cannot be entered.
    pub(crate) fn enter(&self) -> io::Result<()> {
        self.0.iter().try_for_each(|place| namespace::enter(place.there.as_fd(), place.kind))
    }

    /// Does `body` inside, and comes back whatever it answers.
    ///
    /// # Errors
    ///
    /// When a namespace cannot be entered, or, worse, left: what `body` made is then lost.
    pub(crate) fn within<T>(&self, body: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let mut entered = Vec::new();
        let mut answer = Ok(());
        for place in &self.0 {
            if answer.is_ok() {
                answer = namespace::enter(place.there.as_fd(), place.kind);
                entered.extend(answer.is_ok().then_some(place));
            }
        }
        let made = answer.and_then(|()| body());
        for place in entered.into_iter().rev() {
            namespace::enter(place.back.as_fd(), place.kind)?;
        }
        made
    }
}

//! Interfaces of the host that move into a container (`linux.netDevices`).

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use carrack_linux::namespace::{self, Kinds};
use carrack_linux::netlink::{Family, Socket};
use rustix::process::Pid;

use crate::error::CreateError;
use crate::plan::Plan;

/// Moves the interfaces of the plan to where `pid` is, with their global addresses, and brings
/// them up there. They come back, or go, when the namespace does: that is the kernel's.
pub(crate) fn hand_over(plan: &Plan, pid: Pid) -> Result<(), CreateError> {
    if plan.net_devices.is_empty() {
        return Ok(());
    }
    let there = namespace::open_of(pid, Kinds::NETWORK)
        .map_err(|source| CreateError::Host { attempt: "opening its network".into(), source })?;
    for (name, inside) in &plan.net_devices {
        move_one(name, inside, &there).map_err(|source| CreateError::Host {
            attempt: format!("moving the interface {name} into the container (linux.netDevices)"),
            source,
        })?;
    }
    Ok(())
}

fn move_one(name: &str, inside: &str, there: &OwnedFd) -> io::Result<()> {
    let mut here = Socket::open(Family::Route)?;
    let link = here.link(name)?.ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, "the host has no interface of that name")
    })?;
    // A move takes the addresses away.
    let addresses = here.addresses(link.index)?;
    here.move_link(link.index, there.as_fd(), inside)?;
    let mut there = Socket::open_in(there.as_fd(), Family::Route)?;
    let moved = there.link(inside)?.ok_or(io::ErrorKind::NotFound)?;
    for address in &addresses {
        there.restore_address(moved.index, address)?;
    }
    there.set_up(moved.index)
}
